"""A process that forks in the middle of another thread's work: the child hangs nowhere, and neither loses a span."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import clew

HEAD = """
    import os, signal, sys, threading
    import clew
    from clew.lineage import index

    tracer = clew.init("tests", store=sys.argv[1])
    folder = tracer.folder
    KEY = "sk-proj-" + "aB3dE5gH7jK9mN1pQ3sT5vX7z" * 2

    @clew.trace
    def work(name):
        return f"{name} with {KEY} " * 5

    def forked():
        child = os.fork()
        if child:
            return child
        signal.alarm(100)  # who hangs is ended
        with clew.run("child"):
            work("child")
            tracer.faults.add("somewhere", "odd")
            clew.secret("late", reader=lambda: "correct horse battery").value()
            clew.dataset("notes", [{"id": "n1", "text": "a note of the child"}])
        clew.flush()
        os._exit(len(tracer.faults.counts))

    with clew.run("before"):
        work("before")
"""
TAIL = """
    assert os.waitpid(child, 0)[1] == 0
    with clew.run("after"):
        work("after")
    clew.flush()
    assert tracer.faults.counts == {}
"""


def runs_of(body: str, store: Path) -> dict[str, list[str]]:
    """The runs of a program that forks, each with its spans, after the program ended well."""
    code = "".join(map(textwrap.dedent, (HEAD, body, TAIL)))
    words = [sys.executable, "-c", code, str(store)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    with clew.open(store) as reader:
        assert {span.status for span in reader.spans()} == {"ok"}
        assert reader.artifact("dataset/notes") is not None
        return {run.name: [span.name for span in reader.spans(run)] for run in reader.runs()}


ALL = {"before": ["before", "work"], "child": ["child", "work"], "after": ["after", "work"]}


@pytest.mark.parametrize(
    "lock",
    [
        "index._shared_lock",
        "index.shared(folder)[0]._lock",
        "tracer.log._lock",
        "tracer.indexing._lock",
        "tracer.faults._lock",
        "tracer.gate.cleaner._lock",
        "tracer.gate.secrets._lock",
    ],
)
def test_a_lock_that_another_thread_holds_at_the_fork_is_free_in_the_child(
    clean_tracing: None, tmp_path: Path, lock: str
) -> None:
    body = f"""
    clew.flush()
    held, done = threading.Event(), threading.Event()

    def hold():
        with {lock}:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = forked()
    done.set()
    thread.join()
    """
    assert runs_of(body, tmp_path / "store") == ALL


def test_a_child_forked_between_two_segments_of_an_indexer_indexes_for_itself(
    clean_tracing: None, tmp_path: Path
) -> None:
    body = """
    begun, go = threading.Event(), threading.Event()

    def between():
        begun.set()
        go.wait()
        return False

    thread = threading.Thread(target=lambda: index.index_store(folder, stopped=between))
    thread.start()
    begun.wait()
    child = forked()
    go.set()
    thread.join()
    """
    assert runs_of(body, tmp_path / "store") == ALL


def test_a_fork_waits_for_the_transaction_of_another_thread_so_that_the_child_can_write_to_the_catalog(
    clean_tracing: None, tmp_path: Path
) -> None:
    """SQLite's own memory of the lock would go along into the child, and nobody there would ever free it."""
    body = """
    import sqlalchemy as sa

    begun, go = threading.Event(), threading.Event()

    def in_a_transaction(connection):
        if threading.current_thread() is thread:
            begun.set()
            go.wait()

    sa.event.listen(index.shared(folder)[0].engine, "commit", in_a_transaction)
    thread = threading.Thread(target=lambda: index.index_store(folder))
    thread.start()
    begun.wait()
    os.register_at_fork(before=go.set)
    child = forked()
    thread.join()
    """
    assert runs_of(body, tmp_path / "store") == ALL
