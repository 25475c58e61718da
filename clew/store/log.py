"""The log: the append-only file through which one process writes everything immutable.

A record is in the file (tail.py) before `append` returns, so it survives the death of the process (not the loss
of power; `sync` is for that). A fork opens a new segment. The file is made by the first record.
"""

from __future__ import annotations

import mmap
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from zlib import crc32

import msgspec

from clew.store import record, segment, writer
from clew.store.errors import StoreUnwritable
from clew.store.record import RecordType, Segment
from clew.store.tail import Tail

ROLL_BYTES = 64 << 20  # a segment is closed and a new one begun past this
LOOK_SECONDS = 1.0
SEAL_AT_EXIT_BYTES = 16 << 20  # larger ones are sealed by whoever indexes them: exit stays under 0.2 s
_WIPE_ON_FORK = 18  # MADV_WIPEONFORK, of Linux 4.14


class Log:
    """The writing end, safe to use from many threads.

    `version` is clew's, `process_id` the id of the process run. Raises StoreUnwritable when a record could not be
    written whole; the file then ends with its last whole record, and a later append may succeed.
    """

    def __init__(self, folder: Path, *, process_id: bytes, version: str = "", project: str = "") -> None:
        self._folder = folder
        self._process_id = process_id
        self._version = version
        self._project = project
        self._lock = threading.RLock()
        self._writing = False
        self._interrupting: list[bytes] = []  # what a signal handler or a destructor said in the middle of a write
        self._closing: bool | None = None  # whether to seal it, where one of those closed it
        self._here = _mark()
        self._tail: Tail | None = None
        self.stem: Path | None = None  # the segment being written
        self.closed_stems: list[Path] = []  # segments of this process that are complete
        self.removed: Callable[[Path], None] = lambda stem: None  # told when somebody deleted the segment being written
        self._look_at = 0.0  # when to see next whether the file is still there; by the monotonic clock
        _living.add(self)

    def append(self, frames: list[bytes]) -> int:
        """Write framed records, all in one write; returns the offset of the first one.

        Called in the middle of itself by its own thread (a signal handler, a destructor), it leaves them to the call
        that it interrupted, which writes them before it returns; the offset is then -1.
        """
        data = b"".join(frames)
        gone = None
        if not self._here[0]:
            self._begin_again()
        with self._lock:
            if self._writing:
                self._interrupting.append(data)
                return -1
            self._writing = True
            try:
                now = monotonic()
                if now >= self._look_at:
                    gone = self._gone()
                tail = self._tail
                if tail is None or tail.size > ROLL_BYTES:
                    tail = self._open()
                try:
                    offset = tail.append(data, now)
                except OSError as error:
                    stem = self.stem
                    if not tail.whole:
                        self._close_segment()
                    raise StoreUnwritable(f"{stem}: {error.strerror}") from error
            finally:
                self._writing = False
            while self._interrupting:
                self.append([self._interrupting.pop(0)])
            if self._closing is not None and not self._interrupting:
                self.close(seal=self._closing)
        if gone is not None:
            self.removed(gone)
        return offset

    def append_record(self, entry: msgspec.Struct) -> int:
        """Write one record struct."""
        return self.append([framed(entry)])

    def _gone(self) -> Path | None:
        """The segment being written, let go of, if its file was deleted. System calls: made once a second."""
        self._look_at = monotonic() + LOOK_SECONDS
        if self._tail is None or self._tail.look():
            return None
        stem = self.stem
        self._tail.let_go()
        self._tail, self.stem = None, None
        return stem

    def _open(self) -> Tail:
        self._close_segment()
        stem = self._folder / f"{time.time_ns():016x}-{os.getpid():x}-{secrets.token_hex(3)}"
        header = Segment(
            format=1,
            clew=self._version,
            host=writer.host(),
            boot_id=writer.boot_id(),
            pid=os.getpid(),
            pid_started=writer.process_started(os.getpid()),
            pid_namespace=writer.pid_namespace(),
            created_ns=time.time_ns(),
            process_id=self._process_id,
            project=self._project,
        )
        try:
            if not self._folder.exists() and self._folder.parent.exists():
                self._folder.mkdir(mode=0o700, exist_ok=True)
            path = stem.with_name(stem.name + segment.OPEN_SUFFIX)
            self._tail = Tail(path, segment.MAGIC + framed(header))
        except OSError as error:
            raise StoreUnwritable(f"cannot begin a log segment in {self._folder}: {error.strerror}") from error
        self.stem = stem
        return self._tail

    def _close_segment(self) -> None:
        if self._tail is not None:
            self._tail.close()
        if self.stem is not None:
            self.closed_stems.append(self.stem)
        self._tail, self.stem = None, None

    @property
    def size(self) -> int:
        """Bytes of the segment being written."""
        tail = self._tail
        return tail.size if tail is not None else 0

    @property
    def written(self) -> tuple[Path | None, int]:
        """How far it was written: the segment, and the bytes in it."""
        return self.stem, self.size

    def sync(self) -> None:
        """Make what was appended durable against loss of power."""
        with self._lock:
            if self._tail is not None and self._here[0]:
                self._tail.sync()

    def close(self, *, seal: bool = True) -> None:
        """End the segment, and seal it if it is small enough to do at once. Appending again begins a new one."""
        if not self._here[0]:
            self._begin_again()
        with self._lock:
            if self._writing:  # called by a signal handler or a destructor: the write that it interrupted does it
                self._closing = seal
                return
            self._closing = None
            stem, size = self.stem, self.size
            self._close_segment()
        if seal and stem is not None and size <= SEAL_AT_EXIT_BYTES:
            try:
                segment.seal(stem)
            except OSError:
                pass  # the open form stays; it holds the same records

    def _after_fork(self) -> None:
        """In a forked child: its own lock, its own segment. The parent's file is only let go of."""
        self._begin_again()
        self._process_id = secrets.token_bytes(16)

    def _begin_again(self) -> None:
        """A segment of its own for this process: of a fork in C, such as a server's for its workers, no hook tells."""
        self._here = _mark()
        self._lock = threading.RLock()
        self._writing, self._interrupting, self._closing = False, [], None
        if self._tail is not None:
            self._tail.let_go()
        self._tail, self.stem = None, None
        self.closed_stems = []

    @property
    def process_id(self) -> bytes:
        """The id of the process run that owns this log; a forked child has its own."""
        return self._process_id


