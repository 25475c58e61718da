"""A bucket: objects by name in one object store, reached through obstore. A folder, S3, GCS and Azure are one interface.

The only file that knows obstore. Names come from us, never from data. What is read is bounded before it is in memory.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from clew.store.errors import MissingExtra, RemoteUnavailable, StoreError

PIECE_BYTES = 1 << 20
_NO_NETWORK = ("file", "memory")


class TooLarge(StoreError):
    """An object has more bytes than its reader wants."""


class Bucket:
    """One object store by its URL: ``file:///folder``, ``memory://``, ``s3://bucket/prefix``, ``gs://``, ``az://``.

    `options` are further arguments of `obstore.store.from_url` (endpoint, region, credentials, client_options, ...).
    Threads may share it. A child forked from a process that has used obstore cannot: RemoteUnavailable says so.
    """

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None) -> None:
        try:
            import obstore
            import obstore.exceptions
            import obstore.store
        except ModuleNotFoundError as error:
            raise MissingExtra(f"{error.name} is not installed: pip install 'clew[s3]' brings it") from error
        self._obstore = obstore
        self._failures = (obstore.exceptions.BaseError, OSError)
        parts = urlsplit(url)
        self.scheme = parts.scheme
        self.place = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"  # without user, password and query
        settings = dict(options or {})
        if self.scheme == "file":
            settings.setdefault("mkdir", True)
        elif self.scheme not in _NO_NETWORK:  # obstore's own: 10 retries in 3 minutes
            patience = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=30)}
            settings["client_options"] = patience | dict(settings.get("client_options", {}))
            settings.setdefault("retry_config", {"max_retries": 3, "retry_timeout": timedelta(seconds=30)})
        try:
            self._store = obstore.store.from_url(url, **settings)
        except (*self._failures, ValueError, TypeError) as error:
            raise RemoteUnavailable(f"{self.place} cannot be used: {_said(error)}") from error
        self._folder = Path(unquote(parts.path)) if self.scheme == "file" else None

    def size_bytes(self, name: str) -> int | None:
        """The size of an object; None if there is none."""
        with self._asking(name):
            try:
                self._insist_on_a_file(name)
                return int(self._obstore.head(self._store, name)["size"])
            except FileNotFoundError:
                return None

    def read(self, name: str, *, limit_bytes: int) -> bytes | None:
        """An object's bytes; None if there is none. TooLarge if it has more than the limit: nothing of it is kept."""
        with self._asking(name):
            try:
                self._insist_on_a_file(name)
                found = self._obstore.get(self._store, name)
            except FileNotFoundError:
                return None
            pieces, size_bytes = [], int(found.meta["size"])
            if size_bytes <= limit_bytes:
                size_bytes = 0
                for piece in found.stream(min_chunk_size=PIECE_BYTES):
                    pieces.append(bytes(piece))
                    size_bytes += len(piece)
                    if size_bytes > limit_bytes:  # it is not of the size it said
                        break
        if size_bytes > limit_bytes:
            raise TooLarge(f"{self.place}: {name} has more than {limit_bytes} bytes")
        return b"".join(pieces)

    def write(self, name: str, data: bytes) -> None:
        """Store an object, whole or not at all, over what was there."""
        with self._asking(name):
            self._insist_on_own_folders(name)
            self._obstore.put(self._store, name, data)

    def create(self, name: str, data: bytes) -> bool:
        """Store an object unless there is one; whether it was stored.

        Two at once: one is told True. A store that knows no conditional create (s3rver) tells both True.
        """
        with self._asking(name):
            try:
                self._insist_on_own_folders(name)
                self._obstore.put(self._store, name, data, mode="create")
            except self._obstore.exceptions.AlreadyExistsError:
                return False
        return True

    def _insist_on_a_file(self, name: str) -> None:
        """In a folder, that a name is a plain file: opening a pipe would wait for ever, a link may lead anywhere."""
        if self._folder is not None and not stat.S_ISREG(os.lstat(self._folder / name).st_mode):
            raise FileNotFoundError(name)

    def _insist_on_own_folders(self, name: str) -> None:
        """In a folder, that no folder below it is a link which another writer laid to somewhere else."""
        if self._folder is not None:
            for parent in list((self._folder / name).parents)[: name.count("/")]:
                if parent.is_symlink():
                    raise PermissionError(f"{parent} is a link")

    @contextlib.contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """Errors of the store, as one of clew's."""
        global _used
        if _lost_in_fork:
            raise RemoteUnavailable(
                f"{self.place}: obstore's threads stayed in the process that this one was forked from, "
                "where a call would wait for ever; start workers by spawn or forkserver, or fork before the first use"
            )
        _used = True
        try:
            yield
        except self._failures as error:
            raise RemoteUnavailable(f"{self.place}: {name}: {_said(error)}") from error


def _said(error: Exception) -> str:
    """An error's first line: obstore's further lines repeat it as a debug dump, request and all."""
    return (str(error).splitlines() or [type(error).__name__])[0]


_used = _lost_in_fork = False


def _runtime_runs() -> bool:
    """Whether obstore's threads are here: the program may use obstore without us, which only their names tell."""
    if _used or "obstore" not in sys.modules:
        return _used
    with contextlib.suppress(OSError):
        for task in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/comm") as file:
                if file.read().startswith("tokio-"):
                    return True
    return False


def _before_fork() -> None:
    global _forking_used
    _forking_used = _runtime_runs()


def _after_fork() -> None:
    global _lost_in_fork
    _lost_in_fork = _lost_in_fork or _forking_used


_forking_used = False
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
