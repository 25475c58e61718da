"""The stored form of an array: what kind of elements it has, its shape, and its elements as they lie in memory."""

from __future__ import annotations

import msgspec


def tensor_bytes(dtype: str, shape: tuple[int, ...], elements: bytes) -> bytes:
    """The stored form of an array: header (numpy dtype string, shape), then its elements in C order."""
    header = msgspec.msgpack.encode([dtype, list(shape)])
    return len(header).to_bytes(4, "big") + header + elements


def tensor_parts(data: bytes) -> tuple[str, tuple[int, ...], bytes]:
    """Inverse of `tensor_bytes`: dtype, shape, elements."""
    end = 4 + int.from_bytes(data[:4], "big")
    dtype, shape = msgspec.msgpack.decode(data[4:end])
    return dtype, tuple(shape), data[end:]
