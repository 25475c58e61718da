"""Identifiers: those that clew makes, which are random and ordered by time where they name runs, and those made anew."""

from __future__ import annotations

import os
import time
import uuid

_MADE_ANEW = frozenset((1, 4, 6, 7))  # versions of UUIDs that hold a time or chance; 3 and 5 are digests


def uuid7() -> bytes:
    """16 bytes of a UUIDv7 (RFC 9562): milliseconds since 1970, then random. Not moved by `random.seed`."""
    raw = bytearray((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10))
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def is_made_anew(name: object) -> bool:
    """Whether a text is a UUID of chance or time, so that two runs that did the same have others.

    >>> is_made_anew("0b6ef7b4-6ab1-4b5e-9a34-2f1ce5a0b2f5"), is_made_anew("d0")
    (True, False)
    """
    if type(name) is not str:
        return False
    try:
        return uuid.UUID(name).version in _MADE_ANEW
    except ValueError:
        return False
