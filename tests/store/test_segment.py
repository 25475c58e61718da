"""Segments: what was written whole is read, in both forms, whatever happened to the rest of the file."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clew.store import decoding, record, segment
from clew.store.digest import Digest, Domain, digest, text_digest
from clew.store.errors import CorruptSegment, StoreFormatError
from clew.store.record import RecordType
from clew.store.segment import Frame, SegmentFile
from tests.store.golden import make as golden

GOLDEN = Path(__file__).parent / "golden" / "format_1"


def payloads(stem: Path, damaged: list[int] | None = None) -> list[bytes]:
    file = SegmentFile(stem)
    try:
        return [frame.payload for frame in file.frames(0, damaged)]
    finally:
        file.close()


def written(path: Path, contents: list[bytes]) -> list[int]:
    """Writes an open segment of these payloads; the offsets of its records, and where it ends."""
    frames = [segment.frame_bytes(RecordType.BLOB, content) for content in contents]
    path.write_bytes(segment.MAGIC + b"".join(frames))
    return list(itertools.accumulate(map(len, frames), initial=len(segment.MAGIC)))


@pytest.fixture(params=["open", "sealed"])
def golden_stem(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    suffix = segment.OPEN_SUFFIX if request.param == "open" else segment.SEALED_SUFFIX
    shutil.copy(GOLDEN.with_name(GOLDEN.name + suffix), tmp_path / f"golden{suffix}")
    return tmp_path / "golden"


def test_the_golden_segment_is_readable(golden_stem: Path) -> None:
    file = SegmentFile(golden_stem)
    frames = list(file.frames())
    entries = [record.decode(frame.type, frame.payload) for frame in frames if frame.type != RecordType.BLOB]
    assert [entry for entry in entries if entry is not None] == golden.RECORDS
    blobs = {
        Digest(frame.payload[1:33]): (frame.payload[0], frame.payload[33:])
        for frame in frames
        if frame.type == RecordType.BLOB
    }
    assert blobs[text_digest(golden.TEXT)] == (Domain.TEXT, golden.TEXT.encode())
    assert all(digest(Domain(domain), data) == name for name, (domain, data) in blobs.items())
    assert [decoding.decode(data) for domain, data in blobs.values() if domain == Domain.VALUE] == [golden.VALUE]
    file.close()


def test_reading_ends_with_the_last_record_that_begins_before_an_offset(tmp_path: Path) -> None:
    contents = [b"one", b"two", b"three"]
    offsets = written(tmp_path / f"s{segment.OPEN_SUFFIX}", contents)
    file = SegmentFile(tmp_path / "s")
    for number, offset in enumerate(offsets):
        for before, count in ((offset, number), (offset + 1, min(number + 1, len(contents)))):
            assert [frame.payload for frame in file.frames(before=before)] == contents[:count]
    file.close()


def test_a_record_type_that_nobody_knows_yet_is_kept_and_skipped(golden_stem: Path) -> None:
    file = SegmentFile(golden_stem)
    unknown = next(frame for frame in file.frames() if frame.type == 200)
    assert (unknown.version, unknown.payload) == (9, b"a record of a later version")
    assert record.decode(unknown.type, unknown.payload) is None
    file.close()


def test_the_golden_segment_is_what_its_command_writes_today(tmp_path: Path) -> None:
    """Record by record: fields that were appended since are not in the old bytes."""
    golden.make(tmp_path / "now")

    def records(stem: Path) -> list[object]:
        file = SegmentFile(stem)
        found = [(frame.type, record.decode(frame.type, frame.payload) or frame.payload) for frame in file.frames()]
        file.close()
        return found

    assert records(tmp_path / "now") == records(GOLDEN)


def test_sealing_keeps_every_offset(tmp_path: Path) -> None:
    stem = tmp_path / "s"
    offsets = written(tmp_path / "s.log", [os.urandom(200_000), b"", b"x" * 700_000, b"last"])
    before = SegmentFile(stem)
    old: list[Frame | None] = [before.frame(offset) for offset in offsets[:-1]]
    assert segment.seal(stem) == tmp_path / "s.zlog"
    assert os.listdir(tmp_path) == ["s.zlog"]
    after = SegmentFile(stem)
    assert after.sealed
    assert after.size == before.size == offsets[-1]
    assert [after.frame(offset) for offset in offsets[:-1]] == old
    assert list(after.frames(offsets[2])) == list(before.frames(offsets[2])) == old[2:]
    assert after.read(offsets[-1] - 4, 100) == b"last"
    assert segment.seal(stem) is None
    before.close()
    after.close()


def test_a_reader_that_opened_before_the_seal_reads_on(tmp_path: Path) -> None:
    offsets = written(tmp_path / "s.log", [b"%d" % number for number in range(100)])
    reader = SegmentFile(tmp_path / "s")
    frames = reader.frames()
    first: list[Frame] = [next(frames) for _ in range(10)]
    segment.seal(tmp_path / "s")
    rest: Iterator[Frame] = frames
    assert [frame.offset for frame in [*first, *rest]] == offsets[:-1]
    reader.close()


def test_a_crash_between_seal_and_removal_leaves_both_and_reads_once(tmp_path: Path) -> None:
    written(tmp_path / "s.log", [b"a", b"b"])
    shutil.copy(tmp_path / "s.log", tmp_path / "copy")
    segment.seal(tmp_path / "s")
    (tmp_path / "copy").rename(tmp_path / "s.log")
    assert segment.stems(tmp_path) == [tmp_path / "s"]
    assert payloads(tmp_path / "s") == [b"a", b"b"]
    segment.seal(tmp_path / "s")
    assert os.listdir(tmp_path) == ["s.zlog"]


def test_segments_are_listed_oldest_first_and_none_where_there_is_no_folder(tmp_path: Path) -> None:
    for name in ("b.zlog", "a.log", "c.log", "c.zlog", "d.1.tmp"):
        (tmp_path / name).touch()
    assert [stem.name for stem in segment.stems(tmp_path)] == ["a", "b", "c"]
    assert segment.stems(tmp_path / "gone") == []


@pytest.mark.parametrize("sealed", [False, True])
def test_a_torn_tail_is_cut_at_every_byte_of_the_last_record(tmp_path: Path, sealed: bool) -> None:
    path = tmp_path / "s.log"
    offsets = written(path, [b"first", b"second", b"the last record"])
    whole = path.read_bytes()
    for end in range(offsets[2], offsets[3]):
        path.write_bytes(whole[:end])
        if sealed:
            segment.seal(tmp_path / "s")
        damaged: list[int] = []
        assert payloads(tmp_path / "s", damaged) == [b"first", b"second"]
        assert damaged == []  # a torn tail is how every crash looks, not damage
        (tmp_path / "s.zlog").unlink(missing_ok=True)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_damaged_record_inside_is_skipped_and_reported_whichever_byte_it_is(tmp_path: Path, sealed: bool) -> None:
    path = tmp_path / "s.log"
    offsets = written(path, [b"first", b"second", b"third", b"fourth"])
    whole = path.read_bytes()
    for at in range(offsets[1], offsets[2]):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        if sealed:
            segment.seal(tmp_path / "s")
        damaged: list[int] = []
        assert payloads(tmp_path / "s", damaged) == [b"first", b"third", b"fourth"], at
        assert damaged == [offsets[1]]
        (tmp_path / "s.zlog").unlink(missing_ok=True)


def test_damage_of_two_neighbours_and_of_the_middle_of_a_file_loses_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "s.log"
    offsets = written(path, [b"%d" % number * 3000 for number in range(1000)])
    data = bytearray(path.read_bytes())
    data[offsets[10] : offsets[12]] = bytes(offsets[12] - offsets[10])
    data[offsets[500] + 3] ^= 0x7F  # a length far beyond the end
    path.write_bytes(data)
    damaged: list[int] = []
    found = payloads(tmp_path / "s", damaged)
    assert found == [b"%d" % number * 3000 for number in range(1000) if number not in (10, 11, 500)]
    assert damaged == [offsets[10], offsets[500]]


def test_a_damaged_block_of_a_sealed_segment_costs_only_its_own_records(tmp_path: Path) -> None:
    offsets = written(tmp_path / "s.log", [os.urandom(1000) for _ in range(2000)])
    segment.seal(tmp_path / "s")
    path = tmp_path / "s.zlog"
    data = bytearray(path.read_bytes())
    data[data.find(b"\x28\xb5\x2f\xfd", 1000)] ^= 0xFF  # the magic of the second block
    path.write_bytes(data)
    damaged: list[int] = []
    found = payloads(tmp_path / "s", damaged)
    assert 2000 - 300 < len(found) < 2000
    assert len(damaged) == 1
    file = SegmentFile(tmp_path / "s")
    with pytest.raises(CorruptSegment, match=r"block .* is damaged"):
        file.frame(next(offset for offset in offsets if offset > damaged[0]))
    first = file.frame(offsets[0])
    assert first is not None
    assert first.payload == found[0]
    file.close()


@pytest.mark.parametrize("cut", [0, 1, 8, 31, 32, 40])
def test_a_sealed_segment_that_was_cut_short_is_a_named_error(tmp_path: Path, cut: int) -> None:
    written(tmp_path / "s.log", [b"x" * 100])
    segment.seal(tmp_path / "s")
    path = tmp_path / "s.zlog"
    path.write_bytes(path.read_bytes()[: -cut - 1] if cut else b"")
    with pytest.raises(StoreFormatError, match=r"s\.zlog is not a sealed segment"):
        SegmentFile(tmp_path / "s")


def test_a_file_that_is_no_segment_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "s.log").write_bytes(b"something else entirely")
    with pytest.raises(StoreFormatError, match="is not a log segment"):
        payloads(tmp_path / "s")
    (tmp_path / "empty.log").touch()
    assert payloads(tmp_path / "empty") == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=400), contents=st.lists(st.binary(max_size=40), max_size=4))
def test_garbage_behind_whole_records_is_never_read_as_one(
    tmp_path: Path, garbage: bytes, contents: list[bytes]
) -> None:
    written(tmp_path / "s.log", contents)
    with (tmp_path / "s.log").open("ab") as file:
        file.write(garbage)
    assert payloads(tmp_path / "s") == contents


@pytest.mark.parametrize("content", [b"", b"clew", bytes(5), bytes(100_000), segment.MAGIC, segment.MAGIC + bytes(9)])
def test_a_file_that_was_only_begun_holds_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.log").write_bytes(content)
    file = SegmentFile(tmp_path / "s")
    assert list(file.frames()) == []
    assert file.ends_at(len(segment.MAGIC))
    file.close()


def test_records_after_a_gap_are_found(tmp_path: Path) -> None:
    first, second = (segment.frame_bytes(RecordType.BLOB, bytes((number,)) * 100) for number in (1, 2))
    head = segment.MAGIC + first
    (tmp_path / "s.log").write_bytes(head + bytes(5000))
    file = SegmentFile(tmp_path / "s")
    assert [frame.offset for frame in file.frames()] == [8]
    assert file.ends_at(len(head))
    (tmp_path / "s.log").write_bytes(head + bytes(5000) + second)
    assert not file.ends_at(len(head))
    damaged: list[int] = []
    assert [frame.offset for frame in file.frames(0, damaged)] == [8, len(head) + 5000]
    assert damaged == [len(head)]
    file.close()


def test_a_damaged_length_makes_nobody_read_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = segment.frame_bytes(RecordType.BLOB, b"x" * 100)
    bad = b"\xff\xff\xff\xff" + frame[4:]
    (tmp_path / "s.log").write_bytes(segment.MAGIC + bad + frame + bytes(5000))
    file = SegmentFile(tmp_path / "s")
    pread, asked = os.pread, list[int]()

    def noted(fd: int, length: int, offset: int) -> bytes:
        asked.append(length)
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", noted)
    assert [one.offset for one in file.frames()] == [8 + len(bad)]
    assert max(asked) <= 1 << 20
    file.close()