_encode, _pack = record.encode, segment.FRAME.pack
_BYTE = [bytes((number,)) for number in range(256)]
_BLOB, _BLOB_CRC = int(RecordType.BLOB), segment.HEAD_CRC[RecordType.BLOB]
_HEADS = {cls: (number, segment.HEAD_CRC[number]) for cls, number in record.NUMBER.items()}


def framed(entry: msgspec.Struct) -> bytes:
    """A record struct, framed as `segment.frame_bytes` does it, in one step: there are two to each span."""
    payload = _encode(entry)
    number, head = _HEADS[type(entry)]
    return _pack(len(payload), crc32(payload, head), number, 1) + payload


def blob_frame(domain: int, digest: bytes, data: bytes) -> bytes:
    """A blob, framed: domain, digest, bytes."""
    payload = b"".join((_BYTE[domain], digest, data))
    return _pack(len(payload), crc32(payload, _BLOB_CRC), _BLOB, 1) + payload


def _mark() -> bytes | mmap.mmap:
    """Something whose first byte is 0 in a fork of this process, also in one of which Python knows nothing."""
    try:
        mark = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        mark.madvise(_WIPE_ON_FORK)
    except (AttributeError, OSError):  # not Linux
        return b"\1"
    mark[0] = 1
    return mark


_living: weakref.WeakSet[Log] = weakref.WeakSet()


def _fork_all() -> None:
    for log in list(_living):
        log._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fork_all)
