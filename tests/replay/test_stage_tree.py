"""A recorded tree is laid out byte for byte, and no path in it leads out of the folder it is laid out in."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.lineage.reader import Reader
from clew.replay.stage.recorded import Recorded, StoredCode, StoredFile, recorded_process
from clew.replay.stage.tree import check, lay_out
from clew.store.digest import Digest, Domain, digest
from clew.store.errors import CorruptRecord, NotReplayable
from clew.tracer import entry
from clew.tracer.capture import Batch
from clew.tracer.code import Omission
from clew.tracer.init import Tracer


def stored(tracer: Tracer, path: str, content: bytes, **more: Any) -> StoredFile:
    """A file whose content is in the store, as a process records it."""
    batch = Batch(tracer.gate)
    name = Digest(batch.data(Domain.BYTES, content))
    batch.commit()
    restorable = name == digest(Domain.BYTES, content)
    fields = {"size_bytes": len(content), "executable": False, "digest": str(name), "restorable": restorable}
    return StoredFile(path=path, **{**fields, **more})


def link(path: str, target: str) -> StoredFile:
    return StoredFile(path=path, size_bytes=0, executable=False, digest=None, link=target, restorable=True)


def recorded(*files: StoredFile, root: Path | None = None, **more: Any) -> Recorded:
    return Recorded(
        "00" * 16, entry.capture(), StoredCode(files=list(files), **more), None, str(root) if root else None
    )


def names(folder: Path) -> set[str]:
    return {str(one.relative_to(folder)) for one in folder.rglob("*")}


def test_files_bits_and_links_come_out_as_they_went_in(tracer: Tracer, reader: Reader, tmp_path: Path) -> None:
    content = bytes(range(256))
    files = [
        stored(tracer, "a b/größe.bin", content),
        stored(tracer, "run.sh", b"#!/bin/sh\n", executable=True),
        stored(tracer, "empty.py", b""),
        link("a b/up.sh", "../run.sh"),
        link("folder", "a b"),
        link("whole", "."),
    ]
    laid = lay_out(reader, recorded(*files, root=tmp_path / "my project"), tmp_path / "stage")
    assert laid.root == (tmp_path / "stage" / "my project").resolve()
    assert stat.S_IMODE((tmp_path / "stage").stat().st_mode) == 0o700
    assert (laid.root / "a b/größe.bin").read_bytes() == content
    assert (laid.root / "folder/größe.bin").read_bytes() == content
    assert os.readlink(laid.root / "a b/up.sh") == "../run.sh"
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in laid.root.iterdir() if one.is_file()}
    assert modes == {"run.sh": 0o700, "empty.py": 0o600}
    assert (laid.written, laid.copied, laid.missing) == (6, (), ())


ATTACKS = [
    ("../out.py", None),
    ("a/../../out.py", None),
    ("/etc/out.py", None),
    ("", None),
    (".", None),
    ("a//b", None),
    ("a/./b", None),
    ("a\0b", None),
    ("link", "/etc"),
    ("link", ".."),
    ("a/link", "../../etc"),
    ("link", "a/../../etc"),
    ("a/link", "b/../x"),
    ("link", ""),
    ("link", "a//b"),
    ("link", "a\0"),
]


@pytest.mark.parametrize(("path", "target"), ATTACKS)
def test_a_path_or_link_out_of_the_tree_is_refused_and_nothing_is_written(
    tracer: Tracer, reader: Reader, tmp_path: Path, path: str, target: str | None
) -> None:
    bad = stored(tracer, path, b"x") if target is None else link(path, target)
    with pytest.raises(CorruptRecord, match="nothing was laid out"):
        lay_out(reader, recorded(stored(tracer, "good.py", b""), bad), tmp_path / "stage")
    assert not (tmp_path / "stage").exists()


@pytest.mark.parametrize("folder", ["..", "/", "a/b", "", "a/../.."])
def test_the_modules_folder_is_a_folder_of_the_tree(folder: str) -> None:
    with pytest.raises(CorruptRecord):
        check(StoredCode(files=[], modules_folder=folder))


def test_nothing_is_written_below_a_link_or_a_file_or_twice(tracer: Tracer) -> None:
    file = stored(tracer, "a", b"x")
    for tree in ([link("a", "b"), link("a/c", "..")], [file, stored(tracer, "a/c/d", b"")], [file, file]):
        with pytest.raises(CorruptRecord):
            check(StoredCode(files=tree))


PART = st.sampled_from(["a", "b", "c"])
PATH = st.lists(PART, min_size=1, max_size=3).map("/".join)
TARGET = st.lists(st.sampled_from(["a", "b", "..", "..", "."]), min_size=1, max_size=4).map("/".join)


@given(files=st.lists(PATH, max_size=3), links=st.lists(st.tuples(PATH, TARGET), max_size=5))
def test_no_tree_that_is_accepted_has_a_link_that_leads_out(
    tmp_path_factory: pytest.TempPathFactory, files: list[str], links: list[tuple[str, str]]
) -> None:
    tree = [
        *(StoredFile(path=path, size_bytes=0, executable=False, digest="", restorable=True) for path in files),
        *(link(*one) for one in links),
    ]
    try:
        check(StoredCode(files=tree))
    except CorruptRecord:
        return
    root = tmp_path_factory.mktemp("tree").resolve() / "root"
    root.mkdir()
    for path in files:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    for path, target in links:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    for path, _ in links:
        leads = os.path.realpath(root / path)
        assert leads == str(root) or leads.startswith(f"{root}/")


def test_a_folder_that_holds_something_is_not_laid_out_in(tracer: Tracer, reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(ValueError, match="holds something"):
        lay_out(reader, recorded(), tmp_path / "full")
    assert names(tmp_path / "full") == {"mine.txt"}


def test_what_the_store_does_not_hold_is_taken_from_its_place_if_it_is_the_same_and_else_named(
    tracer: Tracer, reader: Reader, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    large, other, token = b"L" * 1_200_000, b"M" * 1_200_000, b"TOKEN = 'ghp_" + b"a1B2c3D4e5" * 3 + b"F6G7h8'\n"
    by_digest = {"size_bytes": 1_200_000, "executable": False, "restorable": False}
    files = [
        StoredFile(path="large.bin", digest=str(digest(Domain.BYTES, large)), **by_digest),  # type: ignore[arg-type]
        StoredFile(path="changed.bin", digest=str(digest(Domain.BYTES, large)), **by_digest),  # type: ignore[arg-type]
        stored(tracer, "keys.py", token),
        stored(tracer, "other_keys.py", token),
        stored(tracer, "put_back.py", token),
        StoredFile(
            path="lost.py", size_bytes=1, executable=True, digest=str(digest(Domain.BYTES, b"?")), restorable=True
        ),
        StoredFile(
            path="gone.py", size_bytes=1, executable=False, digest=str(digest(Domain.BYTES, b"!")), restorable=True
        ),
    ]
    assert not files[2].restorable
    (root / "large.bin").write_bytes(large)
    (root / "changed.bin").write_bytes(other)
    (root / "keys.py").write_bytes(token)
    (root / "other_keys.py").write_bytes(token.replace(b"a1B2", b"z9Y8"))
    (root / "put_back.py").write_bytes(reader.artifact(files[2].digest))
    (root / "lost.py").write_bytes(b"?")
    omitted = [Omission(".env", "may hold secrets"), Omission("data/", "over 50 MB of content in all", 3)]
    laid = lay_out(reader, recorded(*files, root=root, omissions=omitted), tmp_path / "stage")
    assert laid.copied == ("large.bin", "keys.py", "lost.py")
    assert {one.path for one in laid.missing} == {"changed.bin", "other_keys.py", "put_back.py", "gone.py"}
    assert "1 MB" in str(laid.missing[0])
    assert "secret" in str(laid.missing[1])
    assert names(laid.root) == {"large.bin", "keys.py", "lost.py"}
    assert (laid.root / "keys.py").read_bytes() == token
    assert [str(one) for one in laid.omitted] == [
        ".env: may hold secrets",
        "data/: over 50 MB of content in all (3 files)",
    ]
    assert msgspec.json.encode(laid.to_dict())


def test_a_process_whose_content_was_not_stored_says_what_to_do_instead(clean_tracing: None, tmp_path: Path) -> None:
    import clew

    tracer = clew.init("tests", store=tmp_path / "store", capture=False)
    assert tracer is not None
    with clew.open(tmp_path / "store") as reader:
        clew.flush()
        with pytest.raises(NotReplayable, match=r"capture=False.*clew\.replay"):
            recorded_process(reader, tracer.process_id)
