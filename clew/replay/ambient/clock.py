"""`clew.now` and `clew.time_ns`: the time as a replay can tell it again.

Without a recording they are the true time. A recorder notes each reading under the span path in which it was made, and
a replay tells the recorded one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol

from clew.tracer import context

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Listener(Protocol):
    """Who is told of each reading."""

    def clock(self, place: str, true_ns: int) -> int:
        """The time to tell at `place`, the span path, in nanoseconds since the epoch; `true_ns` is what it would be."""
        ...


listeners: list[Listener] = []  # the newest is asked first, and the others hear what it told


def now(tz: tzinfo | None = None) -> datetime:
    """The time as a datetime with a time zone, UTC if none is given. Recorded, and told again in a replay."""
    told = _EPOCH + timedelta(microseconds=time_ns() // 1000)
    return told if tz is None else told.astimezone(tz)


def time_ns() -> int:
    """The time in nanoseconds since the epoch, like `time.time_ns`. Recorded, and told again in a replay."""
    told = time.time_ns()
    if listeners:
        place = here()
        for listener in reversed(listeners):
            told = listener.clock(place, told)
    return told


def here() -> str:
    """The span path of the enclosing span, "" outside any."""
    span = context.enclosing()
    return "" if span is None else span.path


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell `listener` of each reading inside."""
    listeners.append(listener)
    try:
        yield
    finally:
        listeners.remove(listener)


class Recalled:
    """Tells what was recorded as the n-th reading at a place; beyond that, time goes on from the last one told.

    `recorded(place, n)` is in nanoseconds since the epoch, n from 0, None where nothing was. `moment()` is when the
    enclosing span was recorded to begin, asked while nothing has been told yet; else the true time is where it starts.
    Where not `holds()`, it tells what it was told.
    """

    def __init__(
        self,
        recorded: Callable[[str, int], int | None],
        moment: Callable[[], int | None] | None = None,
        holds: Callable[[], bool] = lambda: True,
    ) -> None:
        self.readings = 0
        self._holds = holds
        self._recorded = recorded
        self._moment = moment
        self._made: dict[str, int] = {}
        self._last: dict[str, int] = {}  # by place: what was told last
        self._newest: tuple[int, int] | None = None  # the latest time told, and on the machine's steady clock when
        self._lock = threading.Lock()

    def clock(self, place: str, true_ns: int) -> int:
        if not self._holds():
            return true_ns
        with self._lock:
            n = self._made.get(place, 0)
            self._made[place] = n + 1
            self.readings += 1
            steady = time.monotonic_ns()
            told = self._recorded(place, n)
            if told is None:
                told = max(self._beyond(true_ns, steady), self._last.get(place, 0))
            self._last[place] = told
            if self._newest is None or told >= self._newest[0]:
                self._newest = told, steady
            return told

    def _beyond(self, true_ns: int, steady: int) -> int:
        if self._newest is not None:
            told, when = self._newest
            return told + steady - when
        begun = self._moment() if self._moment is not None else None
        return true_ns if begun is None else begun
