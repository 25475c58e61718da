"""Identifiers that clew makes: random, and ordered by time where they name runs."""

from __future__ import annotations

import os
import time


def uuid7() -> bytes:
    """16 bytes of a UUIDv7 (RFC 9562): milliseconds since 1970, then random. Not moved by `random.seed`."""
    raw = bytearray((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10))
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)
