"""The log: what `append` returned from is in the file, whatever happens to the process and the disk afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from clew.store import held, record, segment, writer
from clew.store.errors import StoreUnwritable
from clew.store.log import Log, framed
from clew.store.record import Lost, RecordType, Segment
from clew.store.segment import SegmentFile


def entry(number: int) -> Lost:
    return Lost(number, {"x": (number, "y" * 50)})


def numbers(folder: Path) -> dict[str, list[int]]:
    """What stands in each segment of a folder, after its header."""
    found = {}
    for stem in segment.stems(folder):
        file = SegmentFile(stem)
        frames = list(file.frames())
        assert frames[0].type == RecordType.SEGMENT
        entries = [record.decode(frame.type, frame.payload) for frame in frames[1:]]
        found[stem.name] = [one.when_ns for one in entries if isinstance(one, Lost)]
        file.close()
    return found


def program(body: str, *arguments: object) -> str:
    """Run a program in a process of its own; what it printed."""
    head = """
        import os, sys
        from pathlib import Path
        from clew.store.errors import StoreUnwritable
        from clew.store.log import Log
        from clew.store.record import Lost
        def entry(number): return Lost(number, {"x": (number, "y" * 50)})
        log = Log(Path(sys.argv[1]), process_id=b"p" * 16)
    """
    code = textwrap.dedent(head) + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path, process_id=b"p" * 16, version="0", project="tests")


def test_a_record_is_in_the_file_when_append_returns(tmp_path: Path, log: Log) -> None:
    for number in range(5):
        offset = log.append_record(entry(number))
        assert log.stem is not None
        file = SegmentFile(log.stem)
        frame = file.frame(offset)
        assert frame is not None
        assert record.decode(frame.type, frame.payload) == entry(number)
        assert frame.end == file.size == log.size
        file.close()
    log.close()


def test_the_first_record_makes_the_file_and_its_header_names_the_writer(tmp_path: Path, log: Log) -> None:
    assert os.listdir(tmp_path) == []
    log.append_record(entry(1))
    (stem,) = segment.stems(tmp_path)
    file = SegmentFile(stem)
    header = record.decode(RecordType.SEGMENT, next(file.frames()).payload)
    file.close()
    assert isinstance(header, Segment)
    assert (header.pid, header.process_id, header.project) == (os.getpid(), b"p" * 16, "tests")
    assert writer.state(header) == "alive"
    assert stem.with_name(stem.name + ".log").stat().st_mode & 0o777 == 0o600
    log.close()


def test_closing_seals_and_appending_again_begins_a_new_segment(tmp_path: Path, log: Log) -> None:
    log.append_record(entry(1))
    log.close()
    log.close()
    log.append_record(entry(2))
    log.close(seal=False)
    assert list(numbers(tmp_path).values()) == [[1], [2]]
    assert sorted(name.partition(".")[2] for name in os.listdir(tmp_path)) == ["log", "zlog"]
    assert len(log.closed_stems) == 2


def test_a_full_segment_is_closed_and_a_new_one_begun(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clew.store.log.ROLL_BYTES", 1000)
    for number in range(40):
        log.append_record(entry(number))
    log.close()
    found = numbers(tmp_path)
    assert [number for each in found.values() for number in each] == list(range(40))
    assert len(found) > 3


def test_threads_write_whole_records_and_lose_none(tmp_path: Path, log: Log) -> None:
    start = threading.Barrier(8)

    def write(first: int) -> None:
        start.wait()
        for number in range(first, first + 200):
            log.append([framed(entry(number)), framed(entry(number + 10_000))])

    threads = [threading.Thread(target=write, args=(first * 1000,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    (found,) = numbers(tmp_path).values()
    wanted = [number for first in range(8) for number in range(first * 1000, first * 1000 + 200)]
    assert sorted(found) == sorted([*wanted, *(number + 10_000 for number in wanted)])
    pairs = list(zip(found[::2], found[1::2], strict=True))  # one append is never torn apart by another
    assert all(second == first + 10_000 for first, second in pairs)


def test_short_records_are_written_in_hand_and_long_ones_while_others_run(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def write(fd: int, data: bytes, length: int) -> int:
        written.append(length)
        return os.write(fd, data)

    monkeypatch.setattr("clew.store.log.SLOW_SECONDS", 60.0)  # however busy this machine is
    monkeypatch.setattr(held, "_write", write)
    frames = [framed(entry(1)), segment.frame_bytes(RecordType.BLOB, b"x" * held.SHORT_BYTES), framed(entry(2))]
    for frame in frames:
        log.append([frame])
    assert written == [len(frames[0]), len(frames[2])]
    assert list(numbers(tmp_path).values()) == [[1, 2]]


def test_records_are_the_same_without_a_c_library(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append_record(entry(1))
    log.close()
    monkeypatch.setattr(held, "_write", None)
    log.append_record(entry(2))
    assert list(numbers(tmp_path).values()) == [[1], [2]]


@pytest.mark.parametrize(
    ("kind", "quick"), [("ext4", True), ("tmpfs", True), ("nfs4", False), ("fuse.sshfs", False), ("9p", False)]
)
def test_only_disks_of_this_machine_are_written_in_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, quick: bool
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
    monkeypatch.setattr(held, "_write", os.write)
    monkeypatch.setattr(held, "_MOUNTS", mounts)
    assert held.writer(folder) is (os.write if quick else None)
    assert held.writer(tmp_path) is os.write
    monkeypatch.setattr(held, "_MOUNTS", tmp_path / "no such file")
    assert held.writer(folder) is None


def test_a_slow_disk_holds_up_no_other_thread_for_a_while(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_up: list[int] = []

    def slow(fd: int, data: bytes, length: int) -> int:
        held_up.append(length)
        time.sleep(0.01)
        return os.write(fd, data)

    monkeypatch.setattr("clew.store.log.SLOW_SECONDS", 0.005)
    monkeypatch.setattr(held, "_write", slow)
    for number in range(3):
        log.append_record(entry(number))
    log._slow_until = 0.0  # a while later
    log.append_record(entry(3))
    assert len(held_up) == 2
    assert list(numbers(tmp_path).values()) == [[0, 1, 2, 3]]


def test_a_write_that_a_signal_interrupted_is_made_again(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "_write", lambda fd, data, length: -1)
    log.append_record(entry(1))
    assert list(numbers(tmp_path).values()) == [[1]]


def test_a_fork_opens_a_segment_of_its_own_and_both_go_on(tmp_path: Path) -> None:
    program(
        """
        log.append_record(entry(1))
        child = os.fork()
        if child == 0:
            assert log.process_id != b"p" * 16
            log.append_record(entry(10))
            log.append_record(entry(11))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        log.append_record(entry(2))
        log.close()
        """,
        tmp_path,
    )
    assert sorted(numbers(tmp_path).values()) == [[1, 2], [10, 11]]


def test_a_killed_writer_leaves_what_it_appended_and_reads_as_dead(tmp_path: Path) -> None:
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys; from pathlib import Path; from clew.store.log import Log; from clew.store.record import Lost\n"
            "log = Log(Path(sys.argv[1]), process_id=b'p' * 16)\n"
            "for number in range(3): log.append_record(Lost(number, {}))\n"
            "os.kill(os.getpid(), 9)",
            str(tmp_path),
        ],
        check=False,
    )
    assert process.returncode == -9
    assert list(numbers(tmp_path).values()) == [[0, 1, 2]]
    (stem,) = segment.stems(tmp_path)
    file = SegmentFile(stem)
    header = record.decode(RecordType.SEGMENT, next(file.frames()).payload)
    assert isinstance(header, Segment)
    assert writer.state(header) == "dead"
    file.close()


@pytest.mark.parametrize("spare", [0, 1, 9, 10, 60, 100, 150])
def test_a_full_disk_leaves_whole_records_and_a_later_append_works(tmp_path: Path, spare: int) -> None:
    """RLIMIT_FSIZE cuts a write short or refuses it, as a full disk does."""
    said = program(
        """
        import resource
        log.append_record(entry(0))
        log.append_record(entry(1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.size + int(sys.argv[2]), resource.RLIM_INFINITY))
        refused = 0
        for number in range(2, 8):
            try:
                log.append_record(entry(number))
            except StoreUnwritable as error:
                assert "too large" in str(error) or "could be written" in str(error), error
                refused += 1
        print(refused)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        log.append_record(entry(100))
        print(os.path.getsize(str(log.stem) + ".log") == log.size)
        """,
        tmp_path,
        spare,
    )
    (found,) = numbers(tmp_path).values()
    refused, whole = said.split()
    assert whole == "True"
    assert found == [*range(8 - int(refused)), 100]
    assert int(refused) >= 4


def test_a_segment_that_cannot_even_begin_is_a_named_error_and_leaves_no_file(tmp_path: Path) -> None:
    program(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
        for _ in range(2):
            try:
                log.append_record(entry(1))
            except StoreUnwritable as error:
                assert "cannot begin a log segment" in str(error)
            else:
                raise SystemExit(1)
        assert os.listdir(sys.argv[1]) == []
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        log.append_record(entry(2))
        """,
        tmp_path,
    )
    assert list(numbers(tmp_path).values()) == [[2]]


