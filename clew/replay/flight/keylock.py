"""A lock for each key, against other processes: what a batch asks for at once may be thousands of them.

It is a byte of a file, at the place that the key names. The kernel frees it when its process dies. Threads of one process
do not see each other's: they agree by other means before.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from clew.replay.flight.stripe import lock_file

MOST = 10_000  # keys of one batch: each takes the longer to lock, the more of its file are
_FILES = 16


class KeyLocks:
    """The locks of keys in one folder. It is made when it is first needed.

    Where the folder cannot be used (read-only, full, no locks there), `fault` is told once and all keys are free.
    """

    def __init__(self, folder: Path, fault: Callable[[OSError], object]) -> None:
        self._folder = folder
        self._fault = fault
        self._told = False
        self._files: dict[int, int] = {}
        self._opening = threading.Lock()
        self._process = os.getpid()

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            if file >= 0:
                os.close(file)

    def take(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of these that no other process holds: this one does from now on. Never waits."""
        keys = list(keys)
        agreed = sorted(keys[:MOST], reverse=True)  # the kernel is quicker in this order
        held = {key for key in agreed if not self._lock(key)}
        return [key for key in keys if key not in held] if held else keys

    def let_go(self, keys: Iterable[bytes]) -> None:
        """Other processes may have these."""
        for key in sorted(keys):
            file, at = self._place(key)
            if file >= 0:
                with contextlib.suppress(OSError):
                    fcntl.lockf(file, fcntl.LOCK_UN, 1, at)

    def is_free(self, key: bytes) -> bool:
        """Whether no other process holds it now. Not for one that this process may hold."""
        free = self._lock(key)
        if free:
            self.let_go([key])
        return free

    def _lock(self, key: bytes) -> bool:
        file, at = self._place(key)
        if file < 0:
            return True
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            self._say(error)
        return True

    def _place(self, key: bytes) -> tuple[int, int]:
        """The file in which a key has its byte, and where; -1 where there is none."""
        number = int.from_bytes(key[:8], "big")
        at = number % _FILES
        if (
            self._process != os.getpid()
        ):  # a forked child has none of its parent's locks, and maybe a lock of its own held
            self._opening, self._process = threading.Lock(), os.getpid()
        file = self._files.get(at)
        if file is None:
            with self._opening:  # closing one of two would free what is locked by the other
                if (file := self._files.get(at)) is None:
                    file = self._files[at] = self._open(at)
        return file, number >> 2  # an offset has a sign

    def _open(self, at: int) -> int:
        try:
            return lock_file(self._folder, f"keys-{at:x}")
        except OSError as error:
            self._say(error)
            return -1

    def _say(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            self._fault(error)
