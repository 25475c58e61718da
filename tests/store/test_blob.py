"""Content by digest: small in the log, large as files; what is damaged is named, put aside and never served."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from clew.lineage import index
from clew.store import blob
from clew.store.digest import Digest, Domain, digest, text_digest
from clew.store.errors import CorruptBlob, NotFound, StoreUnwritable
from clew.store.folder import Folder
from clew.store.log import Log, blob_frame
from clew.store.store import Store

LARGE = os.urandom(blob.FILE_BYTES + 1)
TEXT = "a long text " * 100_000


@pytest.fixture
def store(folder: Folder) -> Iterator[Store]:
    with Store(folder) as opened:
        yield opened
    index.forget(folder)


def stored(folder: Folder, domain: Domain, data: bytes) -> Digest:
    name = digest(domain, data)
    blob.write_file(folder.blob, domain, name, data)
    return name


@pytest.mark.parametrize(("domain", "data"), [(Domain.BYTES, LARGE), (Domain.TEXT, TEXT.encode()), (Domain.BYTES, b"")])
def test_a_large_blob_is_one_file_and_read_back_verified(
    folder: Folder, store: Store, domain: Domain, data: bytes
) -> None:
    name = stored(folder, domain, data)
    path = blob.file_path(folder.blob, name)
    assert path.relative_to(folder.blob).parts == (name.hex()[:2], name.hex())
    assert path.stat().st_mode & 0o777 == 0o600
    assert store.blob(name) == (domain, data)


def test_texts_are_compressed_and_other_bytes_are_as_they_are(folder: Folder) -> None:
    text, raw = stored(folder, Domain.TEXT, TEXT.encode()), stored(folder, Domain.BYTES, LARGE)
    assert blob.file_path(folder.blob, text).stat().st_size < len(TEXT) // 100
    assert blob.file_path(folder.blob, raw).stat().st_size == len(LARGE) + 2


def test_storing_again_keeps_the_file(folder: Folder) -> None:
    name = stored(folder, Domain.BYTES, LARGE)
    before = blob.file_path(folder.blob, name).stat().st_ino
    stored(folder, Domain.BYTES, LARGE)
    assert blob.file_path(folder.blob, name).stat().st_ino == before
    assert len(list(blob.file_path(folder.blob, name).parent.iterdir())) == 1


@pytest.mark.parametrize("domain", [Domain.BYTES, Domain.TEXT])
@pytest.mark.parametrize("at", [0, 1, 2, 700, -1])
def test_a_flipped_byte_is_a_corrupt_blob_and_is_quarantined(
    folder: Folder, store: Store, domain: Domain, at: int
) -> None:
    name = stored(folder, domain, TEXT.encode() + os.urandom(64).hex().encode())
    path = blob.file_path(folder.blob, name)
    data = bytearray(path.read_bytes())
    data[at if at < len(data) else len(data) // 2] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(CorruptBlob, match=str(name)):
        store.blob(name)
    assert not path.exists()
    assert (folder.quarantine / name.hex()).exists()
    with pytest.raises(NotFound):  # and is not served from a memory of it
        store.blob(name)


def test_what_the_store_does_not_have_is_named(store: Store) -> None:
    name = text_digest("never stored")
    with pytest.raises(NotFound, match=f"no content for {name}"):
        store.blob(name)


def test_a_blob_that_cannot_be_written_is_a_named_error_and_leaves_nothing(folder: Folder) -> None:
    folder.blob.rmdir()
    folder.blob.write_bytes(b"")  # a file where the folder should be: refused for root as well
    with pytest.raises(StoreUnwritable, match="cannot store a blob of 3 bytes"):
        stored(folder, Domain.BYTES, b"abc")
    assert folder.blob.read_bytes() == b""


def test_a_small_blob_is_read_from_the_log_open_and_sealed(folder: Folder, store: Store) -> None:
    log = Log(folder.log, process_id=b"p" * 16)
    name = text_digest("small")
    log.append([blob_frame(Domain.TEXT, name, b"small")])
    index.index_store(folder)
    assert store.text(name) == "small"
    log.close()
    with Store(folder) as again:
        assert again.text(name) == "small"


@pytest.mark.parametrize("seal", [False, True])
def test_damage_in_the_log_is_a_corrupt_blob(folder: Folder, store: Store, seal: bool) -> None:
    log = Log(folder.log, process_id=b"p" * 16)
    names = [text_digest(str(number)) for number in range(3)]
    for number, name in enumerate(names):
        offset = log.append([blob_frame(Domain.TEXT, name, str(number).encode())])
    stem = log.stem
    assert stem is not None
    index.index_store(folder)
    path = stem.with_name(stem.name + ".log")
    data = bytearray(path.read_bytes())
    data[offset + 20] ^= 1
    path.write_bytes(data)
    log.close(seal=seal)
    with pytest.raises(CorruptBlob, match="no whole BLOB record"):
        store.blob(names[2])
    assert store.text(names[1]) == "1"


def test_content_whose_segment_was_deleted_is_not_found(folder: Folder, store: Store) -> None:
    log = Log(folder.log, process_id=b"p" * 16)
    name = text_digest("gone")
    log.append([blob_frame(Domain.TEXT, name, b"gone")])
    index.index_store(folder)
    log.close()
    for path in folder.log.iterdir():
        path.unlink()
    with pytest.raises(NotFound):
        store.blob(name)
