"""What one activation derives: a stream or generator for each source, owner and place; and what it has seen drawn."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from clew.replay.ambient.caller import PROJECT, asker_of, owner_of
from clew.replay.ambient.stream import Stream

T = TypeVar("T")

ACTIVE: list[Draws] = []  # the newest is the last
_PROCESS = "the process"


class Draws:
    """`counts` has the program's own draws under their source and others' under `SOURCE by NAME`; `unseen` what was
    used and is not derived; `own` the sources that the program seeded itself. `holds()` says whether what runs here is
    part of it."""

    def __init__(self, seed: bytes, place: Callable[[], str], holds: Callable[[], bool] = lambda: True) -> None:
        self.counts: dict[str, int] = {}
        self.unseen: dict[str, None] = {}
        self.own: set[str] = set()
        self.saved: dict[str, Any] = {}  # by source: the state of the real generators before this
        self.base: dict[str, Any] = {}  # by source: the state that they were given instead
        self.holds = holds
        self._seed = seed
        self._place = place
        self._made: dict[tuple[str, str, str], tuple[Any, str]] = {}
        self._forks = 0
        self._lock = threading.Lock()

    def at(self, source: str, frame: FrameType | None, make: Callable[[Stream], T], *, counts: bool = True) -> T | None:
        """What `make` made for this place and whose draw it is; None where the draw has to stay truly random."""
        owner = owner_of(frame)
        if owner is None:
            return None
        key = source, owner, self._place()
        found = self._made.get(key)
        if found is None:
            label = source if owner == PROJECT else f"{source} by {owner}"
            made = make(Stream(self._seed, *key)), label
            found = self._made.setdefault(key, made)
        if counts:
            self.count(found[1])
        return found[0]  # type: ignore[no-any-return]

    def stream(self, source: str, frame: FrameType | None, *, counts: bool = True) -> Stream | None:
        """The bytes to draw from here; None as above."""
        return self.at(source, frame, _itself, counts=counts)

    def for_process(self, source: str) -> Stream:
        """Bytes for what has one state for the whole process."""
        return Stream(self._seed, source, _PROCESS)

    def count(self, label: str) -> None:
        """One more draw."""
        with self._lock:
            self.counts[label] = self.counts.get(label, 0) + 1

    def note(self, what: str, frame: FrameType | None) -> None:
        """`what` was used and is not derived, unless clew or OpenTelemetry used it for themselves."""
        asker = asker_of(frame)
        if asker is not None:
            self.unseen.setdefault(what if asker == PROJECT else f"{what} by {asker}")

    def forking(self) -> None:
        """Count a child of this process, so that each has a number of its own."""
        self._forks += 1

    def forked(self) -> None:
        """In a child: other values than its parent and its siblings draw from here on."""
        self._lock = threading.Lock()
        self._seed = Stream(self._seed, "fork", str(self._forks)).take(32)
        self._forks = 0
        self._made = {}


def active() -> Draws | None:
    """The activation that counts here: of several, the newest that this is part of, else the newest."""
    known = ACTIVE[:]
    if len(known) < 2:
        return known[0] if known else None
    return next((one for one in reversed(known) if one.holds()), known[-1])


def _itself(stream: Stream) -> Stream:
    return stream


def _before_fork() -> None:
    for draws in ACTIVE:
        draws.forking()


def _after_fork() -> None:
    for draws in ACTIVE:
        draws.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
