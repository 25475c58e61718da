"""`input()`: what a person types, recorded, and typed again in a replay.

Without a listener the function is the program's own. Lines that are read from `sys.stdin`, and what `getpass` asks for,
are not heard.
"""

from __future__ import annotations

import builtins
import functools
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from clew.replay.ambient.clock import here


class Listener(Protocol):
    """Who stands between the program and the person."""

    def console(self, place: str, prompt: object, ask: Callable[[], str]) -> str:
        """The line to tell at `place`, the span path; `ask` has the person asked. EOFError where there is none."""
        ...


class Line(NamedTuple):
    """What was typed; None of an end of the input."""

    text: str | None


_listeners: list[Listener] = []  # the newest stands next to the person
_real: list[Any] = []
_lock = threading.Lock()


def listen(listener: Listener) -> None:
    """Have `listener` hear of each line."""
    with _lock:
        if not _listeners:
            _real[:] = [builtins.input]
            builtins.input = _input
        _listeners.append(listener)


def leave(listener: Listener) -> None:
    """Have `listener` hear no more."""
    with _lock:
        _listeners.remove(listener)
        if not _listeners and builtins.input is _input:
            builtins.input = _real[0]


def _input(prompt: object = "", /) -> str:
    ask: Callable[[], str] = functools.partial(_real[0], prompt)
    place = here()
    for listener in reversed(_listeners.copy()):
        ask = functools.partial(listener.console, place, prompt, ask)
    return ask()


class Recalled:
    """Types what was recorded as the n-th line at a place. `recorded(place, n)` is None where nothing was: then
    `beyond(place, n)` may raise, and else the person is asked."""

    def __init__(self, recorded: Callable[[str, int], Line | None], beyond: Callable[[str, int], None]) -> None:
        self.lines = 0
        self._recorded = recorded
        self._beyond = beyond
        self._made: Counter[str] = Counter()
        self._lock = threading.Lock()

    def console(self, place: str, prompt: object, ask: Callable[[], str]) -> str:
        with self._lock:
            n = self._made[place]
            self._made[place] += 1
        line = self._recorded(place, n)
        if line is None:
            self._beyond(place, n)
            return ask()
        self.lines += 1
        sys.stdout.write(str(prompt))
        sys.stdout.flush()
        if line.text is None:
            raise EOFError("the recorded input ended here")
        return line.text
