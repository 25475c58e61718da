"""diskcache, hardened: a cache database that somebody has tampered with costs misses, not code or files.

Stock diskcache believes its database (CVE-2025-69872, no fix since 5.6.3). What it takes from there, and what this does:

* `mode` and `raw` choose pickle, for JSONDisk as well: only bytes go in or come out, nothing is ever unpickled
* `filename` is joined to the folder for reading and for removing: it must be of the form that diskcache makes, and each
  step of the way a real folder, the last a plain file, so that no link, pipe or `..` leads out
* rows of `Settings` become attributes of the cache and of the disk (`disk__directory`), and PRAGMAs, which can be
  process-wide (`hard_heap_limit`): settings are ours, an unknown row refuses the database
* triggers and views run in our statements: a schema other than diskcache's own refuses the database
* `cache.db` and its companions may be links to another database, or a journal that makes SQLite delete a file
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diskcache
from diskcache.core import DBNAME, DEFAULT_SETTINGS, ENOVAL, METADATA, MODE_BINARY, MODE_RAW, UNKNOWN

from clew.store.errors import StoreError

INLINE_BYTES = 32 << 10  # smaller values stand in the database, larger ones are files
BUSY_SECONDS = 5
_ROW_BYTES = 4 << 20  # SQLite refuses a value above it before it is in memory; a statement is no longer either
_SETTINGS = DEFAULT_SETTINGS.keys() | METADATA.keys()
_FILE = re.compile(r"([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{28}\.val)", re.ASCII)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COMPANIONS = ("", "-wal", "-shm", "-journal")


class Refused(StoreError):
    """A row, or a whole cache database, says what diskcache never wrote here."""


class SafeDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no annotations
    """Bytes by bytes, in rows and files of one folder. Raises Refused for whatever else a row says."""

    limit_bytes = 1 << 30  # of one file, before it is read

    def put(self, key: object) -> tuple[memoryview, bool]:
        """A key as its column holds it."""
        if type(key) is not bytes:
            raise Refused(f"a key is {type(key).__name__}: only bytes can be one")
        return sqlite3.Binary(key), True

    def get(self, key: object, raw: object) -> bytes:
        """The key in a column."""
        if raw != 1 or type(key) is not bytes:
            raise Refused(f"a key is stored as {'a pickle' if raw == 0 else type(key).__name__}")
        return key

    def store(self, value: object, read: bool, key: object = UNKNOWN) -> tuple[int, int, str | None, memoryview | None]:
        """Columns size, mode, filename and value for `value`, written to a file if it is large."""
        if type(value) is not bytes or read:
            raise Refused(f"a value is {type(value).__name__}: only bytes can be one")
        if len(value) < self.min_file_size:
            return 0, MODE_RAW, None, sqlite3.Binary(value)
        name, _ = self.filename(key, value)
        with self._folder_of(name, create=True) as (folder, last):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(last, flags, 0o600, dir_fd=folder), "wb") as file:
                file.write(value)
        return len(value), MODE_BINARY, name, None

    def fetch(self, mode: object, filename: object, value: object, read: bool) -> Any:
        """The bytes that a row holds or names. FileNotFoundError if the file is gone: evicted meanwhile."""
        if mode == MODE_RAW and filename is None:
            if type(value) is not bytes:
                raise Refused(f"a value is stored as {type(value).__name__}")
            return io.BytesIO(value) if read else value
        if mode != MODE_BINARY or value is not None:
            raise Refused(f"a value is stored in mode {mode!r} (4 is pickle)")
        with self._folder_of(filename) as (folder, last):
            try:
                fd = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise Refused(f"{filename} is no file of the cache: {error.strerror}") from error
        file = open(fd, "rb")  # noqa: SIM115  # handed out if `read`
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > self.limit_bytes:
            file.close()
            raise Refused(f"{filename} is no plain file of at most {self.limit_bytes} bytes")
        if read:
            return file
        with file:
            return file.read(self.limit_bytes)

    def remove(self, file_path: object) -> None:
        """Delete a file of the cache, and folders that it leaves empty; another's file is left where it is."""
        with contextlib.suppress(OSError, Refused), self._folder_of(file_path) as (folder, last):
            os.unlink(last, dir_fd=folder)
        with contextlib.suppress(OSError, Refused):
            first, second, _ = _steps(file_path)
            os.rmdir(os.path.join(self._directory, first, second))
            os.rmdir(os.path.join(self._directory, first))

    @contextlib.contextmanager
    def _folder_of(self, name: object, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """The open folder that a named file stands in, and its last name. Opened step by step, so no link is followed."""
        *steps, last = _steps(name)
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for step in steps:
                if create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(step, 0o700, dir_fd=fd)
                try:
                    below = os.open(step, _FOLDER, dir_fd=fd)
                except FileNotFoundError:
                    raise
                except OSError as error:
                    raise Refused(f"{step}, which {name} stands in, is no folder: {error.strerror}") from error
                os.close(fd)
                fd = below
            yield fd, last
        finally:
            os.close(fd)


def _steps(name: object) -> tuple[str, str, str]:
    found = _FILE.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        raise Refused(f"{str(name)[:80]!r} is not a file name that the cache gives")
    first, second, last = found.groups()
    return first, second, last


class SafeCache(diskcache.Cache):  # type: ignore[misc]
    """A cache on SafeDisk, in a folder that only its owner can write to. Refused if what stands there is not sound.

    It has one connection for all threads: its user calls it from one thread at a time, and closes it before a fork.
    """

    def __init__(self, folder: Path, *, size_limit: int) -> None:
        self._one_connection: sqlite3.Connection | None = None
        # `sqlite_mmap_size`: reading a mapped file that another process cuts short is SIGBUS
        settings = DEFAULT_SETTINGS | {
            "size_limit": size_limit,
            "disk_min_file_size": INLINE_BYTES,
            "sqlite_mmap_size": 0,
            "sqlite_synchronous": 0,  # a cache: what a power cut breaks is made anew
        }
        try:
            if _inspect_files(folder):
                _inspect_schema(folder)
            super().__init__(str(folder), timeout=BUSY_SECONDS, disk=SafeDisk, **settings)
            self._count_again()
        except BaseException:
            self.close()
            raise

    @property
    def _con(self) -> sqlite3.Connection:
        """Instead of diskcache's, which has one for each thread and sets what PRAGMAs the database says."""
        if self._one_connection is None:
            self._one_connection = _connect(Path(self._directory))
        return self._one_connection

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        connection, self._one_connection = self._one_connection, None
        if connection is not None:
            connection.close()

    def reset(self, key: str, value: Any = ENOVAL, update: bool = True) -> Any:
        """As diskcache's, for the settings that it has."""
        if key not in _SETTINGS:
            raise Refused(f"a setting is called {key[:80]!r}")
        return super().reset(key, value, update)

    def _count_again(self) -> None:
        """`size` and `count` hold the bound: they are what the rows say, and no row says less than nothing."""
        sql = self._con.execute
        sql("DELETE FROM Cache WHERE typeof(size) != 'integer' OR size < 0 OR (filename IS NOT NULL AND size = 0)")
        sql("UPDATE Settings SET value = (SELECT COALESCE(SUM(size), 0) FROM Cache) WHERE key = 'size'")
        sql("UPDATE Settings SET value = (SELECT COUNT(*) FROM Cache) WHERE key = 'count'")


def wipe(folder: Path) -> None:
    """Delete a cache: its database, and the files whose names it gives. Follows no link, leaves what is not its own."""
    for companion in _COMPANIONS:
        with contextlib.suppress(OSError):
            os.unlink(folder / f"{DBNAME}{companion}")
    disk = SafeDisk(str(folder))
    for root, _, files in os.walk(folder):
        for name in files:
            disk.remove(os.path.relpath(os.path.join(root, name), folder))


def prepare(folder: Path) -> None:
    """Make the folder of a cache. Refused if it stands and others than its owner can write to it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = os.stat(folder)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise Refused(f"{folder} can be written to by others: a hot tier needs a folder of its own (chmod 700)")


@contextlib.contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Alone among the processes that open the cache, or delete it. BlockingIOError after some seconds."""
    fd = os.open(folder / "opening.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)


def _inspect_files(folder: Path) -> bool:
    """Whether there is a database; Refused if its files are not what diskcache leaves behind."""
    for companion in _COMPANIONS:
        path = folder / f"{DBNAME}{companion}"
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise Refused(f"{path} is not a plain file, or has another name too")
            if companion == "-journal":  # the database has a write-ahead log; SQLite deletes the file a journal names
                raise Refused(f"{path} is none of this database's")
    return (folder / str(DBNAME)).exists()


def _inspect_schema(folder: Path) -> None:
    with contextlib.closing(_connect(folder)) as connection:
        schema = _schema(connection)
        if not schema <= _stock_schema():
            raise Refused("the cache database has other tables, views or triggers than diskcache makes")
        if any(name == "Settings" for _, name, *_ in schema):
            for (key,) in connection.execute("SELECT key FROM Settings"):
                if key not in _SETTINGS:
                    raise Refused(f"a setting is called {str(key)[:80]!r}")


def _connect(folder: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / DBNAME, BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _ROW_BYTES)
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        connection.execute("PRAGMA mmap_size=0")
        connection.execute("PRAGMA synchronous=OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def _schema(connection: sqlite3.Connection) -> set[tuple[str, ...]]:
    return set(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))


def _stock_schema() -> set[tuple[str, ...]]:
    """What the installed diskcache makes in an empty folder."""
    with tempfile.TemporaryDirectory(prefix="clew-") as folder, diskcache.Cache(folder) as cache:
        return _schema(cache._con)
