"""How many stores a process keeps open."""

from __future__ import annotations

import contextlib
import gc
import weakref
from pathlib import Path

import clew
from clew.lineage import index
from clew.lineage.reader import Reader
from clew.store.folder import Folder


def written(path: Path, name: str) -> Folder:
    """A store in which one run is."""
    clew.init("p", store=path / name)
    with clew.run(name):
        pass
    clew.shutdown()
    return Folder(path / name)


def test_a_process_that_goes_through_many_stores_holds_few(clean_tracing: None, tmp_path: Path) -> None:
    held = []
    for number in range(12):
        folder = written(tmp_path, str(number))
        assert [run.name for run in Reader(folder.path).runs()] == [str(number)]
        held.append(weakref.ref(index.shared(folder)[0]))
    gc.collect()
    assert [one() is not None for one in held] == [False] * 8 + [True] * 4


def test_a_store_that_is_used_stays_open(clean_tracing: None, tmp_path: Path) -> None:
    often = written(tmp_path, "often")
    first = index.shared(often)
    for number in range(12):
        index.shared(Folder(tmp_path / str(number), create=True))
        assert index.shared(often) is first


def test_a_reader_whose_store_was_closed_reads_on(clean_tracing: None, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        folders = [written(tmp_path, str(number)) for number in range(12)]
        readers = [stack.enter_context(Reader(folder.path)) for folder in folders]
        for number, reader in enumerate(readers):
            assert [run.name for run in reader.runs()] == [str(number)]
        clew.init("p", store=folders[0].path)
        with clew.run("later"):
            pass
        clew.shutdown()
        assert [run.name for run in readers[0].runs()] == ["later", "0"]
