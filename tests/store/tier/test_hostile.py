"""The hot tier is not to be turned against its user by whoever wrote its database."""

from __future__ import annotations

import contextlib
import os
import pickle
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clew.store.digest import Digest, Domain, text_digest
from clew.store.errors import StoreError
from clew.store.tier import HotTier, ReadThrough
from tests.store.tier.bed import LARGE, NAME, SMALL, again, disk, diskcache, poison

# rows that diskcache would believe: each attack succeeds on the stock disk


class Exploit:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_row_that_says_pickle_runs_code_in_stock_diskcache_and_is_dropped_here(hot: HotTier, tmp_path: Path) -> None:
    """CVE-2025-69872. JSONDisk takes the mode from the row as well."""
    proof = tmp_path / "ran"
    hot.put(NAME, SMALL)
    poison(hot, "UPDATE Cache SET mode = 4, value = ?", pickle.dumps(Exploit(proof)))
    assert hot.get(NAME) is None
    assert not proof.exists()
    assert hot.refusals.counts == {"a row was refused and dropped": 1}
    assert hot.get(NAME) is None
    assert hot.refusals.counts == {"a row was refused and dropped": 1}, "the row is gone"

    hot.put(NAME, SMALL)
    poison(hot, "UPDATE Cache SET mode = 4, value = ?", pickle.dumps(Exploit(proof)))
    with diskcache.Cache(str(hot.folder)) as stock:
        stock.get(bytes(NAME))
    assert proof.exists()


def test_a_file_that_says_pickle_is_not_loaded_either(hot: HotTier, tmp_path: Path) -> None:
    hot.put(NAME, LARGE)
    (file,) = hot.folder.rglob("*.val")
    file.write_bytes(pickle.dumps(Exploit(tmp_path / "ran")))
    poison(hot, "UPDATE Cache SET mode = 4")
    assert hot.get(NAME) is None
    assert not (tmp_path / "ran").exists()
    assert not file.exists(), "dropped with its row"


