"""Streams of bytes derived from a seed: one for each source of random values, owner of the draw and place.

The bytes are BLAKE3's extended output, so the n-th draw at a place depends on the seed, the place and n, and not on
what other places drew before it.
"""

from __future__ import annotations

import threading

import msgspec
from blake3 import blake3

from clew.store.digest import text_bytes

_HASHER = blake3(derive_key_context="clew 2026 ambient v1")


class Stream:
    """Endless bytes; each call takes the next ones."""

    def __init__(self, seed: bytes, *names: str) -> None:
        self._hasher = _HASHER.copy()
        self._hasher.update(msgspec.msgpack.encode([seed, *map(text_bytes, names)]))
        self._position = 0
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> bytes:
        """The next `size_bytes` bytes."""
        with self._lock:
            position = self._position
            self._position += size_bytes
        return self._hasher.digest(length=size_bytes, seek=position)

    def number(self, size_bytes: int = 32) -> int:
        """The next `size_bytes` bytes as a number."""
        return int.from_bytes(self.take(size_bytes), "big")
