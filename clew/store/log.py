"""The log: the append-only file through which one process writes everything immutable.

A record is in the file, by one write(2), before `append` returns, so it survives the death of the process (not the loss
of power; `sync` is for that). A fork opens a new segment. The file is made by the first record.
"""

from __future__ import annotations

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

from clew.store import held, record, segment, writer
from clew.store.errors import StoreUnwritable
from clew.store.record import RecordType, Segment

ROLL_BYTES = 64 << 20  # a segment is closed and a new one begun past this
LOOK_SECONDS = 1.0
SLOW_SECONDS = 0.02  # a write that takes longer held up every thread of the program: those of the next
PATIENT_SECONDS = 10.0  # do not
SEAL_AT_EXIT_BYTES = 16 << 20  # larger ones are sealed by whoever indexes them: exit stays under 0.2 s


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
        self._fd = -1
        self.stem: Path | None = None  # the segment being written
        self.size = 0
        self.closed_stems: list[Path] = []  # segments of this process that are complete
        self.removed: Callable[[Path], None] = lambda stem: None  # told when somebody deleted the segment being written
        self._look_at = 0.0  # when to see next whether the file is still there; by the monotonic clock
        self._write: held.Write | None = None  # what writes with the interpreter in hand
        self._slow_until = 0.0  # not asked until then: the disk is slow
        _living.add(self)

    def append(self, frames: list[bytes]) -> int:
        """Write framed records, all in one write; returns the offset of the first one.

        Called in the middle of itself by its own thread (a signal handler, a destructor), it leaves them to the call
        that it interrupted, which writes them before it returns; the offset is then -1.
        """
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        gone = None
        with self._lock:
            if self._writing:
                self._interrupting.append(data)
                return -1
            self._writing = True
            try:
                if (now := monotonic()) >= self._look_at:
                    gone = self._gone()
                if self._fd < 0 or self.size > ROLL_BYTES:
                    self._open()
                    now = monotonic()
                offset = self.size
                try:
                    written = -1
                    if (write := self._write) is not None and now >= self._slow_until and len(data) <= held.SHORT_BYTES:
                        written = write(self._fd, data, len(data))
                        if monotonic() - now > SLOW_SECONDS:
                            self._slow_until = now + PATIENT_SECONDS
                    if written < 0:  # for it too: of what is wrong `os.write` tells
                        written = os.write(self._fd, data)
                except OSError as error:
                    self._cut(offset)
                    raise StoreUnwritable(f"{self.stem}: {error.strerror}") from error
                if written != len(data):  # no space for all of it
                    self._cut(offset)
                    raise StoreUnwritable(f"{self.stem}: only {written} of {len(data)} bytes could be written")
                self.size = offset + written
            finally:
                self._writing = False
            while self._interrupting:
                self.append([self._interrupting.pop(0)])
        if gone is not None:
            self.removed(gone)
        return offset

    def append_record(self, entry: msgspec.Struct) -> int:
        """Write one record struct."""
        return self.append([framed(entry)])

    def _gone(self) -> Path | None:
        """The segment being written, let go of, if its file was deleted. A system call: made once a second."""
        self._look_at = monotonic() + LOOK_SECONDS
        if self._fd < 0 or os.fstat(self._fd).st_nlink:
            return None
        stem = self.stem
        os.close(self._fd)
        self._fd, self.stem, self.size = -1, None, 0
        return stem

    def _open(self) -> None:
        if self._fd >= 0:
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
        first = segment.MAGIC + framed(header)
        path = stem.with_name(stem.name + segment.OPEN_SUFFIX)
        try:
            if not self._folder.exists() and self._folder.parent.exists():
                self._folder.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if os.write(fd, first) != len(first):
                    raise OSError(28, "No space left on device")
            except OSError:
                os.close(fd)
                path.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StoreUnwritable(f"cannot begin a log segment in {self._folder}: {error.strerror}") from error
        self._fd, self.stem, self.size = fd, stem, len(first)
        self._write = held.writer(self._folder)

    def _cut(self, offset: int) -> None:
        """Take back a record that was not written whole; if that fails too, the segment ends here."""
        try:
            os.ftruncate(self._fd, offset)
        except OSError:
            self._close_segment()

    def _close_segment(self) -> None:
        os.close(self._fd)
        self._fd = -1
        if self.stem is not None:
            self.closed_stems.append(self.stem)
        self.stem = None
        self.size = 0

    @property
    def written(self) -> tuple[Path | None, int]:
        """How far it was written: the segment, and the bytes in it."""
        return self.stem, self.size

    def sync(self) -> None:
        """Make what was appended durable against loss of power."""
        with self._lock:
            if self._fd >= 0:
                os.fdatasync(self._fd)

    def close(self, *, seal: bool = True) -> None:
        """End the segment, and seal it if it is small enough to do at once. Appending again begins a new one."""
        with self._lock:
            if self._fd < 0:
                return
            stem, size = self.stem, self.size
            self._close_segment()
        if seal and stem is not None and size <= SEAL_AT_EXIT_BYTES:
            try:
                segment.seal(stem)
            except OSError:
                pass  # the open form stays; it holds the same records

    def _after_fork(self) -> None:
        """In a forked child: its own lock, its own segment. The parent's file is only let go of."""
        self._lock = threading.RLock()
        self._writing, self._interrupting = False, []
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self.stem = None
        self.size = 0
        self.closed_stems = []
        self._process_id = secrets.token_bytes(16)

    @property
    def process_id(self) -> bytes:
        """The id of the process run that owns this log; a forked child has its own."""
        return self._process_id


_encode, _pack = record.encode, segment.FRAME.pack
_HEADS = {cls: (number, segment.HEAD_CRC[number]) for cls, number in record.NUMBER.items()}


def framed(entry: msgspec.Struct) -> bytes:
    """A record struct, framed as `segment.frame_bytes` does it, and in one step: there are two to each span."""
    payload = _encode(entry)
    number, head = _HEADS[type(entry)]
    return _pack(len(payload), crc32(payload, head), number, 1) + payload


def blob_frame(domain: int, digest: bytes, data: bytes) -> bytes:
    """A blob, framed: domain, digest, bytes."""
    return segment.frame_bytes(RecordType.BLOB, b"".join((bytes((domain,)), digest, data)))


_living: weakref.WeakSet[Log] = weakref.WeakSet()


def _fork_all() -> None:
    for log in list(_living):
        log._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fork_all)
