"""write(2) with the interpreter in hand.

`os.write` lets go of the interpreter's lock and then wants it back. Where another thread waits for it, that is a switch of
threads there and back, dozens of times what the write costs, which only copies some hundred bytes into the page cache;
where another thread computes, it is Python's switch interval, 5 ms. So the log writes its short records through the C
library (docs/design/log.md), on disks of this machine: a server that does not answer may hold up who asks it, and nobody else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_LOCAL = frozenset(("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"))
SHORT_BYTES = 1 << 16  # longer ones take long enough for others to run meanwhile; a C int can say the length

Write = Callable[[int, bytes, int], int]

_write: Write | None
try:
    import ctypes

    _write = ctypes.PyDLL(None)["write"]
except (ImportError, OSError, AttributeError, TypeError):  # no ctypes, or no such library, as on Windows
    _write = None


def writer(folder: Path) -> Write | None:
    """What writes into files of a folder: `write(fd, data, len(data))` is the bytes written, or -1 for an error, of which
    `os.write` tells. None where files are not surely on a disk of this machine, or there is no such function."""
    return _write if _is_local(folder) else None


def _is_local(folder: Path) -> bool:
    """Whether a folder is on a disk of this machine, or in its memory, as far as the system tells: Linux does."""
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
    return kind.decode() in _LOCAL
