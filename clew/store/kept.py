"""One connection to the catalog that is kept for what is asked again and again, one row at a time, through the driver.

Opening a connection takes a hundred times as long as such a question. It is closed before the process forks, as SQLite
must not go along into a child (backend.py), and when the catalog's file was replaced. Only SQLite is asked so.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Engine

CHECK_SECONDS = 1.0  # how long it may go on asking a catalog that was deleted
_forking = threading.RLock()  # taken before any other lock here: nobody opens one while the process forks
_kept: weakref.WeakSet[KeptConnection] = weakref.WeakSet()


class KeptConnection:
    """Asks one catalog. Safe to use from several threads, one at a time."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self._path = path
        self._lock = threading.Lock()
        self._opened: Any = None
        self._cursor: Any = None
        self._file: tuple[int, int] | None = None
        self._checked = 0.0

    def row(self, statement: str, parameters: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The first row. Raises what the driver raises; then the next one asks anew."""
        with self._lock:
            if self._cursor is not None and time.monotonic() - self._checked <= CHECK_SECONDS:
                return self._asked(statement, parameters)
        with _forking, self._lock:
            if self._cursor is not None and _file(self._path) != self._file:
                self._close()
            if self._cursor is None:
                self._open()
            self._checked = time.monotonic()
            return self._asked(statement, parameters)

    def _asked(self, statement: str, parameters: tuple[Any, ...]) -> tuple[Any, ...] | None:
        try:
            rows: list[tuple[Any, ...]] = self._cursor.execute(statement, parameters).fetchall()
        except BaseException:
            self._close()
            raise
        return rows[0] if rows else None

    def close(self) -> None:
        """Let go of the connection; it is opened again where it is asked again."""
        with self._lock:
            self._close()

    def _open(self) -> None:
        raw = self._engine.raw_connection()
        driver = raw.driver_connection
        raw.detach()
        assert driver is not None
        self._opened, self._cursor, self._file = driver, driver.cursor(), _file(self._path)
        _kept.add(self)

    def _close(self) -> None:
        opened, self._opened, self._cursor = self._opened, None, None
        if opened is not None:
            opened.close()


def _file(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _before_fork() -> None:
    _forking.acquire()
    _close_all()


def _after_fork() -> None:
    """In a forked child: a lock may be held by a thread that is not here."""
    global _forking
    _forking = threading.RLock()
    for one in list(_kept):
        one._lock = threading.Lock()


def _close_all() -> None:
    for one in list(_kept):
        one.close()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=lambda: _forking.release(), after_in_child=_after_fork)
