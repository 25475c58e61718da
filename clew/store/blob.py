"""Blobs: immutable bytes by digest. Small ones stand in the log; those above 1 MB are one file each, written whole.

A file is the domain's byte, the form's byte and the content, compressed if it is text or a value; an object of a remote
is the same. Reads verify; what does not have the digest it is named by is moved to `quarantine/` and is a named error.
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
_WINDOW_LOG = 24  # level 3 writes windows of 2 MB; a hostile frame asks for 128 MB


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
    packed = pack(domain, data)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
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
    return unpack(name, raw)


def pack(domain: Domain, data: bytes) -> bytes:
    """A blob as it stands in a file: domain, form and content."""
    if domain in (Domain.TEXT, Domain.VALUE):
        return bytes((domain,)) + _ZSTD + zstd.compress(data, 3)
    return bytes((domain,)) + _RAW + data


def unpack(name: Digest, packed: bytes, *, limit_bytes: int | None = None) -> tuple[Domain, bytes]:
    """Domain and bytes, not verified yet. CorruptBlob if they are not a blob, or are more than `limit_bytes`."""
    try:
        domain, form, content = Domain(packed[0]), packed[1:2], packed[2:]
        if form not in (_RAW, _ZSTD):
            raise ValueError("its form is unknown")
        if form == _ZSTD:
            return domain, zstd.decompress(content) if limit_bytes is None else _inflate(content, limit_bytes)
        if limit_bytes is not None and len(content) > limit_bytes:
            raise ValueError(f"it has more than {limit_bytes} bytes")
        return domain, content
    except (ValueError, LookupError, zstd.ZstdError) as error:
        raise CorruptBlob(f"{name}: its file is damaged ({error})") from error


def _inflate(content: bytes, limit_bytes: int) -> bytes:
    """What was compressed, never holding more than the limit: a frame of 32 KB can hold 1 GB of zeros."""
    decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
    data = decompressor.decompress(content, max_length=limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ValueError(f"it has more than {limit_bytes} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError("it is not one compressed frame")
    return data


def verified(name: Digest, domain: Domain, data: bytes) -> bytes:
    """`data`, if it has the digest it is named by; CorruptBlob otherwise."""
    found = digest(domain, data)
    if found != name:
        raise CorruptBlob(f"{name}: the stored bytes have the digest {found}; see `clew doctor`")
    return data
