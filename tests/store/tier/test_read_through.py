"""The hot tier before a remote: what was read once is read without it, bounded, verified, by many at once."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clew.store.digest import Digest, Domain, digest, text_digest
from clew.store.errors import CorruptBlob, MissingExtra, RemoteUnavailable
from clew.store.remote import Remote
from clew.store.tier import HotTier, ReadThrough
from tests.store.tier.bed import LARGE, NAME, SMALL, blob_path, disk

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