def test_a_key_that_says_pickle_runs_code_in_stock_diskcache_and_is_refused_here(hot: HotTier, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    hot.put(NAME, SMALL)
    poison(hot, "UPDATE Cache SET raw = 0, key = ?", pickle.dumps(Exploit(proof)))
    assert hot.get(NAME) is None
    with contextlib.closing(disk.SafeCache(hot.folder, size_limit=1 << 20)) as cache, pytest.raises(disk.Refused):
        list(cache)
    assert not proof.exists()
    with diskcache.Cache(str(hot.folder)) as stock:
        list(stock)
    assert proof.exists()


@pytest.mark.parametrize("way", ["relative", "absolute"])
def test_a_file_name_that_leads_out_is_read_and_deleted_by_stock_diskcache_and_neither_here(
    hot: HotTier, tmp_path: Path, way: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    name = "../secret" if way == "relative" else str(secret)
    hot.put(NAME, LARGE)
    poison(hot, "UPDATE Cache SET filename = ?", name)
    assert hot.get(NAME) is None
    assert hot.refusals.counts == {"a row was refused and dropped": 1}
    hot.put(NAME, LARGE)
    poison(hot, "UPDATE Cache SET filename = ?", name)
    hot.put(NAME, LARGE)  # over it: the old file is removed
    poison(hot, "UPDATE Cache SET filename = ?", name)
    hot.drop(NAME, "test")
    hot.put(NAME, LARGE)
    poison(hot, "UPDATE Cache SET filename = ?, expire_time = 1", name)
    hot.put(text_digest("other"), LARGE)  # evicts what has expired
    assert hot.get(NAME) is None
    assert secret.read_bytes() == b"secret"

    hot.put(NAME, LARGE)
    poison(hot, "UPDATE Cache SET filename = ?", name)
    with diskcache.Cache(str(hot.folder)) as stock:
        assert stock.get(bytes(NAME)) == b"secret"
        stock.delete(bytes(NAME))
    assert not secret.exists()


@pytest.mark.parametrize(
    "change",
    [
        "mode = 3",  # text
        "mode = 0",
        "mode = 'x'",
        "mode = NULL",
        "mode = 1",  # in the row, where a file is named
        "filename = NULL",
        "filename = x'2e2e'",
        "filename = 7",
        "filename = filename || char(10)",
        "filename = upper(filename)",
        "filename = './' || filename",
        "filename = substr(filename, 1, 6) || '../' || substr(filename, 7)",
        "value = x'00'",
        "mode = 1, filename = NULL, value = 'text'",
        "mode = 1, filename = NULL, value = 7",
        "mode = 1, filename = NULL, value = NULL",
        "mode = 1, filename = NULL, value = zeroblob(100000000)",
    ],
)
def test_a_row_that_this_disk_never_wrote_is_a_miss_and_dropped(tier: ReadThrough, hot: HotTier, change: str) -> None:
    name = tier.put_blob(Domain.BYTES, LARGE)
    poison(hot, f"UPDATE Cache SET {change}")
    assert hot.get(name) is None
    assert hot.refusals.counts == {"a row was refused and dropped": 1}
    assert tier.blob(name) == (Domain.BYTES, LARGE)
    assert hot.get(name) is not None


@pytest.mark.parametrize("what", ["link", "pipe", "huge", "linked folder"])
def test_a_link_a_pipe_or_a_huge_file_in_place_of_a_value_is_a_miss(hot: HotTier, tmp_path: Path, what: str) -> None:
    hot.put(NAME, LARGE)
    (file,) = hot.folder.rglob("*.val")
    outside = tmp_path / "outside"
    if what == "huge":
        os.truncate(file, 1 << 40)
    elif what == "linked folder":
        os.rename(file.parent, outside)
        file.parent.symlink_to(outside)
    else:
        os.rename(file, outside)
        file.symlink_to(outside) if what == "link" else os.mkfifo(file)
    assert hot.get(NAME) is None
    assert hot.refusals.counts == {"a row was refused and dropped": 1}
    assert outside.exists() == (what != "huge")
    assert what != "linked folder" or (outside / file.name).read_bytes() == LARGE


# a database that is not diskcache's own


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO Settings VALUES ('disk__directory', '/etc')",
        "INSERT INTO Settings VALUES ('_directory', '/etc')",
        "INSERT INTO Settings VALUES ('reset', 1)",
        "INSERT INTO Settings VALUES ('sqlite_hard_heap_limit', 1)",
        "CREATE TRIGGER mine AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END",
        "CREATE VIEW mine AS SELECT 1",
        "CREATE TABLE mine (x)",
        "DROP TRIGGER Settings_size_insert",
    ],
)
def test_a_database_with_settings_or_a_schema_of_its_own_is_deleted_and_begun_anew(
    tier: ReadThrough, hot: HotTier, statement: str
) -> None:
    name = tier.put_blob(Domain.BYTES, LARGE)
    hot.close()
    with contextlib.closing(sqlite3.connect(hot.folder / "cache.db")) as connection, connection:
        connection.execute(statement)
    fresh = again(hot)
    found = fresh.get(name)
    if statement.startswith("DROP"):  # diskcache puts back what is missing
        assert found is not None
    else:
        assert found is None
        assert fresh.refusals.counts == {"a cache database was refused and deleted": 1}
        assert not list(fresh.folder.rglob("*.val"))
    through = ReadThrough(tier.remote, fresh)
    assert through.blob(name) == (Domain.BYTES, LARGE)
    assert fresh.get(name) is not None
    fresh.close()


