"""What is asked in a replay, and what is known of it."""

from __future__ import annotations

from typing import NamedTuple

from clew.replay.playback.order import PATIENCE_S
from clew.replay.recording.recording import Place, Turn
from clew.replay.recording.request import Request
from clew.store.record import Answer


class Asked(NamedTuple):
    """One thing that is asked in a replay: where, for which time, and what was recorded for it."""

    request: Request
    place: Place
    occurrence: int
    turn: Turn  # of all that is asked of this kind at this place
    found: Answer | None


class Pending(NamedTuple):
    """What was recorded of a call that the program gave up: it waited so long."""

    asked: list[Asked]
    seconds: float
    why: str


class Served(NamedTuple):
    """What a call is answered with."""

    asked: list[Asked]
    batch: bool


def waited(entry: Answer) -> float:
    """For how long the recorded program waited for what it gave up, in seconds, and a little more."""
    return (entry.ended_ns - entry.started_ns) / 1e9 + PATIENCE_S
