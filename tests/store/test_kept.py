"""A connection that is kept: it does not outlive the catalog's file, is no child's, and is nobody's while a process forks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clew.store import backend, kept
from clew.store.folder import Folder
from clew.store.store import Store

COUNT = "SELECT count(*) FROM ref WHERE name = ?"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    kept._close_all()  # those of other tests in this process
    with Store(Folder(tmp_path / "store", create=True)) as made:
        yield made


def add(store: Store, name: str) -> None:
    with store.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO ref (name, version, kind, digest, alias) VALUES (?, 1, 'x', x'00', 0)", (name,)
        )


def test_it_sees_what_was_written_since_it_was_opened(store: Store) -> None:
    assert store.row(COUNT, "a") == (0,)
    add(store, "a")
    assert store.row(COUNT, "a") == (1,)
    assert store.row("SELECT name FROM ref WHERE name = ?", "b") is None


def test_a_catalog_that_was_replaced_is_asked_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "CHECK_SECONDS", -1.0)
    add(store, "a")
    assert store.row(COUNT, "a") == (1,)
    for file in store.folder.path.glob("catalog.sqlite*"):
        file.unlink()
    with Store(store.folder):
        assert store.row(COUNT, "a") == (0,)


def test_several_threads_ask_one_connection(store: Store) -> None:
    add(store, "a")
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.extend(store.row(COUNT, "a") for _ in range(50))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(1,)] * 200
    assert len(backend._open) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_does_not_wait_for_it_and_the_child_has_its_own(store: Store) -> None:
    add(store, "a")
    thread = threading.Thread(target=lambda: store.row(COUNT, "a"))  # opened by a thread that the child has not
    thread.start()
    thread.join()
    assert len(backend._open) == 1
    child = os.fork()
    if child == 0:
        right = not backend._open and store.row(COUNT, "a") == (1,)
        os._exit(0 if right else 1)
    assert not backend._open  # it was closed before, or the fork would have waited for its thread
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.row(COUNT, "a") == (1,)


def test_closing_lets_go_of_it(store: Store) -> None:
    store.row(COUNT, "a")
    assert len(backend._open) == 1
    store.close()
    assert not backend._open
