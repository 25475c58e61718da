"""The hot tier before a remote: bounded, verified, and not to be turned against its user by whoever wrote its database."""

from __future__ import annotations

import contextlib
import os
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clew.store.digest import Digest, Domain, digest, text_digest
from clew.store.errors import CorruptBlob, MissingExtra, RemoteUnavailable, StoreError
from clew.store.remote import Remote
from clew.store.tier import HotTier, ReadThrough

diskcache = pytest.importorskip(
    "diskcache", reason="diskcache is not installed: the hot tier was NOT tested (pip install clew[hot-tier])"
)
pytest.importorskip("obstore", reason="obstore is not installed: the hot tier was NOT tested (pip install clew[s3])")
disk = pytest.importorskip("clew.store.disk")

LARGE = os.urandom(40_000)  # stands in a file of the cache
SMALL = b"small"  # stands in its database
NAME = digest(Domain.BYTES, LARGE)


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    return tmp_path / "bucket"


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[HotTier]:
    made = HotTier(tmp_path / "hot", limit_bytes=4 << 20)
    yield made
    made.close()


@pytest.fixture
def tier(bucket: Path, hot: HotTier) -> ReadThrough:
    return ReadThrough(Remote(bucket.as_uri()), hot)


def blob_path(bucket: Path, name: Digest) -> Path:
    return bucket / "cas" / name.hex()[:2] / name.hex()


def poison(hot: HotTier, statement: str, *values: object) -> None:
    """Change the cache's database as somebody who can write to it may."""
    hot.close()
    with contextlib.closing(sqlite3.connect(hot.folder / "cache.db")) as connection, connection:
        assert connection.execute(statement, values).rowcount != 0


def again(hot: HotTier) -> HotTier:
    """The same folder, as the next process opens it."""
    hot.close()
    return HotTier(hot.folder, limit_bytes=hot.limit_bytes)


# read through, write through


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=70_000), domain=st.sampled_from(list(Domain)))
def test_every_blob_comes_back_from_the_hot_tier_and_from_the_remote(
    tier: ReadThrough, data: bytes, domain: Domain
) -> None:
    name = tier.put_blob(domain, data)
    assert name == digest(domain, data)
    assert tier.blob(name) == tier.remote.blob(name) == (domain, data)


@pytest.mark.parametrize("data", [SMALL, LARGE])
def test_what_was_read_once_is_read_without_the_remote(tier: ReadThrough, bucket: Path, data: bytes) -> None:
    name = tier.remote.put_blob(Domain.BYTES, data)
    assert tier.blob(name) == (Domain.BYTES, data)
    blob_path(bucket, name).unlink()
    assert tier.blob(name) == (Domain.BYTES, data)
    assert tier.blob(text_digest("never put")) is None


def test_a_put_that_the_remote_did_not_take_is_not_kept(tier: ReadThrough, bucket: Path) -> None:
    (bucket / "cas").write_bytes(b"")
    with pytest.raises(RemoteUnavailable):
        tier.put_blob(Domain.BYTES, LARGE)
    assert tier.hot is not None
    assert tier.hot.get(NAME) is None


def test_corrupt_in_the_hot_tier_is_read_from_the_remote_and_corrupt_there_is_an_error(
    tier: ReadThrough, hot: HotTier, bucket: Path
) -> None:
    name = tier.put_blob(Domain.BYTES, LARGE)
    (file,) = hot.folder.rglob("*.val")
    file.write_bytes(b"\3\0" + b"X" * len(LARGE))
    assert tier.blob(name) == (Domain.BYTES, LARGE)
    assert hot.refusals.counts == {"a kept blob was corrupt": 1}
    assert tier.blob(name) == (Domain.BYTES, LARGE)
    assert hot.refusals.counts == {"a kept blob was corrupt": 1}, "it was replaced"
    hot.drop(name, "test")
    blob_path(bucket, name).write_bytes(b"\3\0X")
    with pytest.raises(CorruptBlob):
        tier.blob(name)
    assert hot.get(name) is None


def test_actions_go_straight_to_the_remote(tier: ReadThrough) -> None:
    key, name = digest(Domain.ACTION, b"call"), tier.put_blob(Domain.BYTES, LARGE)
    assert tier.put_action(key, b"answer", blobs=[name]) == tier.remote.action(key) == tier.action(key)


