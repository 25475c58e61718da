"""Stripes: the lock files by which processes of one machine agree on who computes a key.

A key's first two bytes name its file, so there are at most 65,536. The kernel frees a stripe when its holder dies.
A process holds a stripe once, for all its keys that fall on it: two of them never wait for each other.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

# Errors of a folder in which nothing can be made, and not of locking there.
UNWRITABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EEXIST,
)


class Stripe:
    """A stripe that this process holds for as long as anybody refers to it: an interrupt between two lines leaves none.

    Its descriptor is -1 where nothing is locked.
    """

    __slots__ = ("__weakref__", "fd")

    def __init__(self) -> None:
        self.fd = -1

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:  # an interrupt may have come before it was set
            try:
                fcntl.flock(self.fd, fcntl.LOCK_UN)  # closing would not do while a forked child has the descriptor too
            finally:
                os.close(self.fd)


class Stripes:
    """The stripes in one folder. It is made when it is first needed.

    Where the folder cannot be used (read-only, full, no flock there), `fault` is told once and nothing is locked.
    """

    def __init__(self, folder: Path, fault: Callable[[OSError], object]) -> None:
        self._folder = folder
        self._fault = fault
        self._told = False
        self._lock = threading.RLock()
        self._held: weakref.WeakValueDictionary[str, Stripe] = weakref.WeakValueDictionary()

    def take(self, key: bytes) -> Stripe | None:
        """The key's stripe, freed when it is let go of; None while another process holds it. Never waits."""
        name = key[:2].hex()
        with self._lock:
            stripe = self._held.get(name)
            if stripe is not None:
                return stripe
            stripe = Stripe()
            try:
                stripe.fd = lock_file(self._folder, name)
                fcntl.flock(stripe.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            except OSError as error:
                if not self._told:
                    self._told = True
                    self._fault(error)
                return stripe
            self._held[name] = stripe
            return stripe

    def after_fork(self) -> None:
        """In a forked child: the parent's locks are none of its own."""
        self._lock = threading.RLock()
        for stripe in list(self._held.values()):
            os.close(stripe.fd)
            stripe.fd = -1
        self._held = weakref.WeakValueDictionary()


def lock_file(folder: Path, name: str) -> int:
    """The descriptor of a lock file, made where it is missing. OSError where it cannot be had."""
    path = f"{folder}/{name}.lock"
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a file that is there can be locked all the same
        raise
