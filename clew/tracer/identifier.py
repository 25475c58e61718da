"""Trace and span ids from the operating system's randomness, out of reach of `random.seed()`."""

from __future__ import annotations

import os

from opentelemetry.sdk.trace import id_generator

_ZERO = frozenset((bytes(8), bytes(16)))


def new_id(size: int) -> bytes:
    """`size` random bytes, never all zero."""
    while (made := os.urandom(size)) in _ZERO:
        pass
    return made


class IdGenerator(id_generator.IdGenerator):
    """Never zero, safe after a fork. The SDK's own draws from `random`, so a seeded program repeats its trace ids."""

    def generate_span_id(self) -> int:
        return int.from_bytes(new_id(8), "big")

    def generate_trace_id(self) -> int:
        return int.from_bytes(new_id(16), "big")

    def is_trace_id_random(self) -> bool:
        return True
