"""Digests: the names of immutable content.

A digest is BLAKE3-256 over bytes, in one *domain* for each encoding of bytes (never for each kind of thing), so a
text has one digest whether it stands in a row field, a document or a chunk. The printed form is ``b3:`` + 64 hex.

    >>> str(text_digest("clew"))[:14] + "..."
    'b3:3aaed354156...'
    >>> digest(Domain.TEXT, b"clew") == text_digest("clew")
    True
    >>> digest(Domain.BYTES, b"clew") == text_digest("clew")
    False
"""

from __future__ import annotations

import enum
from typing import Self

from blake3 import blake3

HEX_LENGTH = 64
_HEX = frozenset("0123456789abcdefABCDEF")


class Domain(enum.IntEnum):
    """What the hashed bytes are an encoding of. The numbers stand in logs: append, never renumber."""

    TEXT = 1  # UTF-8 of a text, not normalised, lone surrogates kept
    VALUE = 2  # canonical encoding of a value (encoding.py)
    BYTES = 3  # bytes as they are, such as a file's
    TENSOR = 4  # header (dtype, shape) and raw elements
    TREE = 5  # a Merkle node over named or numbered children
    CHAIN = 6  # one link of a list: previous link and item (chain.py)
    ACTION = 7  # the key of one boundary call


TEXT, VALUE, CHAIN = Domain.TEXT, Domain.VALUE, Domain.CHAIN  # `Domain.TEXT` costs ten times as much before Python 3.12
DOMAINS = {int(domain): domain for domain in Domain}  # `Domain(n)` costs ten times as much
_HASHER = {domain: blake3(derive_key_context=f"clew 2026 {domain.name.lower()} v1") for domain in Domain}


class Digest(bytes):
    """32 bytes that name content. Prints, parses and sorts as ``b3:<64 hex>``."""

    __slots__ = ()

    def __str__(self) -> str:
        return "b3:" + self.hex()

    def __repr__(self) -> str:
        return f"Digest('{self}')"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The digest printed as `text`, with or without its ``b3:``. ValueError if it is not 64 hex digits."""
        hexed = text.removeprefix("b3:")
        if len(hexed) != HEX_LENGTH or not set(hexed) <= _HEX:
            raise ValueError(f"{text!r} is not a digest: expected b3: and {HEX_LENGTH} hex digits")
        return cls(bytes.fromhex(hexed))


def digest(domain: Domain, data: bytes | bytearray | memoryview) -> Digest:
    """The digest of `data` in `domain`."""
    return Digest(raw_digest(domain, data))


def raw_digest(domain: Domain, data: bytes | bytearray | memoryview) -> bytes:
    """The 32 bytes of `digest`: what is kept by the thousand is no object that the garbage collector visits."""
    hasher = _HASHER[domain].copy()  # deriving the key anew costs as much as hashing a short text
    hasher.update(data)
    return hasher.digest()


def text_bytes(text: str) -> bytes:
    """The UTF-8 of a text. Lone surrogates survive, so that distinct texts have distinct bytes."""
    return text.encode("utf-8", "surrogatepass")


def text_of(data: bytes) -> str:
    """Inverse of `text_bytes`."""
    return data.decode("utf-8", "surrogatepass")


def text_digest(text: str) -> Digest:
    """The digest of a text."""
    return digest(TEXT, text_bytes(text))


class DigestStream:
    """A digest computed piece by piece, for content that does not fit in memory."""

    def __init__(self, domain: Domain) -> None:
        self._hasher = _HASHER[domain].copy()

    def update(self, piece: bytes | memoryview) -> None:
        """Append `piece`."""
        self._hasher.update(piece)

    def digest(self) -> Digest:
        """The digest of all pieces so far."""
        return Digest(self._hasher.digest())


def storable(text: str) -> str:
    """`text` as every part of the store can hold it: what has no UTF-8, and NUL, become escapes."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
