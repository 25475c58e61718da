"""Random values of a run that has a seed: derived from it and from where they are drawn, below the run's root."""

from __future__ import annotations

from blake3 import blake3

from clew.replay.ambient.activation import Ambient
from clew.tracer import branch, context
from clew.tracer.span import OpenSpan

_CONTEXT = "clew 2026 run seed v1"


def derived(seed: int, root: OpenSpan) -> Ambient:
    """What to enter while the run is open; `root` is its root."""

    def place() -> str:
        span = context.enclosing()
        path = "" if span is None else span.path
        return ("" if path == root.path else path.removeprefix(f"{root.path}/")) + branch.place(path)

    def holds() -> bool:
        span = context.enclosing()
        return span is None or span.run.is_within(root.run)

    return Ambient(seed_bytes(seed), place=place, holds=holds)


def seed_bytes(seed: int | str) -> bytes:
    """A seed as what values are derived from; a run without one has its id."""
    return blake3(f"{type(seed).__name__} {seed}".encode(), derive_key_context=_CONTEXT).digest()
