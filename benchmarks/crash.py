"""Crash: processes that trace are killed with SIGKILL at random instants, and nothing that was finished may be lost.

    python benchmarks/crash.py [--json] [--kills 200]

A child reports each span over a pipe: when it is open, and again after it ended. The parent kills it at some instant,
and in the end asks the store, to which all children wrote, for every span: name, status and the bytes of what it
generated. A span that was still open must show as `killed`, with its input. Every digest in the store must be readable.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from measure import Bar, Result, check, child_environment, program, report, scratch

AT_ONCE = 3
LONGEST_SECONDS = 0.35  # between a child's first report and its death


def crash(kills: int, seed: int) -> Result:
    """Kill `kills` children, then look at what the store knows of them."""
    chance = random.Random(seed)
    delays = [
        chance.expovariate(6 / LONGEST_SECONDS) if chance.random() < 0.2 else chance.uniform(0, LONGEST_SECONDS)
        for _ in range(kills)
    ]
    with scratch() as folder:
        # in a folder of its own, so that no child captures a whole repository as its code
        script = Path(shutil.copy(__file__, folder))
        shutil.copy(Path(__file__).with_name("measure.py"), folder)
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            deaths = [
                pool.submit(one_death, script, folder / "store", number, delay) for number, delay in enumerate(delays)
            ]
            told: list[dict[str, Any]] = [line for death in deaths for line in death.result()]
        found = verdict(folder / "store", told)
    check(found.finished > kills, f"only {found.finished} spans were finished by {kills} children: nothing was tested")
    check(found.open > 0, "no span was open when its process was killed: nothing was tested")
    figures = {"kills": kills} | dataclasses.asdict(found)
    return Result(
        figures, {name: Bar(0) for name in ("lost_finished_spans", "wrong", "dangling_blobs", "killed_not_shown")}
    )


def one_death(script: Path, store: Path, number: int, delay: float) -> list[dict[str, Any]]:
    """Start a child, kill it `delay` seconds after its first word; returns what it had said by then."""
    process = subprocess.Popen(
        [sys.executable, str(script), "--child", str(store), str(number)],
        cwd=script.parent,
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    first = process.stdout.readline()
    timer = threading.Timer(delay, process.send_signal, [signal.SIGKILL])
    timer.start()
    said = first + process.stdout.read()
    complaint = process.stderr.read().decode()
    code = process.wait()
    timer.cancel()
    check(code == -signal.SIGKILL, f"child {number} ended by itself with {code}: {complaint[-2000:]}")
    return [json.loads(line) for line in said.splitlines(keepends=True) if line.endswith(b"\n")]


@dataclasses.dataclass
class Verdict:
    """What the store knows of the spans that the children told of."""

    finished: int = 0
    open: int = 0
    lost_finished_spans: int = 0
    wrong: int = 0  # name, status or bytes are not what the child said
    killed_shown: int = 0  # open spans with status `killed` and their input
    ended_unreported: int = 0  # killed between the end of a span and the word of it
    killed_not_shown: int = 0
    dangling_blobs: int = 0


def verdict(store: Path, told: list[dict[str, Any]]) -> Verdict:
    """Ask the store for everything that was told."""
    import clew
    from clew.store.errors import ClewError

    found = Verdict()
    ends = {one["span"]: one for one in told if "status" in one}
    opened = {one["span"]: one for one in told if "status" not in one}
    with clew.open(store) as reader:
        spans = {span.span_id: span for span in reader.spans()}
        contents: dict[str, str | None] = {}
        for span in spans.values():
            for slot in [*span.used, *span.generated]:
                if slot.digest in contents:
                    continue
                try:
                    contents[slot.digest] = sha256(slot.value)
                except ClewError:
                    contents[slot.digest] = None
        found.dangling_blobs = sum(content is None for content in contents.values())
        for name, end in ends.items():
            found.finished += 1
            span = spans.get(name)
            if span is None or span.status in ("killed", "running", "unknown"):
                found.lost_finished_spans += 1
                continue
            made = [contents[slot.digest] for slot in span.generated]
            expected = [end["made"]] if end["made"] else []
            found.wrong += (span.name, span.status, made) != (end["name"], end["status"], expected)
        for name in opened.keys() - ends.keys():
            found.open += 1
            span = spans.get(name)
            given = [contents[slot.digest] for slot in span.used[:1]] if span else []  # a traceback may stand behind it
            if span is None or (opened[name]["given"] and given != [opened[name]["given"]]):
                found.killed_not_shown += 1
            elif span.status == "killed":
                found.killed_shown += 1
            elif span.status in ("ok", "error"):
                found.ended_unreported += 1
            else:
                found.killed_not_shown += 1
    return found


def sha256(value: Any) -> str:
    """A hash of a text that has nothing to do with the store's own."""
    return hashlib.sha256(str(value).encode()).hexdigest()


def victim(store: str, number: int) -> None:
    """Trace until killed, on two threads, and say what was done: each line is one write, whole or not there."""
    from opentelemetry import trace as otel

    import clew

    clew.init(project="crash", store=store)

    def say(**line: Any) -> None:
        os.write(1, json.dumps(line).encode() + b"\n")

    def here() -> str:
        return format(otel.get_current_span().get_span_context().span_id, "016x")

    @clew.trace("step")
    def step(text: str) -> str:
        say(span=here(), given=sha256(text))
        ids.span = here()
        size = chance().choice((20, 300, 3_000)) if chance().random() > 0.02 else 1_500_000
        if chance().random() < 0.1:
            raise ValueError("a failure that belongs to the program")
        return (f"{text[:40]} became {chance().random()} " * (size // 30 + 1))[:size]

    ids = threading.local()

    def chance() -> random.Random:
        return ids.chance  # type: ignore[no-any-return]

    def work(thread: int) -> None:
        ids.chance = random.Random(number * 2 + thread)
        for turn in range(1_000_000):
            with clew.run(f"work {thread}"):
                root = here()
                say(span=root, given=None)
                text = f"thread {thread} of {number}, turn {turn}"
                for _ in range(10):
                    try:
                        text = step(text)
                    except ValueError:
                        say(span=ids.span, name="step", status="error", made=None)
                    else:
                        say(span=ids.span, name="step", status="ok", made=sha256(text))
            say(span=root, name=f"work {thread}", status="ok", made=None)

    threading.Thread(target=work, args=(1,), daemon=True).start()
    work(0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        victim(sys.argv[2], int(sys.argv[3]))
    options = program(
        __doc__, ("--kills", {"type": int, "default": 200}), ("--seed", {"type": int, "default": 7})
    ).parse_args()
    sys.exit(report("crash", options.json, lambda: crash(options.kills, options.seed)))
