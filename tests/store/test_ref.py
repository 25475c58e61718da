"""Refs: names that move, with a history that does not, whoever writes at the same time."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from clew.lineage.index import Indexer
from clew.store import ref, segment
from clew.store.digest import text_digest
from clew.store.errors import NotFound
from clew.store.folder import Folder
from clew.store.log import Log
from clew.store.store import Store


@pytest.fixture
def log(folder: Folder) -> Log:
    return Log(folder.log, process_id=b"p" * 16)


def test_new_content_makes_a_new_version_and_old_content_keeps_its_own(store: Store, log: Log) -> None:
    one, two = text_digest("one"), text_digest("two")
    versions = [ref.put(store, log, "dataset/d", "dataset", name) for name in (one, one, two, two, one)]
    assert versions == [1, 1, 2, 2, 3]
    history = ref.history_of(store, "dataset/d")
    assert [(each["version"], each["digest"]) for each in history] == [(1, str(one)), (2, str(two)), (3, str(one))]
    assert ref.put(store, log, "dataset/other", "dataset", one) == 1
    assert [(each["name"], each["version"]) for each in ref.listing(store)] == [("dataset/d", 3), ("dataset/other", 1)]
    assert all(each["who"] and each["when_ns"] for each in ref.listing(store))
    log.close()


@pytest.mark.parametrize("name", ["", "x" * 401, "two\nlines", "nul\0", "\ud800"])
def test_a_name_that_cannot_be_one_is_refused(store: Store, log: Log, name: str) -> None:
    with pytest.raises(ValueError, match="a ref name has 1 to 400 printable characters"):
        ref.put(store, log, name, "model", text_digest("x"))


def test_a_name_that_was_never_given_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="no ref 'model/none'"):
        ref.history_of(store, "model/none")


def test_the_logs_alone_make_every_ref_again(folder: Folder, store: Store, log: Log) -> None:
    for number in range(5):
        ref.put(store, log, "model/m", "model", text_digest(str(number)))
    ref.put(store, log, "model/m@production", "model", text_digest("2"), alias=True)
    log.close()
    before = ref.listing(store), ref.history_of(store, "model/m"), ref.history_of(store, "model/m@production")
    with Store(Folder(folder.path.with_name("again"), create=True)) as again:
        Indexer(again).catch_up(segment.stems(folder.log))
        after = ref.listing(again), ref.history_of(again, "model/m"), ref.history_of(again, "model/m@production")
    assert after == before
    Indexer(store).catch_up(segment.stems(folder.log))  # nor does indexing change what is there
    assert (ref.listing(store), ref.history_of(store, "model/m")) == before[:2]


def test_eight_writers_at_once_get_every_version_once(folder: Folder, catalog_url: str | None, store: Store) -> None:
    program = r"""
        import os, sys
        from clew.store import ref
        from clew.store.digest import text_digest
        from clew.store.folder import Folder
        from clew.store.log import Log
        from clew.store.store import Store

        def write(writer):
            folder = Folder(sys.argv[1])
            log = Log(folder.log, process_id=os.urandom(16))
            with Store(folder, catalog_url=sys.argv[2] or None) as store:
                for number in range(10):
                    version = ref.put(store, log, "model/m", "model", text_digest(f"{writer} {number}"))
                    os.write(1, b"%d\n" % version)
            return 0

        def forked(writer):
            child = os.fork()
            if child == 0:
                os._exit(write(writer))
            return child

        children = [forked(writer) for writer in range(8)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    """
    words = [sys.executable, "-c", textwrap.dedent(program), str(folder.path), catalog_url or ""]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    versions = sorted(int(word) for word in done.stdout.split())
    assert versions == list(range(1, 81))
    history = ref.history_of(store, "model/m")
    assert [each["version"] for each in history] == versions
    assert ref.listing(store)[0]["version"] == 80
    assert len({each["digest"] for each in history}) == 80
