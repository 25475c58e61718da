"""Background indexing that is stopped in the middle: it ends after its batch, and the next query reads the rest."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

import clew
from clew.lineage import index
from clew.store import catalog
from clew.store.folder import Folder
from clew.store.store import Store
from clew.tracer.indexing import BackgroundIndexing
from clew.tracer.init import Tracer

SPANS = 100


def work() -> None:
    with clew.run("run"):
        for number in range(SPANS - 1):
            with clew.trace(f"span {number}") as block:
                block.generated(f"text {number} " * 20)


def indexed(folder: Folder) -> int:
    """How many spans the catalog has, before anybody catches up."""
    with Store(folder) as store, store.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(catalog.span)).scalar_one())


def indexed_bytes(folder: Folder) -> int:
    """How much of the log the catalog has: what is captured at the start may fill the first batches."""
    with Store(folder) as store, store.read() as connection:
        return int(connection.execute(sa.select(sa.func.sum(catalog.segment.c.indexed))).scalar_one())


def assert_nothing_is_lost(store: Path, status: str = "ok") -> None:
    with clew.open(store) as reader:
        spans = reader.spans()
        assert len(spans) == SPANS
        assert {span.status for span in spans} == {status}
        assert spans[-1].generated[0].value == f"text {SPANS - 2} " * 20


class Held:
    """The background indexer, held in its first transaction until `go`."""

    def __init__(self, tracer: Tracer, go: threading.Event) -> None:
        self.begun = threading.Event()
        store, _ = index.shared(tracer.folder)
        sa.event.listen(store.engine, "commit", self._hold)
        self.go = go

    def _hold(self, connection: sa.Connection) -> None:
        if threading.current_thread().name == "clew-index" and not self.begun.is_set():
            self.begun.set()
            assert self.go.wait(60)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_BATCH", 10)


def test_closing_ends_the_indexer_after_its_batch_and_the_next_query_reads_the_rest(tracer: Tracer) -> None:
    held = Held(tracer, tracer.indexing._stop)
    work()
    assert held.begun.wait(60)
    thread = tracer.indexing._thread
    clew.shutdown()
    assert thread is not None
    assert not thread.is_alive()
    assert tracer.faults.counts == {}
    assert indexed(tracer.folder) < SPANS
    assert indexed_bytes(tracer.folder) > 0
    assert_nothing_is_lost(tracer.folder.path)


def test_uninstrumenting_does_not_wait_for_the_indexer_which_goes_on(tracer: Tracer) -> None:
    go = threading.Event()
    held = Held(tracer, go)
    work()
    assert held.begun.wait(60)
    clew.uninstrument()
    assert not go.is_set()
    assert not tracer.indexing._stop.is_set()
    go.set()
    clew.flush()
    assert tracer.faults.counts == {}
    assert indexed(tracer.folder) == SPANS
    assert_nothing_is_lost(tracer.folder.path)


def test_a_query_of_the_same_process_waits_for_the_indexer_and_misses_nothing(tracer: Tracer) -> None:
    held = Held(tracer, threading.Event())
    work()
    assert held.begun.wait(60)
    found: list[int] = []

    def ask() -> None:
        with clew.open(tracer.folder.path) as reader:
            found.append(len(reader.spans()))

    asking = threading.Thread(target=ask)
    asking.start()
    held.go.set()
    asking.join()
    assert found == [SPANS]


PROGRAM = """
    import os, signal, sys, threading
    import clew
    from clew.lineage import index
    from tests.tracer.test_indexing import Held, work

    index._BATCH = 10
    tracer = clew.init("tests", store=sys.argv[1])
    held = Held(tracer, tracer.indexing._stop)
    work()
    assert held.begun.wait(60)
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_a_program_that_ends_while_it_is_indexed_loses_nothing(
    clean_tracing: None, tmp_path: Path, end: str, code: int
) -> None:
    store = tmp_path / "store"
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM) + end, str(store)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=root,
    )
    assert done.returncode == code, done.stderr
    assert "clew" not in done.stderr
    assert indexed(Folder(store)) < SPANS
    assert_nothing_is_lost(store)


def test_after_it_was_stopped_nothing_starts_it_again(tracer: Tracer) -> None:
    indexing = BackgroundIndexing(tracer)
    indexing.stop()
    indexing.touch()
    assert indexing._thread is None
