"""The store's folder: private, ignored by git, recognised, and never taken for something that it is not."""

from __future__ import annotations

import gc
import os
import subprocess
from pathlib import Path

import pytest

from clew.store import folder as subject
from clew.store.errors import StoreFormatError, StoreNotFound, StoreUnwritable
from clew.store.folder import Folder


def tree(path: Path) -> list[str]:
    return sorted(str(one.relative_to(path)) for one in path.rglob("*"))


def test_a_new_store_is_private_and_holds_almost_nothing(tmp_path: Path) -> None:
    made = Folder(tmp_path / "a" / "store", create=True)
    assert made.path.stat().st_mode & 0o777 == 0o700
    assert tree(made.path) == [".gitignore", "FORMAT", "blob", "lock", "log"]
    assert sum(made.size_bytes().values()) < 1000
    assert {(made.path / name).stat().st_mode & 0o777 for name in ("blob", "lock", "log")} == {0o700}


def test_git_does_not_see_it(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    Folder(tmp_path / ".clew", create=True).redaction_key()
    seen = subprocess.run(["git", "status", "--porcelain"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert seen.stdout == ""


def test_opening_writes_nothing_and_making_again_changes_nothing(tmp_path: Path) -> None:
    Folder(tmp_path / "store", create=True)
    before = [(name, (tmp_path / "store" / name).stat().st_mtime_ns) for name in tree(tmp_path / "store")]
    Folder(tmp_path / "store")
    Folder(tmp_path / "store", create=True)
    assert [(name, (tmp_path / "store" / name).stat().st_mtime_ns) for name in tree(tmp_path / "store")] == before


@pytest.mark.parametrize("exists", [False, True])
def test_where_there_is_none_the_error_says_what_was_found(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "store").mkdir()
    with pytest.raises(StoreNotFound, match="a folder that is not a store" if exists else "found nothing"):
        Folder(tmp_path / "store")


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreFormatError, match=r"holds other files \(thesis.tex"):
        Folder(tmp_path, create=True)
    assert tree(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("text", ["", "clew store\n", "clew store\nx\n", "something\n1\n"])
def test_a_format_that_is_no_number_is_a_named_error(tmp_path: Path, text: str) -> None:
    made = Folder(tmp_path / "store", create=True)
    (made.path / "FORMAT").write_text(text)
    with pytest.raises(StoreFormatError, match="is not a clew store's"):
        Folder(made.path)


def test_a_store_of_a_newer_clew_is_a_named_error(tmp_path: Path) -> None:
    made = Folder(tmp_path / "store", create=True)
    (made.path / "FORMAT").write_text("clew store\n2\n")
    with pytest.raises(StoreFormatError, match=r"newer clew \(format 2, this reads 1\)"):
        Folder(made.path)


def test_a_place_that_cannot_be_written_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnwritable, match="cannot make a store"):
        Folder(tmp_path / "file" / "store", create=True)


def test_the_redaction_key_is_made_once_and_is_the_owners_alone(folder: Folder) -> None:
    key = folder.redaction_key()
    assert len(key) == 32
    assert folder.redaction_key() == Folder(folder.path).redaction_key() == key
    assert (folder.path / "redaction.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "no hex", "ab" * 31])
def test_a_damaged_redaction_key_is_a_named_error(folder: Folder, text: str) -> None:
    (folder.path / "redaction.key").write_text(text)
    with pytest.raises(StoreFormatError, match=r"redaction\.key is no key"):
        folder.redaction_key()


def test_many_processes_making_one_store_agree_on_its_key(tmp_path: Path) -> None:
    keys = []
    children = []
    for _ in range(8):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            os.write(write, Folder(tmp_path / "store", create=True).redaction_key())
            os._exit(0)
        os.close(write)
        children.append((child, read))
    for child, read in children:
        keys.append(os.read(read, 64))
        os.close(read)
        assert os.waitpid(child, 0)[1] == 0
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32


def test_a_new_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    subject._write_new(tmp_path / "one", "first", 0o600)
    subject._write_new(tmp_path / "one", "second", 0o600)
    assert (tmp_path / "one").read_text() == "first"
    assert tree(tmp_path) == ["one"]


def test_a_catalog_aside_goes_with_its_folder_without_a_word(folder: Folder) -> None:
    folder.catalog.write_bytes(b"as it is")
    aside = folder.aside()
    there = aside.lock
    assert aside.catalog.read_bytes() == b"as it is"
    assert (aside.log, aside.path) == (folder.log, folder.path)
    del aside
    gc.collect()  # a warning would be an error here
    assert not there.exists()


def test_size_is_told_by_part(folder: Folder) -> None:
    (folder.log / "a.log").write_bytes(b"x" * 10)
    (folder.blob / "ab").mkdir()
    (folder.blob / "ab" / "cd").write_bytes(b"x" * 20)
    for name in ("catalog.sqlite", "catalog.sqlite-wal"):
        (folder.path / name).write_bytes(b"x" * 15)
    found = folder.size_bytes()
    assert (found["log"], found["blob"], found["catalog"]) == (10, 20, 30)