def test_a_deleted_log_folder_is_noticed_made_again_and_told(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clew.store.log.LOOK_SECONDS", 0.0)
    folder = tmp_path / "log"
    folder.mkdir()
    log = Log(folder, process_id=b"p" * 16)
    told: list[Path] = []
    log.removed = told.append
    log.append_record(entry(1))
    gone = log.stem
    shutil.rmtree(folder)
    log.append_record(entry(2))
    assert told == [gone]
    assert list(numbers(folder).values()) == [[2]]
    shutil.rmtree(tmp_path)
    with pytest.raises(StoreUnwritable, match="cannot begin a log segment"):
        log.append_record(entry(3))
    tmp_path.mkdir()
    log.append_record(entry(4))
    assert list(numbers(folder).values()) == [[4]]
    log.close()


def test_a_reader_meets_every_record_once_while_the_log_is_written_and_sealed(tmp_path: Path, log: Log) -> None:
    log.append_record(entry(0))
    seen: list[int] = []
    read_some = threading.Event()

    def read() -> None:
        offset, stem = 0, segment.stems(tmp_path)[0]
        while not seen or seen[-1] != 999:
            file = SegmentFile(stem)
            for frame in file.frames(offset):
                offset = frame.end
                if isinstance(one := record.decode(frame.type, frame.payload), Lost):
                    seen.append(one.when_ns)
            file.close()
            read_some.set()

    reader = threading.Thread(target=read)
    reader.start()
    read_some.wait()
    for number in range(1, 1000):
        log.append_record(entry(number))
    log.close()
    reader.join()
    assert seen == list(range(1000))
