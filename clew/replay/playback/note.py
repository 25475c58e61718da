"""Notes of a certificate: in what an answer that is served may be another one than was given."""

from __future__ import annotations

from collections.abc import Iterator

from clew.replay.recording import failure
from clew.store.record import Answer


def notes_of(entry: Answer) -> Iterator[str]:
    """What is to be said of a recorded answer that is served; each follows on "KIND NAME was "."""
    if entry.loose:
        yield f"found by what can be seen of it: {entry.loose}"
    if entry.redacted:
        yield "served without a credential that its answer held"
    if entry.error and (lost := failure.lost(entry.error)):
        yield f"served a failure without what could not be kept of it: {', '.join(lost)}"
