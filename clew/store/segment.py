"""One segment of the log: a file of framed records, open (`.log`) or sealed (`.zlog`).

An open segment is a magic, then frames: length u32, crc32 u32, type u8, version u8, payload (little endian; the length
is the payload's; the crc covers type, version and payload). Zeros after the last frame are room for the next ones
(tail.py), and no crc of a frame is zero there. A sealed segment holds the very same bytes in zstd blocks
with a seek table at its end, so that the offset of a record never changes and the catalog need not know which form it
reads.
"""

from __future__ import annotations

import bisect
import os
import re
import struct
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import msgspec

from clew.store.errors import CorruptSegment, StoreError, StoreFormatError

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

MAGIC = b"clewlog1"
SEALED_MAGIC = b"clewzlg1"
OPEN_SUFFIX, SEALED_SUFFIX = ".log", ".zlog"
FRAME = struct.Struct("<IIBB")
_TABLE = struct.Struct("<QQ")  # logical offset, file offset of a block
_FOOTER = struct.Struct("<QQQ8s")  # table offset, blocks, logical size, magic
_FRAME_HERE = re.compile(rb"(?s)(?=.{8}[\x00-\x20]\x01)")  # what may be a frame: any length and crc, type, version
HEAD_CRC = [crc32(bytes((kind, 1))) for kind in range(256)]  # of type and version, by type
_BLOCK_BYTES = 1 << 18
_PIECE_BYTES = 1 << 20  # that are read at once, if no record is longer
_BLANK = bytes(_PIECE_BYTES)
_LEVEL = 6


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A record as it stands in a segment. Whoever reads a log holds thousands; the garbage collector sees none."""

    offset: int
    type: int
    version: int
    payload: bytes
    end: int


def frame_bytes(kind: int, payload: bytes, version: int = 1) -> bytes:
    """A record framed for the log."""
    return FRAME.pack(len(payload), _crc(payload, kind, version), kind, version) + payload


def _crc(payload: bytes, kind: int, version: int) -> int:
    return crc32(payload, HEAD_CRC[kind] if version == 1 else crc32(bytes((kind, version))))


class SegmentFile:
    """Reads one segment by logical offset, whichever form it has. Not thread-safe; close when done."""

    def __init__(self, stem: Path) -> None:
        """`stem` is the segment's path without suffix. FileNotFoundError if neither form exists, StoreError if it
        cannot be opened."""
        self.stem = stem
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._starts: list[int] = []
        try:
            self._fd = _opened(stem.with_name(stem.name + OPEN_SUFFIX))
            self.sealed = False
        except FileNotFoundError:
            self._fd = _opened(stem.with_name(stem.name + SEALED_SUFFIX))
            self.sealed = True
            self._read_table()

    def _read_table(self) -> None:
        end = os.fstat(self._fd).st_size
        footer = os.pread(self._fd, _FOOTER.size, max(0, end - _FOOTER.size))
        table, blocks, self._size, magic = _FOOTER.unpack(footer.ljust(_FOOTER.size, b"\0"))
        if magic != SEALED_MAGIC or table + blocks * _TABLE.size + _FOOTER.size != end:
            self.close()
            raise StoreFormatError(f"{self.stem}{SEALED_SUFFIX} is not a sealed segment, or it was cut short")
        raw = os.pread(self._fd, blocks * _TABLE.size, table)
        pairs = list(_TABLE.iter_unpack(raw))
        self._starts = [start for start, _ in pairs]
        self._ends = [offset for _, offset in pairs[1:]] + [table]
        self._offsets = [offset for _, offset in pairs]

    @property
    def size(self) -> int:
        """Logical bytes; in an open segment with the room for what comes."""
        return self._size if self.sealed else os.fstat(self._fd).st_size

    def ends_at(self, offset: int) -> bool:
        """Whether nothing was written at `offset` and after it, as yet."""
        return _BLANK.startswith(self.read(offset, _PIECE_BYTES))

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at a logical offset."""
        if not self.sealed:
            return os.pread(self._fd, length, offset)
        parts = []
        index = bisect.bisect_right(self._starts, offset) - 1
        while length > 0 and 0 <= index < len(self._starts):
            block = self._block(index)
            part = block[offset - self._starts[index] : offset - self._starts[index] + length]
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
            index += 1
        return b"".join(parts)

    def _block(self, index: int) -> bytes:
        block = self._blocks.get(index)
        if block is None:
            raw = os.pread(self._fd, self._ends[index] - self._offsets[index], self._offsets[index])
            try:
                block = self._blocks[index] = zstd.decompress(raw)
            except zstd.ZstdError as error:
                raise CorruptSegment(f"{self.stem}{SEALED_SUFFIX}: block {index} is damaged ({error})") from error
            if len(self._blocks) > 16:
                self._blocks.popitem(last=False)
        return block

    def frame(self, offset: int) -> Frame | None:
        """The record at `offset`; None where no whole, undamaged record stands."""
        head = self.read(offset, FRAME.size)
        if len(head) < FRAME.size:
            return None
        length, crc, kind, version = FRAME.unpack(head)
        if length > self.size - offset:
            return None
        payload = self.read(offset + FRAME.size, length)
        if len(payload) < length or _crc(payload, kind, version) != crc:
            return None
        return Frame(offset, kind, version, payload, offset + FRAME.size + length)

    def frames(
        self, offset: int = 0, damaged: list[int] | None = None, *, before: int = sys.maxsize
    ) -> Iterator[Frame]:
        """All whole records from `offset`, in order, that begin `before` an offset. Stops at a torn tail; what is
        damaged inside is skipped up to the next whole record, and its offset added to `damaged`."""
        if offset < len(MAGIC):
            if not MAGIC.startswith(self.read(0, len(MAGIC)).rstrip(b"\0")):  # cut short: what follows may be whole
                raise StoreFormatError(f"{self.stem} is not a log segment")
            offset = len(MAGIC)
        unpack, head, size = FRAME.unpack_from, FRAME.size, _PIECE_BYTES
        while offset < before and len(piece := self._intact(offset, size)) >= head:
            start, at, last = offset, 0, min(len(piece) - head, before - offset - 1)
            while at <= last:
                length, crc, kind, version = unpack(piece, at)
                end = at + head + length
                payload = piece[at + head : end]
                checked = crc32(payload, HEAD_CRC[kind]) if version == 1 else _crc(payload, kind, version)
                if checked != crc or len(payload) != length:
                    break
                yield Frame(start + at, kind, version, payload, start + end)
                at = end
            offset, size = start + at, _PIECE_BYTES
            if at:  # the next record ends in the next piece, if it is whole
                continue
            if len(piece) < end <= self.size - offset:
                size = end
                continue
            if _BLANK.startswith(piece) and offset + len(piece) == self.size:
                return  # room for what comes
            after = self._next_frame(offset + 1)
            if after is None:
                return  # torn tail, or a record being written this moment
            if not self.sealed and self.frame(offset) is not None:
                continue  # one that was being written when it was read
            if damaged is not None:
                damaged.append(offset)
            offset = after

    def _intact(self, offset: int, length: int) -> bytes:
        """As `read`, with zeros where a sealed block is damaged: no record has zeros for its crc."""
        try:
            return self.read(offset, length)
        except CorruptSegment:
            parts = []
            while length > 0 and offset < self.size:
                index = bisect.bisect_right(self._starts, offset) - 1
                end = self._starts[index + 1] if index + 1 < len(self._starts) else self.size
                size = min(length, end - offset)
                try:
                    parts.append(self.read(offset, size))
                except CorruptSegment:
                    parts.append(bytes(size))
                offset, length = offset + size, length - size
            return b"".join(parts)

    def _next_frame(self, offset: int) -> int | None:
        """Where the next whole record begins, at `offset` or after it."""
        while offset < self.size:
            piece = self._intact(offset, 1 << 20)
            for match in _FRAME_HERE.finditer(piece):
                at = match.start()
                length, crc, _, _ = FRAME.unpack_from(piece, at)
                end = offset + at + FRAME.size + length
                if end > self.size:
                    continue
                body = self._intact(offset + at + 8, 2 + length)
                if crc32(body) == crc and crc:
                    return offset + at
            offset += max(1, len(piece) - FRAME.size + 1)
        return None

    def close(self) -> None:
        """Give back the file. Closing twice is safe."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def records(stem: Path, *types: int) -> Iterator[Frame]:
    """All whole records of some types in a segment; none where it was collected meanwhile."""
    try:
        file = SegmentFile(stem)
    except FileNotFoundError:
        return
    try:
        for frame in file.frames():
            if frame.type in types:
                yield frame
    finally:
        file.close()


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise
    except OSError as error:
        advice = "make it readable to this user, or move it out of the store to do without what it holds"
        raise StoreError(f"the log file {path} cannot be read: {error.strerror}; {advice}") from error


def seal(stem: Path) -> Path | None:
    """Rewrite an open segment, whose writer is gone or is the caller, as a sealed one. None if it is not open.

    The sealed file is durable before the open one is removed; a crash between leaves both, with the same records.
    """
    source = stem.with_name(stem.name + OPEN_SUFFIX)
    target = stem.with_name(stem.name + SEALED_SUFFIX)
    temporary = stem.with_name(f"{stem.name}.{os.getpid()}.tmp")
    try:
        data = source.read_bytes()
    except FileNotFoundError:
        return None
    table = []
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        for start in range(0, len(data), _BLOCK_BYTES):
            table.append(_TABLE.pack(start, file.tell()))
            file.write(zstd.compress(data[start : start + _BLOCK_BYTES], _LEVEL))
        end = file.tell()
        file.write(b"".join(table))
        file.write(_FOOTER.pack(end, len(table), len(data), SEALED_MAGIC))
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, target)
    source.unlink()
    return target


def stems(folder: Path) -> list[Path]:
    """Every segment's path without suffix, oldest first (names begin with their time)."""
    found = set()
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    for name in names:
        for suffix in (OPEN_SUFFIX, SEALED_SUFFIX):
            if name.endswith(suffix):
                found.add(name.removesuffix(suffix))
    return [folder / name for name in sorted(found)]
