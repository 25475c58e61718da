"""The hot tier: a bounded local cache of blobs in front of a remote, read through and written through.

    Remote      blobs by digest           cas/ab/<hex digest>, of many machines (remote.py)
    HotTier     some of them, once more   on this machine's disk; evicts, may be deleted at any time (disk.py)
    ReadThrough the one before the other

The remote is the system of record. What comes out of either is held to its digest; a fault of the hot tier is a miss.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clew.store.blob import pack, unpack, verified
from clew.store.digest import Digest, Domain, digest
from clew.store.errors import CorruptBlob, MissingExtra, StoreUnwritable
from clew.store.refusal import Refusals
from clew.store.remote import Remote

if TYPE_CHECKING:
    from clew.store import disk
    from clew.store.disk import SafeCache

RETRY_SECONDS = 30.0  # before a cache that could not be opened is tried again
HOT_BYTES = 1 << 30
FORK_SECONDS = 5.0  # that a fork waits for another thread's reading or writing


def _load() -> None:
    """Bring in what stands on diskcache, which is an extra."""
    global disk
    try:
        from clew.store import disk
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{error.name} is not installed: pip install 'clew[hot-tier]' brings it") from error


class HotTier:
    """Bytes by digest in a folder of this machine, at most `limit_bytes` on disk. Never raises once it is made.

    MissingExtra where diskcache is not installed, StoreError where the folder will not do. Threads and processes may share it; a forked child opens it anew.
    """

    def __init__(self, folder: str | os.PathLike[str], *, limit_bytes: int = HOT_BYTES) -> None:
        _load()
        self.folder = Path(folder).absolute()
        self.limit_bytes = limit_bytes
        self.refusals = Refusals(str(self.folder))
        self._lock = threading.RLock()
        self._cache: SafeCache | None = None
        self._closed_until = -math.inf
        try:
            disk.prepare(self.folder)
        except OSError as error:
            raise StoreUnwritable(f"no hot tier can be kept in {self.folder}: {error.strerror}") from error
        _living.add(self)

    def get(self, name: Digest) -> bytes | None:
        """The bytes kept under a digest, not verified; None if there are none."""
        kept: bytes | None = None
        with self._lock, self._faults_are_misses(name):
            cache = self._open()
            if cache is not None:
                kept = cache.get(bytes(name))
        return kept

    def put(self, name: Digest, packed: bytes) -> None:
        """Keep these bytes, at the cost of what was kept longest. More than a quarter of the limit are not kept."""
        if len(packed) > self.limit_bytes // 4:
            return
        with self._lock, self._faults_are_misses(name):
            cache = self._open()
            if cache is not None:
                cache.set(bytes(name), packed)
                if cache.volume() > self.limit_bytes:  # `set` evicts ten rows at most, however small
                    cache.cull()

    def drop(self, name: Digest, reason: str) -> None:
        """Forget what is kept under a digest, as it was not what it should be."""
        self.refusals.add(reason, name)
        with self._lock, self._faults_are_misses(name):
            if self._cache is not None:
                self._cache.delete(bytes(name))

    def close(self) -> None:
        """Close the database; the next use opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._cache is not None:
            with contextlib.suppress(Exception):
                self._cache.close()

    def _open(self) -> SafeCache | None:
        """The cache; None while it cannot be opened. One that is damaged or tampered with is deleted and begun anew."""
        if self._cache is None and time.monotonic() >= self._closed_until:
            try:
                with disk.opening(self.folder):
                    try:
                        self._cache = disk.SafeCache(self.folder, size_limit=self.limit_bytes)
                    except Exception as error:
                        if not _is_unsound(error):
                            raise
                        self.refusals.add("a cache database was refused and deleted", error)
                        disk.wipe(self.folder)
                        self._cache = disk.SafeCache(self.folder, size_limit=self.limit_bytes)
            except Exception as error:
                self._closed_until = time.monotonic() + RETRY_SECONDS
                self.refusals.add("the cache database cannot be opened", error)
        return self._cache

    @contextlib.contextmanager
    def _faults_are_misses(self, name: Digest) -> Iterator[None]:
        """Whatever goes wrong in a cache that can be made again is counted, and nobody's error."""
        try:
            yield
        except Exception as error:
            try:
                if isinstance(error, (disk.Refused, sqlite3.DataError)) and self._cache is not None:
                    self.refusals.add("a row was refused and dropped", error)
                    self._cache.delete(bytes(name))
                elif _is_unsound(error):
                    self.refusals.add("a cache database was refused and deleted", error)
                    self._close()
                    self._cache = None
                    with disk.opening(self.folder):
                        disk.wipe(self.folder)
                else:
                    self.refusals.add("the cache database failed", error)
            except Exception as again:
                self.refusals.add("the cache database failed", again)


def _is_unsound(error: Exception) -> bool:
    """Whether a cache is damaged or tampered with, rather than busy or out of space: then it is deleted."""
    return isinstance(error, disk.Refused | TypeError | ValueError | LookupError) or (
        isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
    )


class ReadThrough:
    """Blobs of a remote, through a hot tier if there is one; actions, which are no content, straight from the remote.

    `blob`, `put_blob`, `action` and `put_action` are as the remote's.
    """

    def __init__(self, remote: Remote, hot: HotTier | None = None) -> None:
        self.remote = remote
        self.hot = hot
        self.action = remote.action
        self.put_action = remote.put_action

    def blob(self, name: bytes) -> tuple[Domain, bytes] | None:
        """Domain and bytes of a blob, verified, wherever it came from; None if there is none. Raises as `Remote.blob`."""
        name = Digest(name)
        kept = self.hot.get(name) if self.hot is not None else None
        if self.hot is not None and kept is not None:
            try:
                domain, data = unpack(name, kept, limit_bytes=self.remote.limit_bytes)
                return domain, verified(name, domain, data)
            except CorruptBlob:
                self.hot.drop(name, "a kept blob was corrupt")
        packed = self.remote.packed_blob(name)
        if packed is None:
            return None
        found = self.remote.unpacked(name, packed)
        if self.hot is not None:
            self.hot.put(name, packed)
        return found

    def put_blob(self, domain: Domain, data: bytes) -> Digest:
        """Store a blob in the remote, then keep it."""
        name, packed = digest(domain, data), pack(domain, data)
        self.remote.put_packed(name, packed, len(data))
        if self.hot is not None:
            self.hot.put(name, packed)
        return name


_living: weakref.WeakSet[HotTier] = weakref.WeakSet()
_held: list[HotTier] = []


def _before_fork() -> None:
    """Nobody has SQLite open while the process forks: its locks would go along, without the thread that frees them."""
    for hot in list(_living):
        if hot._lock.acquire(timeout=FORK_SECONDS):
            hot._close()
            _held.append(hot)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop()._lock.release()


def _after_fork_in_child() -> None:
    for hot in list(_living):
        hot._lock = threading.RLock()
        if hot not in _held:  # somebody was in the middle of it: this child does without
            hot._cache, hot._closed_until = None, math.inf
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