def test_stock_diskcache_sets_what_its_database_says() -> None:
    """The proof that the settings above are an attack: SQLite is out of memory in the whole process."""
    program = """
import sqlite3, sys, tempfile, diskcache
folder = tempfile.mkdtemp()
diskcache.Cache(folder).close()
with sqlite3.connect(folder + "/cache.db") as connection:
    connection.execute("INSERT INTO Settings VALUES ('sqlite_hard_heap_limit', 1)")
try:
    diskcache.Cache(folder)
except Exception: pass
try:
    sqlite3.connect(":memory:").execute("CREATE TABLE x (y)")
except (MemoryError, sqlite3.Error) as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "MemoryError"


def test_settings_and_sizes_of_the_database_do_not_undo_the_bound(hot: HotTier) -> None:
    hot.put(NAME, LARGE)
    poison(hot, "UPDATE Settings SET value = 1 << 50 WHERE key = 'size_limit'")
    poison(hot, "UPDATE Settings SET value = 'none' WHERE key = 'eviction_policy'")
    poison(hot, "UPDATE Settings SET value = -1 << 50 WHERE key = 'size'")
    poison(hot, "UPDATE Cache SET size = -1 << 50")
    fresh = again(hot)
    for number in range(200):
        fresh.put(Digest(os.urandom(32)), number.to_bytes(4, "big") * 10_000)
    fresh.close()
    assert sum(path.stat().st_size for path in fresh.folder.rglob("*") if path.is_file()) < hot.limit_bytes * 1.1
    assert not fresh.refusals.counts


@pytest.mark.parametrize("damage", [b"", b"not a database" * 1000, None])
def test_a_corrupt_database_falls_back_to_the_remote_and_is_made_anew(
    tier: ReadThrough, hot: HotTier, damage: bytes | None
) -> None:
    name = tier.put_blob(Domain.BYTES, LARGE)
    hot.close()
    database = hot.folder / "cache.db"
    if damage is None:
        raw = bytearray(database.read_bytes())
        raw[200:] = os.urandom(len(raw) - 200)
        damage = bytes(raw)
    database.write_bytes(damage)
    assert tier.blob(name) == (Domain.BYTES, LARGE)  # the same process, which had it open before
    through = ReadThrough(tier.remote, again(hot))
    assert through.hot is not None
    assert through.blob(name) == (Domain.BYTES, LARGE)
    assert through.hot.get(name) is not None
    through.hot.close()


@pytest.mark.parametrize("companion", ["cache.db", "cache.db-journal", "cache.db-wal"])
@pytest.mark.parametrize("how", ["link", "second name"])
def test_a_database_that_is_a_link_to_another_is_not_followed(tmp_path: Path, companion: str, how: str) -> None:
    mine = tmp_path / "mine.sqlite"
    with contextlib.closing(sqlite3.connect(mine)) as connection, connection:
        connection.execute("CREATE TABLE precious (x)")
    before = mine.read_bytes()
    folder = tmp_path / "hot"
    folder.mkdir(mode=0o700)
    (folder / companion).symlink_to(mine) if how == "link" else (folder / companion).hardlink_to(mine)
    hot = HotTier(folder)
    hot.put(NAME, LARGE)
    assert hot.get(NAME) == LARGE
    hot.close()
    assert mine.read_bytes() == before


def test_a_journal_beside_the_database_is_not_played_back(hot: HotTier) -> None:
    """SQLite deletes the file that a journal names as its super-journal."""
    hot.put(NAME, LARGE)
    hot.close()
    (hot.folder / "cache.db-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(504))
    fresh = again(hot)
    assert fresh.get(NAME) is None
    assert fresh.refusals.counts == {"a cache database was refused and deleted": 1}
    fresh.close()


def test_a_folder_that_others_can_write_to_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "cache.db").write_bytes(b"theirs")
    with pytest.raises(StoreError, match="can be written to by others"):
        HotTier(folder)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="no hot tier can be kept"):
        HotTier(tmp_path / "file" / "below")
    assert (folder / "cache.db").read_bytes() == b"theirs"


def test_wiping_deletes_the_cache_and_nothing_else(hot: HotTier, tmp_path: Path) -> None:
    outside = tmp_path / "ab" / "cd" / f"{'0' * 28}.val"
    outside.parent.mkdir(parents=True)
    outside.write_bytes(b"mine")
    hot.put(NAME, LARGE)
    hot.close()
    (hot.folder / "notes.txt").write_bytes(b"mine")
    (hot.folder / "ab").symlink_to(outside.parent.parent)
    disk.wipe(hot.folder)
    assert outside.exists()
    assert sorted(path.name for path in hot.folder.iterdir()) == ["ab", "notes.txt", "opening.lock"]


def test_only_bytes_go_in() -> None:
    safe = disk.SafeDisk("/nonexistent")
    for key in ("text", 7, None, ("a",), bytearray(b"x")):
        with pytest.raises(disk.Refused):
            safe.put(key)
        with pytest.raises(disk.Refused):
            safe.store(key, False)
    with pytest.raises(disk.Refused):
        safe.store(b"", True)
