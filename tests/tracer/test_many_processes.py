"""Eight processes write to one store at once while a ninth queries it: none is lost and nobody sees an error."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import clew

WRITERS = 8
SPANS = int(os.environ.get("CLEW_TEST_SPANS", "200"))  # the full size is 2000

PROGRAM = """
    import os, sys, clew
    clew.init("tests", store=sys.argv[1])

    @clew.trace("work")
    def work(number):
        return f"{sys.argv[2]} {number} " + "content that is shared by all of the processes " * 3

    sys.stdin.read()
    with clew.run(f"writer {sys.argv[2]}") as run:
        clew.dataset("shared", [{"text": f"row {number}"} for number in range(20)], text="text")
        for number in range(int(sys.argv[3])):
            work(number)
    clew.flush()
    from clew.tracer import init
    print(init.active().faults.counts)
"""


def test_eight_writers_and_a_reader_at_once(clean_tracing: None, tmp_path: Path) -> None:
    store = tmp_path / "store"
    words = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(store)]
    writers = [
        subprocess.Popen(
            [*words, str(number), str(SPANS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(WRITERS)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
        writer.stdin = None
    counts = [0]
    while any(writer.poll() is None for writer in writers):
        if (store / "FORMAT").exists():
            with clew.open(store) as reader:
                counts.append(len(reader.spans()))
    assert [(writer.wait(), *writer.communicate()) for writer in writers] == [(0, "{}\n", "")] * WRITERS
    assert counts == sorted(counts)  # what was there stays there
    with clew.open(store) as reader:
        spans = reader.spans()
        runs = reader.runs()
        versions = reader.artifact("dataset/shared")
    assert len(runs) == WRITERS
    assert len(spans) == WRITERS * (SPANS + 1)
    assert {span.status for span in spans} == {"ok"}
    assert versions is not None
    per_run = {run.run_id: 0 for run in runs}
    for span in spans:
        per_run[span.run_id] += 1
    assert set(per_run.values()) == {SPANS + 1}
