"""The end of a segment being written: mapped or written, the file holds the same bytes, and no fault of it ends a program."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.store import tail
from clew.store.tail import Tail

FIRST = b"clewlog1 first"


@pytest.fixture(autouse=True)
def room_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_FEW_BYTES", 0)


@pytest.fixture(params=["mapped", "written"])
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tail:
    if request.param == "written":
        monkeypatch.setattr(tail, "_LASTING", frozenset[str]())
    elif not tail._is_lasting(tmp_path):
        pytest.skip("no file system here on which a tail is mapped")
    return Tail(tmp_path / "s.log", FIRST)


@pytest.fixture
def mapped(tmp_path: Path) -> Tail:
    if not tail._is_lasting(tmp_path):
        pytest.skip("no file system here on which a tail is mapped")
    return Tail(tmp_path / "s.log", FIRST)


def test_what_was_appended_is_in_the_file_at_once_and_only_zeros_after_it(made: Tail, tmp_path: Path) -> None:
    path, wanted = tmp_path / "s.log", FIRST
    for number in range(1, 400):
        data = bytes((number % 255 + 1,)) * (number * 7)
        assert made.append(data, time.monotonic()) == len(wanted)
        wanted += data
        found = path.read_bytes()
        assert found[: made.size] == wanted
        assert not found[made.size :].strip(b"\0")
        assert len(found) < made.size + 2 * tail._WINDOW_BYTES
    made.close()
    made.close()
    assert path.read_bytes() == wanted


def test_a_short_lived_process_leaves_no_room_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_FEW_BYTES", 5000)
    made = Tail(tmp_path / "s.log", FIRST)
    for _ in range(4):
        made.append(b"x" * 1000, time.monotonic())
        assert (tmp_path / "s.log").stat().st_size == made.size
    made.append(b"x" * 1000, time.monotonic())
    assert (made._window is not None) is tail._is_lasting(tmp_path)
    made.close()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300_000)), max_size=30))
def test_any_lengths_in_any_order(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]]) -> None:
    path = tmp_path_factory.mktemp("t") / "s.log"
    made, wanted = Tail(path, FIRST), FIRST
    for kind, length in steps:
        if kind == 0:
            assert made.look()
            made.sync()
        data = os.urandom(length if kind == 3 else length % 5000)
        assert made.append(data, time.monotonic()) == len(wanted)
        wanted += data
    assert path.read_bytes()[: made.size] == wanted
    made.close()
    assert path.read_bytes() == wanted


def test_a_file_that_cannot_take_its_first_bytes_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 3)
    with pytest.raises(OSError, match="only 3 of 14 bytes"):
        Tail(tmp_path / "s.log", FIRST)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("left", [0, 1, 4096, 100_000])
def test_where_there_is_no_space_for_a_window_there_may_be_for_a_record(
    mapped: Tail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    write = os.pwrite

    def scarce(fd: int, data: bytes, offset: int) -> int:
        if offset >= left:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[: left - offset], offset)

    monkeypatch.setattr(os, "pwrite", scarce)
    refused = 0
    wanted = FIRST
    for _ in range(50):
        data = os.urandom(1000)
        try:
            mapped.append(data, time.monotonic())
        except OSError:
            refused += 1
        else:
            wanted += data
    assert mapped.whole
    assert refused == max(0, 50 - max(0, left - len(FIRST)) // 1000)
    mapped.close()
    assert (tmp_path / "s.log").read_bytes() == wanted


def test_half_a_record_that_cannot_be_taken_back_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_LASTING", frozenset[str]())
    made = Tail(tmp_path / "s.log", FIRST)

    def refused(fd: int, *arguments: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwrite", refused)
    with pytest.raises(OSError, match="Input/output error"):
        made.append(b"x", time.monotonic())
    assert made.whole
    monkeypatch.setattr(os, "ftruncate", refused)
    with pytest.raises(OSError, match="Input/output error"):
        made.append(b"x", time.monotonic())
    assert not made.whole
    made.close()


def test_what_a_signal_handler_interrupts_stands(made: Tail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite

    def interrupted(fd: int, data: bytes, offset: int) -> int:
        write(fd, data, offset)
        raise KeyboardInterrupt

    long = b"a" * tail._WINDOW_BYTES
    monkeypatch.setattr(os, "pwrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.append(long, time.monotonic())
    monkeypatch.setattr(os, "pwrite", write)
    assert made.append(b"b", time.monotonic()) == len(FIRST) + len(long)  # a reader may have seen it
    made.close()
    assert (tmp_path / "s.log").read_bytes() == FIRST + long + b"b"


def test_a_descriptor_that_is_somebody_elses_by_now_is_left_alone(made: Tail, tmp_path: Path) -> None:
    """A program that becomes a daemon closes all that are open."""
    made.append(b"a" * 1000, time.monotonic())
    theirs = os.open(tmp_path / "theirs", os.O_RDWR | os.O_CREAT)
    os.write(theirs, b"precious" * 20_000)
    os.dup2(theirs, made._fd)
    assert not made.look()
    with pytest.raises(OSError, match="Bad file descriptor"):
        made.append(b"b" * tail._WINDOW_BYTES, time.monotonic())
    assert not made.whole
    fd = made._fd
    made.close()
    assert (tmp_path / "theirs").read_bytes() == b"precious" * 20_000
    assert os.fstat(fd).st_ino == os.fstat(theirs).st_ino
    os.close(theirs)
    os.close(fd)


def test_a_file_that_was_written_looks_like_it(mapped: Tail, tmp_path: Path) -> None:
    mapped.append(b"a", time.monotonic())
    os.utime(tmp_path / "s.log", (0, 0))
    mapped.append(b"b", time.monotonic())
    assert mapped.look()
    assert (tmp_path / "s.log").stat().st_mtime > time.time() - 60
    mapped.close()


def cut(path: Path) -> None:
    os.truncate(path, 5)


def refuse(path: Path) -> None:
    """As a file system does that an error has made read-only: its pages can no longer be written."""
    os.truncate(path, tail._WINDOW_BYTES // 2)
    os.truncate(path, tail._WINDOW_BYTES)


@pytest.mark.parametrize("harm", [cut, refuse])
def test_pages_that_went_away_are_let_go_of(mapped: Tail, tmp_path: Path, harm: Callable[[Path], None]) -> None:
    path = tmp_path / "s.log"
    mapped.append(b"a" * 1000, time.monotonic())
    harm(path)
    assert mapped.look()
    offset = mapped.append(b"b" * 1000, time.monotonic())
    assert path.read_bytes()[offset : offset + 1000] == b"b" * 1000
    path.unlink()
    assert not mapped.look()
    mapped.let_go()


def test_a_window_that_cannot_be_populated_is_none(mapped: Tail, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Tail) -> None:
        raise OSError(errno.EFAULT, "Bad address")

    mapped.append(b"a", time.monotonic())
    assert mapped._window is not None
    monkeypatch.setattr(Tail, "_populate", refused)
    assert mapped.look()
    assert mapped._window is None
    mapped._map_at = 0.0  # a while later
    mapped.append(b"b", time.monotonic())
    assert mapped._window is None
    mapped.close()


def test_a_slow_disk_holds_up_no_other_thread_for_a_while(mapped: Tail) -> None:
    mapped.append(b"a", time.monotonic())
    mapped.append(b"a", time.monotonic() - 1.0)
    assert mapped._window is None
    mapped.append(b"b", time.monotonic())
    assert mapped._window is None
    mapped._map_at = 0.0  # a while later
    mapped.append(b"c", time.monotonic())
    assert mapped._window is not None
    mapped.close()


@pytest.mark.parametrize(
    ("kind", "lasting"),
    [("ext4", True), ("tmpfs", True), ("btrfs", False), ("overlay", False), ("nfs4", False), ("fuse.sshfs", False)],
)
def test_only_pages_that_last_are_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, lasting: bool
) -> None:
    folder = tmp_path / "a b" / "log"
    folder.mkdir(parents=True)
    mounts = tmp_path / "mountinfo"
    point = str(tmp_path / "a b").replace(" ", "\\040")
    mounts.write_text(
        "27 1 254:0 / / rw,relatime shared:1 - xfs /dev/vda rw\n"
        f"28 27 254:1 / {point} rw,relatime - {kind} /dev/vdb rw\n"
        f"29 27 254:1 / {point}{'c'} rw - nfs4 /dev/vdb rw\n"
    )
    monkeypatch.setattr(tail, "_MOUNTS", mounts)
    assert tail._is_lasting(folder) is lasting
    assert tail._is_lasting(tmp_path)
    monkeypatch.setattr(tail, "_MOUNTS", tmp_path / "no such file")
    assert not tail._is_lasting(folder)
