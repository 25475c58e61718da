"""The log: what `append` returned from is in the file, whatever happens to the process and the disk afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from clew.store import record, segment, writer
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


def command(body: str, *arguments: object) -> list[str]:
    """A program that has a log."""
    head = """
        import os, sys
        from pathlib import Path
        from clew.store.errors import StoreUnwritable
        from clew.store.log import Log
        from clew.store.record import Lost
        def entry(number): return Lost(number, {"x": (number, "y" * 50)})
        log = Log(Path(sys.argv[1]), process_id=b"p" * 16)
    """
    return [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(body), *map(str, arguments)]


def program(body: str, *arguments: object) -> str:
    """Run a program that has a log in a process of its own; what it printed."""
    done = subprocess.run(command(body, *arguments), capture_output=True, text=True, check=False, timeout=60)
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
        assert frame.end == log.size
        assert file.ends_at(frame.end)
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
        log.append_record(entry(2))
        assert os.waitpid(child, 0)[1] == 0
        log.append_record(entry(3))
        log.close()
        """,
        tmp_path,
    )
    assert sorted(numbers(tmp_path).values()) == [[1, 2, 3], [10, 11]]


@pytest.mark.parametrize("end", ["os._exit(0)", "log.close(); os._exit(0)"])
def test_a_fork_of_which_python_knows_nothing_opens_a_segment_of_its_own(tmp_path: Path, end: str) -> None:
    """Servers that load a program and fork in C do so."""
    said = program(
        f"""
        import ctypes, time
        log.append_record(entry(0))
        child = ctypes.PyDLL(None).fork()
        first = 100 if child == 0 else 1000
        for number in range(first, first + 300):
            log.append_record(entry(number))
            time.sleep(0.0005)
        if child == 0:
            {end}
        os.waitpid(child, 0)
        for number in range(1300, 1400):
            log.append_record(entry(number))
        print(log.close())
        """,
        tmp_path,
    )
    assert said == "None\n"
    assert sorted(numbers(tmp_path).values()) == [[0, *range(1000, 1400)], [*range(100, 400)]]


def test_a_program_that_closes_every_descriptor_goes_on_in_a_new_segment(tmp_path: Path) -> None:
    program(
        """
        from clew.store import log as logs
        logs.LOOK_SECONDS = 0.0
        log.append_record(entry(0))
        os.closerange(3, 200)
        for number in range(1, 300):
            log.append_record(entry(number))
        log.close()
        """,
        tmp_path,
    )
    assert list(numbers(tmp_path).values()) == [[0], [*range(1, 300)]]


def test_a_log_closed_in_the_middle_of_a_write_closes_after_it(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def interrupted(fd: int, data: bytes, offset: int) -> int:
        monkeypatch.setattr(os, "pwrite", write)
        log.close(seal=False)
        for number in (3, 4):
            log.append_record(entry(number))
        return write(fd, data, offset)

    log.append_record(entry(1))
    monkeypatch.setattr(os, "pwrite", interrupted)
    log.append_record(entry(2))
    assert log.stem is None
    log.append_record(entry(5))
    log.close()
    assert list(numbers(tmp_path).values()) == [[1, 2, 3, 4], [5]]


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


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("spare", [0, 1, 9, 10, 60, 100, 150])
def test_a_full_disk_leaves_whole_records_and_a_later_append_works(tmp_path: Path, spare: int, mapped: bool) -> None:
    """RLIMIT_FSIZE cuts a write short or refuses it, as a full disk does."""
    said = program(
        """
        import resource
        from clew.store import tail
        if sys.argv[3] == "False":
            tail._LASTING = frozenset()
        log.append_record(entry(0))
        log.append_record(entry(1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.size + int(sys.argv[2]), resource.RLIM_INFINITY))
        refused, number = 0, 2
        while refused < 4:  # what was given room before fits in any case
            try:
                log.append_record(entry(number))
                number += 1
            except StoreUnwritable as error:
                assert "too large" in str(error) or "could be written" in str(error), error
                refused += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        log.append_record(entry(number))
        size, stem = log.size, log.stem
        log.close(seal=False)
        print(number, os.path.getsize(f"{stem}.log") == size)
        """,
        tmp_path,
        spare,
        mapped,
    )
    (found,) = numbers(tmp_path).values()
    number, whole = said.split()
    assert whole == "True"
    assert found == list(range(int(number) + 1))
    assert mapped or int(number) <= 4


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


def test_a_reader_takes_no_record_for_damaged_that_another_process_is_writing(tmp_path: Path) -> None:
    writing = """
        import random
        print(log.append_record(entry(0)), flush=True)
        for number in range(1, 4000):
            log.append_record(Lost(number, {"x": (number, "y" * random.randrange(9000))}))
        os._exit(0)
    """
    with subprocess.Popen(command(writing, tmp_path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (stem,) = segment.stems(tmp_path)
        seen, offset, damaged = 0, 0, list[int]()
        while seen < 4000:
            file = SegmentFile(stem)
            for frame in file.frames(offset, damaged):
                offset = frame.end
                seen += isinstance(record.decode(frame.type, frame.payload), Lost)
            file.close()
            if process.poll() is not None and seen < 4000:
                file = SegmentFile(stem)
                assert not file.ends_at(offset)
                file.close()
    assert process.returncode == 0
    assert damaged == []
