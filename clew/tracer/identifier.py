"""Trace and span ids from the operating system's randomness, out of reach of `random.seed()`."""

from __future__ import annotations

import os

from opentelemetry.sdk.trace import id_generator


class IdGenerator(id_generator.IdGenerator):
    """Never zero, safe after a fork. The SDK's own draws from `random`, so a seeded program repeats its trace ids."""

    def generate_span_id(self) -> int:
        while not (span_id := int.from_bytes(os.urandom(8), "big")):
            pass
        return span_id

    def generate_trace_id(self) -> int:
        while not (trace_id := int.from_bytes(os.urandom(16), "big")):
            pass
        return trace_id

    def is_trace_id_random(self) -> bool:
        return True
