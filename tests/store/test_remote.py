"""Blobs and actions of many machines: held to their digest and signature, bounded, and never a path from data."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clew.store import remote as remote_file
from clew.store.bucket import Bucket
from clew.store.digest import Digest, Domain, digest, text_digest
from clew.store.errors import CorruptBlob, MissingExtra, RemoteUnavailable, StoreError, StoreUnwritable
from clew.store.remote import Action, Remote
from clew.store.segment import zstd

pytest.importorskip("obstore", reason="obstore is not installed: the remote tier was NOT tested (pip install clew[s3])")

TOKEN = "a secret of this test alone, the same in its processes"
KEY = digest(Domain.ACTION, b"a call")
TEXT = b"a long text " * 1000


def at(folder: Path, **settings: object) -> Remote:
    return Remote(folder.as_uri(), token=TOKEN, **settings)  # type: ignore[arg-type]


@pytest.fixture(params=["folder", "memory"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    """An empty remote on each store that obstore has without a network."""
    return at(tmp_path / "bucket") if request.param == "folder" else Remote("memory://", token=TOKEN)


def blob_path(folder: Path, name: Digest) -> Path:
    return folder / "cas" / name.hex()[:2] / name.hex()


def action_path(folder: Path, key: bytes = KEY) -> Path:
    return folder / "ac" / key.hex()


# blobs


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=5000), domain=st.sampled_from(list(Domain)))
def test_every_blob_comes_back_as_it_was_put(remote: Remote, data: bytes, domain: Domain) -> None:
    name = remote.put_blob(domain, data)
    assert name == digest(domain, data)
    assert remote.blob(name) == (domain, data)


def test_what_is_not_there_is_none(remote: Remote) -> None:
    assert remote.blob(text_digest("never put")) is None
    assert remote.action(KEY) is None


def test_the_layout_is_two_folders_of_hex_names_and_texts_are_compressed(tmp_path: Path) -> None:
    remote = at(tmp_path)
    name = remote.put_blob(Domain.TEXT, TEXT)
    remote.put_action(KEY, b"answer", blobs=[name])
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == [f"ac/{KEY.hex()}", f"cas/{name.hex()[:2]}/{name.hex()}"]
    assert blob_path(tmp_path, name).stat().st_size < len(TEXT) // 10


@pytest.mark.parametrize("domain", [Domain.TEXT, Domain.BYTES])
@pytest.mark.parametrize("at_byte", [0, 1, 2, 20, -1])
def test_a_flipped_byte_is_a_corrupt_blob_and_the_next_put_repairs_it(
    tmp_path: Path, domain: Domain, at_byte: int
) -> None:
    remote = at(tmp_path)
    data = TEXT + os.urandom(64).hex().encode()
    name = remote.put_blob(domain, data)
    path = blob_path(tmp_path, name)
    damaged = bytearray(path.read_bytes())
    damaged[at_byte] ^= 0x55
    path.write_bytes(damaged)
    with pytest.raises(CorruptBlob, match=str(name)):
        remote.blob(name)
    assert remote.refusals.counts["a blob is corrupt"] == 1
    remote.put_blob(domain, data)
    assert remote.blob(name) == (domain, data)


def test_another_blob_in_its_place_is_corrupt(tmp_path: Path) -> None:
    remote = at(tmp_path)
    name, other = remote.put_blob(Domain.BYTES, b"asked for"), remote.put_blob(Domain.BYTES, b"planted")
    blob_path(tmp_path, name).write_bytes(blob_path(tmp_path, other).read_bytes())
    with pytest.raises(CorruptBlob):
        remote.blob(name)


@pytest.mark.parametrize("packed", [b"", b"\3", b"\3\0", b"\xff\0abc", b"\3\7abc", b"\1\1not zstd", b"\1\1"])
def test_what_is_no_blob_at_all_is_corrupt(tmp_path: Path, packed: bytes) -> None:
    remote = at(tmp_path)
    name = remote.put_blob(Domain.TEXT, TEXT)
    blob_path(tmp_path, name).write_bytes(packed)
    with pytest.raises(CorruptBlob):
        remote.blob(name)


def test_an_empty_object_which_a_power_cut_leaves_is_put_again(tmp_path: Path) -> None:
    name = at(tmp_path).put_blob(Domain.TEXT, TEXT)
    blob_path(tmp_path, name).write_bytes(b"")
    at(tmp_path).put_blob(Domain.TEXT, TEXT)  # of another process, which has not seen it
    assert at(tmp_path).blob(name) == (Domain.TEXT, TEXT)


def test_putting_again_does_not_write_again(tmp_path: Path) -> None:
    name = at(tmp_path).put_blob(Domain.BYTES, b"once")
    before = blob_path(tmp_path, name).stat().st_ino
    at(tmp_path).put_blob(Domain.BYTES, b"once")
    assert blob_path(tmp_path, name).stat().st_ino == before


def test_a_compressed_bomb_is_refused_without_being_held() -> None:
    """In a process of its own, whose peak of memory is the test: 32 KB hold 1 GB."""
    program = """
