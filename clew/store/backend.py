"""Database engines for the catalog. What only one database knows stands here.

SQLite in the store's folder by default; a PostgreSQL URL for a catalog that a team shares.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from clew.store.errors import ClewError, MissingExtra, StoreError, StoreUnwritable

# SQLite's primary result codes
_BUSY, _LOCKED, _READONLY, _IOERR, _CANTOPEN, _FULL = 5, 6, 8, 10, 14, 13

FORK_SECONDS = 5.0  # that a fork waits for other threads to be done with the catalog; a batch takes less than one

REBUILD = "it is only an index: `clew doctor --rebuild` makes it again from the logs"


def engine(url: str | None, sqlite_path: Path, *, read_only: bool = False) -> Engine:
    """An engine for `url`, or for the SQLite file. MissingExtra where the database's driver is not installed."""
    address = sa.make_url(url) if url is not None else None
    if address is not None and address.get_backend_name() == "sqlite":
        sqlite_path = Path(address.database) if address.database else sqlite_path
    elif address is not None:
        made = _postgresql(address)
        place = made.url.render_as_string(hide_password=True)
        sa.event.listen(made, "handle_error", lambda context: _told(context, place))
        return made
    made = sa.create_engine("sqlite://", creator=lambda: _connect(sqlite_path, read_only), poolclass=sa.pool.NullPool)
    sa.event.listen(made, "begin", _begin)
    sa.event.listen(made, "handle_error", lambda context: _told(context, str(sqlite_path)))
    return made


def _postgresql(address: sa.URL) -> Engine:
    if address.get_backend_name() != "postgresql":
        raise StoreError(f"no catalog can be kept in {address.render_as_string()}: SQLite and PostgreSQL are supported")
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    try:
        return sa.create_engine(address, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{error.name} is not installed: pip install 'clew[postgres]' brings it") from error


def _told(context: sa.engine.ExceptionContext, place: str) -> ClewError | None:
    """What a database's error means for who asked: the one place where it becomes an error of clew's."""
    error = context.original_exception
    if context.is_pre_ping or not isinstance(context.sqlalchemy_exception, sa.exc.DatabaseError):
        return None
    if isinstance(context.sqlalchemy_exception, sa.exc.IntegrityError):
        return None
    said = " ".join(str(error).split())
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        if isinstance(context.sqlalchemy_exception, sa.exc.OperationalError):
            return StoreError(f"the catalog at {place} cannot be used: {said}")
        return StoreError(f"the catalog at {place} is not as it should be ({said}); {REBUILD}")
    if code & 255 in (_BUSY, _LOCKED):
        return StoreError(f"the catalog {place} is kept busy by another process ({said}); try again")
    if code & 255 in (_READONLY, _IOERR, _CANTOPEN, _FULL):
        return StoreUnwritable(f"the catalog {place} cannot be written: {said}")
    return StoreError(f"the catalog {place} cannot be read ({said}); {REBUILD}")


class _Connection(sqlite3.Connection):
    """A connection that forks wait for.

    What SQLite remembers of a process's locks goes along into a forked child, where the thread that held them is not:
    the catalog would stay locked to the child for ever (https://sqlite.org/howtocorrupt.html, 2.6).
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        with _open_changed:
            self.thread = threading.get_ident()
            _open.add(self)
        try:
            super().__init__(*arguments, **named)
        except BaseException:
            self._gone()
            raise

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._gone()

    def _gone(self) -> None:
        with _open_changed:
            _open.discard(self)
            _open_changed.notify_all()


_open: weakref.WeakSet[_Connection] = weakref.WeakSet()
_open_changed = threading.Condition()


def _connect(path: Path, read_only: bool) -> Any:
    if read_only:
        address, uri = f"file:{path}?mode=ro", True
    else:
        address, uri = str(path), False
    connection = sqlite3.connect(address, uri=uri, timeout=30, check_same_thread=False, factory=_Connection)
    connection.isolation_level = None
    cursor = connection.cursor()
    if not read_only:
        cursor.execute("PRAGMA page_size=2048")  # of a new file: an empty catalog is 38 pages, nearly all of them empty
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA wal_autocheckpoint=2000")
    cursor.execute("PRAGMA temp_store=MEMORY")
    cursor.execute("PRAGMA cache_size=-16000")
    cursor.close()
    return connection


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("write") else "BEGIN")


@contextlib.contextmanager
def write(made: Engine) -> Iterator[Connection]:
    """A writing transaction. On SQLite it takes the write lock at once, so it waits instead of failing half-way."""
    with made.connect() as raw:
        connection = raw.execution_options(write=True)
        with connection.begin():
            yield connection


def shrink(made: Engine) -> None:
    """Fold SQLite's write-ahead log into the database file, so that a closed store has one file. No-op elsewhere."""
    if made.dialect.name == "sqlite":
        with made.connect() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def serialize(connection: Connection, name: str) -> None:
    """Until this transaction ends, no other one passes here for `name`. On SQLite a writer is alone anyhow."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _lock_number(name)})


def _lock_number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")


@contextlib.contextmanager
def exclusive(made: Engine, folder: Path, name: str, *, wait: bool = True) -> Iterator[bool]:
    """An advisory lock over all processes that share the catalog; yields whether it was got.

    The kernel (or PostgreSQL) frees it when its holder dies.
    """
    if made.dialect.name == "postgresql":
        key = _lock_number(name)
        with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:  # no transaction stays open
            call = "pg_advisory_lock" if wait else "pg_try_advisory_lock"
            got = connection.execute(sa.text(f"SELECT {call}(:key)"), {"key": key}).scalar()
            got = True if wait else bool(got)
            try:
                yield got
            finally:
                if got:
                    connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": key})
        return
    try:
        fd = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnwritable(f"cannot take the lock {folder / name}.lock: {error.strerror}") from error
    _held.add(fd)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        if fd in _held:
            _held.discard(fd)
            fcntl.flock(fd, fcntl.LOCK_UN)  # closing would not do while a forked child has the descriptor too
            os.close(fd)


_held: set[int] = set()


def _before_fork() -> None:
    """Until no other thread has SQLite open; none opens it before the fork is done."""
    _open_changed.acquire()
    me = threading.get_ident()
    _open_changed.wait_for(lambda: all(one.thread == me for one in _open), FORK_SECONDS)


def _after_fork() -> None:
    """In a forked child: the parent's locks are none of its own."""
    global _open_changed
    _open_changed = threading.Condition()
    for one in [one for one in _open if one.thread != threading.get_ident()]:  # those threads are not here
        _open.discard(one)
    for fd in _held:
        os.close(fd)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=lambda: _open_changed.release(), after_in_child=_after_fork
    )
