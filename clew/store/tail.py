"""The end of a segment that is being written: bytes are appended to its file, and are in it when `append` returns.

A system call costs several times what it copies, on the cold caches between two steps of an agent. So where a page that
was written once can be written again whatever happens (`_LASTING`), the last pages of the file are written with zeros
ahead of what comes, and mapped: appending is a copy in memory, and what was copied is in the file whether or not the
process lives on. Elsewhere it is a write(2). Readers take zeros for nothing (segment.py); closing cuts them off.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from time import monotonic

_WINDOW_BYTES = 128 << 10  # that are mapped at once; less than twice as much of a segment is mapped or zeros
_FEW_BYTES = 16 << 10  # that are written first: processes that do not live long leave no room behind them
_LONG_BYTES = _WINDOW_BYTES // 2  # what is longer is written while other threads run
_SLOW_SECONDS = 0.02  # a copy that takes longer held up every thread of the program:
_PATIENT_SECONDS = 10.0  # the disk is slow, and those of the next seconds are written
_MOUNTS = Path("/proc/self/mountinfo")
_LASTING = frozenset(("ext2", "ext3", "ext4", "ramfs", "tmpfs", "xfs"))
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, of Linux 5.14
_kept: list[mmap.mmap] = []  # windows that cannot be closed


class Tail:
    """A new file, and its end. Not thread-safe; the file's bytes up to `size` are never written again.

    Raises OSError where the file cannot be made, or `first` not be written; then there is none.
    """

    def __init__(self, path: Path, first: bytes) -> None:
        self.size = 0
        self.whole = True  # False once it ends with half a record that could not be taken back
        self._end = 0  # of the file; from `size` on it is zeros
        self._window: mmap.mmap | None = None
        self._base = self._reach = 0  # where the window begins and ends
        self._map_at = monotonic() if _is_lasting(path.parent) else float("inf")  # not mapped before then
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        found = os.fstat(self._fd)
        self._file = found.st_dev, found.st_ino
        try:
            self._write(first)
        except OSError:
            self.close()
            path.unlink(missing_ok=True)
            raise

    def append(self, data: bytes, now: float) -> int:
        """Put `data` at the end, and return where it begins; `now` is by the monotonic clock. OSError where there is no
        space for all of it, which then leaves nothing of it; a later append may succeed."""
        offset = self.size
        end = offset + len(data)
        if end > self._reach:
            if not self._map(end, now):
                return self._write(data)
            now = monotonic()
        self._window[offset - self._base : end - self._base] = data  # type: ignore[index]
        self.size = end
        if monotonic() - now > _SLOW_SECONDS:
            self._unmap(_PATIENT_SECONDS)
        return offset

    def _write(self, data: bytes) -> int:
        offset = self.size
        end = offset + len(data)
        self._claim()
        try:
            written = os.pwrite(self._fd, data, offset)
            if written != len(data):
                raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes could be written")
            self.size = end
        except OSError:
            self.whole = self._cut()
            raise
        except BaseException:  # a signal handler's: it stands there, and a reader may have seen it
            self.size = end
            raise
        finally:
            if self._end < self.size:  # and no `max`: before a call a signal handler may raise
                self._end = self.size
        return offset

    def _map(self, end: int, now: float) -> bool:
        """Move the window so that it reaches from `size` past `end`; False where that cannot or need not be."""
        if end <= _FEW_BYTES or end - self.size > _LONG_BYTES or now < self._map_at:
            return False
        self._claim()
        self._unmap()
        base = self.size - self.size % mmap.ALLOCATIONGRANULARITY
        reach = base + _WINDOW_BYTES
        try:
            if reach > self._end:
                zeros = bytes(reach - self._end)
                if os.pwrite(self._fd, zeros, self._end) != len(zeros):
                    raise OSError(errno.ENOSPC, "No space left on device")
                self._end = reach
            self._window, self._base = mmap.mmap(self._fd, _WINDOW_BYTES, offset=base), base
            self._populate()
        except (OSError, ValueError):  # ValueError: somebody cut it meanwhile
            self._cut()  # there may be space for a record, if not for so many zeros
            return False
        self._reach = reach
        return True

    def _populate(self) -> None:
        """Have every page of the window ready to be written; OSError where one cannot be."""
        assert self._window is not None
        try:
            self._window.madvise(_POPULATE_WRITE)
        except OSError as error:
            if error.errno != errno.EINVAL:  # an older kernel
                raise

    def _unmap(self, seconds: float = 0.0) -> None:
        """Let go of the window, and have no other for some seconds."""
        window, self._window, self._reach = self._window, None, 0
        if window is not None and self._is_ours():
            window.close()
        elif window is not None:
            _kept.append(window)  # with it a descriptor would be closed that is somebody else's by now
        self._map_at = max(self._map_at, monotonic() + seconds)

    def _cut(self) -> bool:
        """Take back what is after `size`, zeros or half a record; False if that cannot be."""
        self._unmap(_PATIENT_SECONDS)
        self._end = self.size
        if not self._is_ours():
            return False
        try:
            os.ftruncate(self._fd, self.size)
        except OSError:
            return False
        return True

    def look(self) -> bool:
        """Whether the file is still there, and ours. Lets go of pages that are not; made once a second."""
        if not self._is_ours():
            return False
        found = os.fstat(self._fd)
        if found.st_size < self._end:  # somebody cut the file: a copy into a page that is gone would end the process
            self._unmap(_PATIENT_SECONDS)
            self._end = self.size
        elif self._window is not None:
            try:
                self._populate()
                os.utime(self._fd)  # a copy leaves the file's time as it is, and backups go by it
            except OSError:
                self._unmap(_PATIENT_SECONDS)
        return found.st_nlink > 0

    def sync(self) -> None:
        """Make what was appended durable against loss of power."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """End the file with its last record. Closing twice is safe."""
        if self._fd >= 0 and self._end > self.size:
            self._cut()
        self.let_go()

    def let_go(self) -> None:
        """Close it as it stands: after a fork, the parent goes on with it."""
        ours = self._is_ours()
        self._unmap()
        fd, self._fd = self._fd, -1
        if ours and fd >= 0:
            os.close(fd)

    def _claim(self) -> None:
        """OSError where the descriptor is not the file's any more."""
        if not self._is_ours():
            self.whole = False
            raise OSError(errno.EBADF, "Bad file descriptor")

    def _is_ours(self) -> bool:
        """Whether the descriptor is still the file's: a program that becomes a daemon closes all, and opens others."""
        try:
            found = os.fstat(self._fd)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._file


def _is_lasting(folder: Path) -> bool:
    """Whether a page of a file in it, once written, stays so: not on a server or over FUSE, which may go, and not where
    writing again takes new space (btrfs). As far as the system tells: Linux does."""
    try:
        mounts = _MOUNTS.read_bytes().splitlines()
        path = os.fsencode(folder.resolve())
    except OSError:
        return False
    best, kind = b"", b""
    for line in mounts:
        mount, _, rest = line.partition(b" - ")
        point = mount.split()[4].decode("unicode_escape").encode("latin-1")  # a blank in it is \040
        if len(point) >= len(best) and (path == point or path.startswith(point.rstrip(b"/") + b"/")):
            best, kind = point, rest.split()[0]
    return kind.decode() in _LASTING
