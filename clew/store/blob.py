"""Blobs: immutable bytes by digest. Small ones stand in the log; those above 1 MB are one file each, written whole.

A file is compressed if it is text or a value; its first byte says so. Reads verify; what does not have the digest it is
named by is moved to `quarantine/` and is a named error.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

from clew.store.digest import Digest, Domain, digest
from clew.store.errors import CorruptBlob, StoreUnwritable
from clew.store.segment import zstd

FILE_BYTES = 1 << 20
_RAW, _ZSTD = b"\0", b"\1"


def file_path(folder: Path, name: Digest) -> Path:
    """Where the file of a blob stands."""
    hexed = name.hex()
    return folder / hexed[:2] / hexed


def write_file(folder: Path, domain: Domain, name: Digest, data: bytes) -> None:
    """Store a large blob: durable before its name exists. Storing it again does nothing."""
    path = file_path(folder, name)
    if path.exists():
        with contextlib.suppress(OSError):
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # accessed: gc takes it for young
        return
    packed = _ZSTD + zstd.compress(data, 3) if domain in (Domain.TEXT, Domain.VALUE) else _RAW + data
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(bytes((domain,)))
            file.write(packed)
            file.flush()
            os.fdatasync(file.fileno())
        os.rename(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreUnwritable(f"cannot store a blob of {len(data)} bytes: {error.strerror}") from error


def read_file(folder: Path, name: Digest) -> tuple[Domain, bytes] | None:
    """Domain and bytes of a large blob; None if there is none."""
    try:
        raw = file_path(folder, name).read_bytes()
    except FileNotFoundError:
        return None
    try:
        if raw[1:2] not in (_RAW, _ZSTD):
            raise ValueError("its form is unknown")
        return Domain(raw[0]), zstd.decompress(raw[2:]) if raw[1:2] == _ZSTD else raw[2:]
    except (ValueError, LookupError, zstd.ZstdError) as error:
        raise CorruptBlob(f"{name}: its file is damaged ({error})") from error


def verified(name: Digest, domain: Domain, data: bytes) -> bytes:
    """`data`, if it has the digest it is named by; CorruptBlob otherwise."""
    found = digest(domain, data)
    if found != name:
        raise CorruptBlob(f"{name}: the stored bytes have the digest {found}; see `clew doctor`")
    return data
