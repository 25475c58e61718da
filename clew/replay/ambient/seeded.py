"""Random values of a run that has a seed: derived from it and from where they are drawn, below the run's root."""

from __future__ import annotations

from blake3 import blake3

from clew.replay.ambient.activation import Ambient
from clew.tracer import branch, context

_CONTEXT = "clew 2026 run seed v1"


def derived(seed: int, root_path: str) -> Ambient:
    """What to enter while the run is open."""

    def place() -> str:
        span = context.enclosing()
        path = "" if span is None else span.path
        return ("" if path == root_path else path.removeprefix(f"{root_path}/")) + branch.place(path)

    return Ambient(seed_bytes(seed), place=place)


def seed_bytes(seed: int | str) -> bytes:
    """A seed as what values are derived from; a run without one has its id."""
    return blake3(f"{type(seed).__name__} {seed}".encode(), derive_key_context=_CONTEXT).digest()
