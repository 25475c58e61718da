"""`datetime.now`, `time.time` and their like, told as the recorded start of the enclosing span, through time-machine.

Only the program's own code is told so. Frameworks order checkpoints, sign requests and measure by the clock, so they
read the true one, as do clew and OpenTelemetry.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from clew.replay.ambient.caller import PROJECT, asker_of
from clew.store.errors import MissingExtra

SOURCE = "system clock"
# Time stands still in a span, so that a replay is told the same at each turn. Then it goes on, or a loop that waits for
# a time would never end.
_STILL_NS = 1_000_000_000


class Travel:
    """`moment()` is when the enclosing span was recorded to begin, in nanoseconds since the epoch; where it is None,
    time goes on from the last one told, and is the true one before any. `count(SOURCE)` is called for each reading."""

    def __init__(self, moment: Callable[[], int | None], count: Callable[[str], None]) -> None:
        _machine()
        self._moment = moment
        self._count = count
        self._asked: dict[int, int] = {}  # a moment -> when it was first told, on the steady clock
        self._newest: int | None = None

    def start(self) -> None:
        """Tell these times until `stop`, to all threads. Of several, the newest tells them."""
        if not _going:
            _journey.append(_machine().travel(0, tick=False))
            traveller = _journey[0].start()
            # time-machine asks this object for each reading, in the thread and task of the one who reads.
            traveller.time_ns, traveller.time = _told_ns, _told
        _going.append(self)

    def stop(self) -> None:
        """The true time again, or what another one tells."""
        if _going == [self]:
            _journey.pop().stop()
        _going.remove(self)

    def told_ns(self) -> int | None:
        """What to tell here; None for the true time."""
        moment = self._moment()
        if moment is None:
            moment = self._newest
            if moment is None:
                return None
        elif self._newest is None or moment > self._newest:
            self._newest = moment
        self._count(SOURCE)
        steady = time.monotonic_ns()
        return moment + max(0, steady - self._asked.setdefault(moment, steady) - _STILL_NS)


_going: list[Travel] = []
_journey: list[Any] = []  # time-machine's, while there is one


def _told_ns() -> int:
    return _tell(sys._getframe(1))


def _told() -> float:  # time-machine up to 3.3 asks for seconds
    return _tell(sys._getframe(1)) / 1_000_000_000


def _tell(reader: FrameType) -> int:
    told = _going[-1].told_ns() if _going and asker_of(reader) == PROJECT else None
    return _true_ns() if told is None else told


def _true_ns() -> int:
    true_ns: int = _machine().escape_hatch.time.time_ns()
    return true_ns


def _machine() -> Any:
    try:
        return importlib.import_module("time_machine")
    except ImportError as error:
        raise MissingExtra("time_machine is not installed: pip install 'clew[clock]' brings it") from error
