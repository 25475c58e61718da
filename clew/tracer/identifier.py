"""Trace and span ids, out of reach of `random.seed()`.

A trace id comes from the operating system's randomness. A span id need only differ from those of its own trace, and
there are dozens of them in a run: it is drawn without a system call.
"""

from __future__ import annotations

import os
import random

from opentelemetry.sdk.trace import id_generator

_NOTHING = bytes(16)
_own = random.Random()  # seeds itself from the system; the state that `random.seed` sets is another
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_own.seed)


def new_trace_id() -> bytes:
    """16 random bytes, never all zero."""
    while (made := os.urandom(16)) == _NOTHING:
        pass
    return made


def new_span_id() -> bytes:
    """8 random bytes, never all zero."""
    while not (made := _own.getrandbits(64)):
        pass
    return made.to_bytes(8, "big")


class IdGenerator(id_generator.IdGenerator):
    """Never zero, safe after a fork. The SDK's own draws from `random`, so a seeded program repeats its trace ids."""

    def generate_span_id(self) -> int:
        return int.from_bytes(new_span_id(), "big")

    def generate_trace_id(self) -> int:
        return int.from_bytes(new_trace_id(), "big")

    def is_trace_id_random(self) -> bool:
        return True