import resource, sys
from clew.store.bucket import Bucket
from clew.store.digest import Domain, digest
from clew.store.errors import CorruptBlob
from clew.store.remote import Remote
from clew.store.segment import zstd
remote = Remote("memory://", unsigned=True, limit_bytes=1 << 20)
name = digest(Domain.TEXT, b"small")
pieces = zstd.ZstdCompressor(level=3)
bomb = b"".join(pieces.compress(bytes(1 << 20)) for _ in range(1 << 10)) + pieces.flush()
remote._bucket.write(f"cas/{name.hex()[:2]}/{name.hex()}", b"\\1\\1" + bomb)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    remote.blob(name)
except CorruptBlob as error:
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(len(bomb), grown, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    size, grown, said = done.stdout.split(maxsplit=2)
    assert int(size) < 100_000
    assert int(grown) < 40_000, "KB"
    assert "more than 1048576 bytes" in said


def test_a_window_above_ours_and_a_second_frame_are_refused(tmp_path: Path) -> None:
    remote = at(tmp_path)
    name = remote.put_blob(Domain.TEXT, TEXT)
    wide = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    for content in (
        wide.compress(TEXT) + wide.flush(),
        zstd.compress(TEXT) + zstd.compress(b"more"),
        zstd.compress(TEXT)[:-3],
    ):
        blob_path(tmp_path, name).write_bytes(b"\1\1" + content)
        with pytest.raises(CorruptBlob):
            remote.blob(name)


def test_an_object_above_the_limit_is_not_fetched(tmp_path: Path) -> None:
    remote = at(tmp_path, limit_bytes=1000)
    name = remote.put_blob(Domain.BYTES, b"small")
    os.truncate(blob_path(tmp_path, name), 1 << 40)  # a hole: reading it would end this test
    with pytest.raises(CorruptBlob, match="more than 1002 bytes"):
        remote.blob(name)
    planted(tmp_path, b"")
    os.truncate(action_path(tmp_path), 1 << 40)
    assert remote.action(KEY) is None
    assert remote.refusals.counts == {"a blob is corrupt": 1, "an action is too large": 1}


def test_what_is_above_the_limit_is_not_put_either(tmp_path: Path) -> None:
    remote = at(tmp_path, limit_bytes=100)
    with pytest.raises(StoreUnwritable, match="a blob of 101 bytes"):
        remote.put_blob(Domain.TEXT, bytes(101))
    with pytest.raises(StoreUnwritable, match="use blobs"):
        remote.put_action(KEY, bytes(remote_file.ACTION_BYTES))
    assert list(tmp_path.rglob("*")) == []


# actions


def test_an_action_comes_back_with_the_digests_of_its_blobs(remote: Remote) -> None:
    name = remote.put_blob(Domain.TEXT, TEXT)
    put = remote.put_action(KEY, b"answer", blobs=[name])
    assert put == remote.action(KEY) == Action(blobs=[name], data=b"answer")


def test_an_action_is_created_once_and_who_comes_second_gets_what_stands(remote: Remote) -> None:
    remote.put_action(KEY, b"first")
    assert remote.put_action(KEY, b"second").data == b"first"
    assert remote.action(KEY) == Action(blobs=[], data=b"first")


def test_blobs_come_before_their_action(remote: Remote) -> None:
    with pytest.raises(StoreError, match="put an action's blobs before it"):
        remote.put_action(KEY, b"answer", blobs=[text_digest("not put")])
    assert remote.action(KEY) is None


def test_an_action_whose_blob_is_gone_is_a_miss_and_gives_way_to_a_new_one(tmp_path: Path) -> None:
    remote = at(tmp_path)
    kept, gone = remote.put_blob(Domain.TEXT, b"kept"), remote.put_blob(Domain.TEXT, b"gone")
    remote.put_action(KEY, b"old", blobs=[kept, gone])
    blob_path(tmp_path, gone).unlink()
    assert remote.action(KEY) is None
    assert at(tmp_path).put_action(KEY, b"new", blobs=[kept]).data == b"new"
    assert remote.action(KEY) == Action(blobs=[kept], data=b"new")


def planted(folder: Path, raw: bytes) -> None:
    action_path(folder).parent.mkdir(exist_ok=True, parents=True)
    action_path(folder).write_bytes(raw)


def signed_elsewhere(folder: Path, key: bytes = KEY, **settings: str | bool) -> bytes:
    """The object of an action that another writer of the bucket made."""
    aside = folder.with_name("aside")
    Remote(aside.as_uri(), **settings).put_action(key, b"planted")  # type: ignore[arg-type]
    return action_path(aside, key).read_bytes()


def test_only_an_action_signed_with_the_token_and_for_its_key_is_a_hit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "bucket"
    remote, other = at(folder), digest(Domain.ACTION, b"another call")
    genuine = signed_elsewhere(folder, token=TOKEN)
    attacks = {
        "an action is unsigned": signed_elsewhere(folder.with_name("x") / "y", unsigned=True),
        "an action is wrongly signed": signed_elsewhere(folder.with_name("z") / "y", token="guessed" * 5),
        "of another key": signed_elsewhere(folder, other, token=TOKEN),
        "changed": genuine[:-1] + b"X",
        "an action is malformed": b"",
        "format": b"\2" + genuine[1:],
        "short": genuine[:20],
    }
    with caplog.at_level(logging.WARNING, "clew"):
        for raw in attacks.values():
            planted(folder, raw)
            assert remote.action(KEY) is None
        planted(folder, genuine)
        assert remote.action(KEY) == Action(blobs=[], data=b"planted")
    assert remote.refusals.counts == {
        "an action is unsigned": 1,
        "an action is wrongly signed": 3,
        "an action is malformed": 3,
    }
    assert len(caplog.records) == 3, "each reason is said once"
    assert TOKEN not in caplog.text + repr(remote)


def test_a_planted_action_does_not_keep_the_key_from_its_owner(tmp_path: Path) -> None:
    planted(tmp_path, b"\1" + bytes(32) + b"\x92\x90\xc4\x01x")
    remote = at(tmp_path)
    assert remote.put_action(KEY, b"mine").data == b"mine"
    assert remote.action(KEY) == Action(blobs=[], data=b"mine")


@pytest.mark.parametrize("signed", [b"", b"\x92", b"\x92\xdd\xff\xff\xff\xff", b"\x92\x91\xc4\x01x\xc4\x01y", b"\xc0"])
def test_an_unsigned_action_that_cannot_be_read_is_a_miss(tmp_path: Path, signed: bytes) -> None:
    remote = Remote(tmp_path.as_uri())
    planted(tmp_path, b"\1" + bytes(32) + signed)
    assert remote.action(KEY) is None
    assert remote.refusals.counts == {"an action is malformed": 1}


def test_without_a_token_only_a_folder_is_taken_unless_it_is_said(tmp_path: Path) -> None:
    for url in ("s3://bucket/prefix", "memory://", "gs://bucket"):
        with pytest.raises(ValueError, match=r"needs token=.*or unsigned=True"):
            Remote(url)
    assert Remote(tmp_path.as_uri()).action(KEY) is None
    assert Remote("memory://", unsigned=True).action(KEY) is None
    with pytest.raises(ValueError, match="exclude each other"):
        Remote("memory://", unsigned=True, token=TOKEN)
    with pytest.raises(ValueError, match="at least 16 bytes") as told:
        Remote("memory://", token="hunter2")
    assert "hunter2" not in str(told.value)


def put_by(url: str, data: bytes, start: object, done: object) -> None:
    remote = Remote(url, token=TOKEN)
    start.wait()  # type: ignore[attr-defined]
    done.put([remote.put_action(digest(Domain.ACTION, bytes([n])), data).data for n in range(50)])  # type: ignore[attr-defined]


def test_of_two_processes_that_put_an_action_at_once_both_get_the_same_one(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    start, done = spawn.Barrier(2), spawn.Queue()
    both = [spawn.Process(target=put_by, args=(tmp_path.as_uri(), data, start, done)) for data in (b"a", b"b")]
    for process in both:
        process.start()
    told = [done.get(timeout=60) for _ in both]
    for process in both:
        process.join()
    assert told[0] == told[1]
    assert told[0] == [at(tmp_path).action(digest(Domain.ACTION, bytes([n]))).data for n in range(50)]  # type: ignore[union-attr]


# names, pipes, links


@pytest.mark.parametrize("key", [b"", b"../../etc/passwd", b"a" * 31, b"a" * 33, b"/etc/hostname".ljust(33, b"/")])
def test_a_key_that_is_not_32_bytes_names_nothing(tmp_path: Path, key: bytes) -> None:
    remote = at(tmp_path)
    for ask in (
        remote.blob,
        remote.action,
        lambda key: remote.put_action(key, b""),
        lambda key: remote.put_action(KEY, b"", blobs=[key]),
    ):
        with pytest.raises(ValueError, match="is not a digest of 32 bytes"):
            ask(key)
    with pytest.raises(TypeError):
        remote.blob("../" * 10 + "ab")  # type: ignore[arg-type]
    assert list(tmp_path.rglob("*")) == []


def test_a_key_of_32_bytes_that_looks_like_a_path_is_printed_as_hex(tmp_path: Path) -> None:
    folder = tmp_path / "bucket"
    at(folder).put_action(b"../../../../../../../tmp/escaped", b"x")
    assert [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()] == [
        f"ac/{b'../../../../../../../tmp/escaped'.hex()}"
    ]


def test_pipes_links_and_folders_in_a_shared_folder_are_a_miss(tmp_path: Path) -> None:
    remote = at(tmp_path)
    name = remote.put_blob(Domain.BYTES, b"content")
    path = blob_path(tmp_path, name)
    moved = path.rename(tmp_path / "moved")
    os.mkfifo(path)
    assert remote.blob(name) is None
    path.unlink()
    path.symlink_to(moved)
    assert remote.blob(name) is None
    path.unlink()
    path.mkdir()
    assert remote.blob(name) is None


def test_nothing_is_written_through_a_linked_folder(tmp_path: Path) -> None:
    remote, outside, name = at(tmp_path / "bucket"), tmp_path / "outside", digest(Domain.TEXT, b"x")
    outside.mkdir()
    (tmp_path / "bucket" / "cas").mkdir()
    (tmp_path / "bucket" / "cas" / name.hex()[:2]).symlink_to(outside)
    (tmp_path / "bucket" / "ac").symlink_to(outside)
    with pytest.raises(RemoteUnavailable, match="is a link"):
        remote.put_blob(Domain.TEXT, b"x")
    with pytest.raises(RemoteUnavailable, match="is a link"):
        remote.put_action(KEY, b"x")
    assert list(outside.iterdir()) == []


# the store cannot be used


def test_a_store_that_does_not_answer_is_a_named_error_without_credentials() -> None:
    remote = Remote(
        "s3://user:hidden@bucket/prefix?secret=hidden",
        token=TOKEN,
        options={
            "endpoint": "http://127.0.0.1:9",
            "access_key_id": "id",
            "secret_access_key": "hidden",
            "region": "us-east-1",
            "client_options": {"allow_http": True},
            "retry_config": {"max_retries": 0},
        },
    )
    for ask in (lambda: remote.blob(KEY), lambda: remote.action(KEY), lambda: remote.put_blob(Domain.TEXT, b"x")):
        with pytest.raises(RemoteUnavailable, match="s3://bucket/prefix") as told:
            ask()
        assert "hidden" not in str(told.value)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("url", ["ftp://host/x", "file://host/x", "az://container"])
def test_an_address_that_is_no_store_is_a_named_error(url: str) -> None:
    with pytest.raises(RemoteUnavailable, match="cannot be used"):
        Remote(url, token=TOKEN)


def test_a_folder_that_cannot_be_written_is_a_named_error(tmp_path: Path) -> None:
    remote = at(tmp_path)
    (tmp_path / "cas").write_bytes(b"")  # a file where the folder should be: refused for root as well
    with pytest.raises(RemoteUnavailable):
        remote.put_blob(Domain.TEXT, b"x")


FORKING = """
import os, sys, time
from clew.store import bucket
from clew.store.digest import Domain
from clew.store.errors import RemoteUnavailable
from clew.store.remote import Remote
remote = Remote(sys.argv[1])
if sys.argv[2] == "ours":
    name = remote.put_blob(Domain.TEXT, b"x")
elif sys.argv[2] == "the program's":
    import obstore
    obstore.put(obstore.store.MemoryStore(), "x", b"x")
    while not bucket._runtime_runs():  # a thread has its name a moment after it has started
        time.sleep(0.001)
if os.fork() == 0:
    try:
        remote.blob(remote.put_blob(Domain.TEXT, b"x"))
        print("used", flush=True)
    except RemoteUnavailable as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
assert remote.blob(remote.put_blob(Domain.TEXT, b"x"))
"""


@pytest.mark.parametrize(
    ("used_by", "said"),
    [("ours", "obstore's threads stayed"), ("the program's", "obstore's threads stayed"), ("nobody", "used")],
)
def test_a_forked_child_is_told_instead_of_waiting_for_ever(tmp_path: Path, used_by: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, tmp_path.as_uri(), used_by],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert said in done.stdout


def test_a_missing_obstore_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("obstore", "obstore.store", "obstore.exceptions"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"pip install 'clew\[s3\]'"):
        at(tmp_path)


def test_a_bucket_reads_writes_and_creates(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path.as_uri())
    assert bucket.read("a/b", limit_bytes=10) is None
    assert bucket.create("a/b", b"one")
    assert not bucket.create("a/b", b"two")
    assert bucket.read("a/b", limit_bytes=3) == b"one"
    bucket.write("a/b", b"three")
    assert bucket.size_bytes("a/b") == 5