def test_without_a_hot_tier_the_remote_answers_and_diskcache_is_not_needed(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diskcache", None)
    monkeypatch.delitem(sys.modules, "clew.store.disk")
    monkeypatch.delattr("clew.store.disk")
    tier = ReadThrough(Remote(bucket.as_uri()))
    assert tier.blob(tier.put_blob(Domain.BYTES, LARGE)) == (Domain.BYTES, LARGE)
    with pytest.raises(MissingExtra, match=r"pip install 'clew\[hot-tier\]'"):
        HotTier(tmp_path / "hot")


# the bound


def test_the_bound_holds_on_disk_and_nothing_outside_the_folder_is_deleted(hot: HotTier, tmp_path: Path) -> None:
    beside = tmp_path / "ab" / "cd" / f"{'0' * 28}.val"
    beside.parent.mkdir(parents=True)
    beside.write_bytes(b"mine")
    for number in range(400):  # 16 MB of files and as many rows, through 4 MB
        data = number.to_bytes(4, "big") * 10_000
        hot.put(digest(Domain.BYTES, data), data)
        for _ in range(3):
            hot.put(Digest(os.urandom(32)), os.urandom(900))
    used = sum(path.stat().st_size for path in hot.folder.rglob("*.val"))
    used += (hot.folder / "cache.db").stat().st_size
    assert 1 << 20 < used <= hot.limit_bytes
    assert hot.get(digest(Domain.BYTES, data)) == data, "the last is kept"
    assert beside.read_bytes() == b"mine"
    assert not hot.refusals.counts


def test_a_value_above_a_quarter_of_the_bound_does_not_push_the_rest_out(hot: HotTier) -> None:
    hot.put(NAME, LARGE)
    hot.put(text_digest("large"), bytes(hot.limit_bytes // 4 + 1))
    assert hot.get(text_digest("large")) is None
    assert hot.get(NAME) == LARGE


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


# threads, processes, forks


def test_threads_and_processes_share_one_hot_tier(hot: HotTier) -> None:
    datas = [number.to_bytes(4, "big") * 300 for number in range(40)]

    def work(data: bytes) -> bool:
        name = digest(Domain.BYTES, data)
        hot.put(name, data)
        return hot.get(name) == data

    program = f"""
import sys
from clew.store.digest import Digest
from clew.store.tier import HotTier
hot = HotTier(sys.argv[1], limit_bytes={hot.limit_bytes})
for number in range(100):
    hot.put(Digest(number.to_bytes(32, "big")), bytes(1000))
assert not hot.refusals.counts, hot.refusals.counts
"""
    other = subprocess.Popen([sys.executable, "-c", program, str(hot.folder)])
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, datas * 5))
    assert other.wait(60) == 0
    assert hot.get(Digest((99).to_bytes(32, "big"))) == bytes(1000)
    assert not hot.refusals.counts


FORKING = """
import os, sys, threading
from clew.store.digest import Digest
from clew.store.tier import HotTier
hot, name, stop = HotTier(sys.argv[1]), Digest(bytes(32)), threading.Event()
hot.put(name, b"before")
def work():
    while not stop.is_set():
        hot.put(Digest(os.urandom(32)), bytes(5000))
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for number in range(10):
    child = os.fork()
    if child == 0:
        mine = Digest(number.to_bytes(32, "little"))
        good = hot._cache is not None and hot._cache._one_connection is None and hot.get(name) == b"before"
        hot.put(mine, b"child")
        os._exit(0 if good and hot.get(mine) == b"child" and not hot.refusals.counts else 1)
    assert os.waitpid(child, 0)[1] == 0, number
    name = Digest(number.to_bytes(32, "little"))
    hot.put(name, b"before")
stop.set()
for thread in threads: thread.join()
print(hot.get(name), dict(hot.refusals.counts))
"""


def test_a_forked_child_opens_the_cache_anew_while_threads_of_its_parent_use_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path / "hot")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout.strip(), done.stderr) == ("b'before' {}", "")


def test_a_busy_cache_is_a_miss(hot: HotTier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "BUSY_SECONDS", 0.1)
    hot.put(NAME, LARGE)
    hot.close()
    with contextlib.closing(sqlite3.connect(hot.folder / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        hot.put(text_digest("x"), LARGE)
        assert hot.get(NAME) == LARGE, "readers do not wait for a writer"
    assert hot.refusals.counts == {"the cache database failed": 1}
    assert hot.get(text_digest("x")) is None
