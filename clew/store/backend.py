"""Database engines for the catalog. What only one database knows stands here.

SQLite in the store's folder by default; a PostgreSQL URL for a catalog that a team shares.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from clew.store.errors import StoreError


def engine(url: str | None, sqlite_path: Path, *, read_only: bool = False) -> Engine:
    """An engine for `url`, or for the SQLite file."""
    if url is not None and not url.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True)
    made = sa.create_engine("sqlite://", creator=lambda: _connect(sqlite_path, read_only), poolclass=sa.pool.NullPool)
    sa.event.listen(made, "begin", _begin)
    return made


def _connect(path: Path, read_only: bool) -> Any:
    import sqlite3

    if read_only:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30, check_same_thread=False)
    else:
        connection = sqlite3.connect(path, timeout=30, check_same_thread=False)
    connection.isolation_level = None
    cursor = connection.cursor()
    if not read_only:
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


@contextlib.contextmanager
def exclusive(made: Engine, folder: Path, name: str, *, wait: bool = True) -> Iterator[bool]:
    """An advisory lock over all processes that share the catalog; yields whether it was got.

    The kernel (or PostgreSQL) frees it when its holder dies.
    """
    if made.dialect.name == "postgresql":
        key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")
        with made.connect() as connection:
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
        raise StoreError(f"cannot take the lock {folder / name}.lock: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(fd)
