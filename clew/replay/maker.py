"""Answers made anew from what was read of them once.

What is asked again and again is answered by the same bytes, and each who asks is given an answer of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clew.store.errors import Unstorable

Again = Callable[[Any], Callable[[Any], Any] | None]
"""Gives of a value what makes others like it of copies of its dictionary, None if it cannot change; raises Unstorable for
one of which there is more."""

_REMEMBERED, _LONG = 1024, 1 << 14  # answers of which a maker is kept, and their bytes
_PLAIN = frozenset((type(None), bool, int, float, str, bytes))
_Step = tuple[  # no class of its own: it is taken apart each time
    Callable[[], Any],
    list[tuple[Any, Callable[[], Any]]],
    list[tuple[Any, int]],
    Callable[[Any], Any] | None,
]


class Maker:
    """Makes an answer anew, as often as it is asked for, from what was read of it once: in about half the time.

    Each step makes a value: a copy of its items or fields, in it those parts that have none of their own, those that an
    earlier step made, and of fields what has them.
    """

    __slots__ = ("_again", "_steps")

    def __init__(self, answer: Any, again: Callable[[type], Again | None]) -> None:
        """`answer` is nobody else's; `again` tells how those of a class are made. Raises Unstorable where it holds what must
        be read each time."""
        self._again = again
        self._steps: list[_Step] = []  # inner ones before outer ones
        step = self._step(answer)
        if step is None:
            raise Unstorable("nothing that could change")
        self._steps.append(step)

    def _step(self, value: Any) -> _Step | None:
        """What makes a value, with the steps for its parts before it; None of a value that cannot change."""
        cls = type(value)
        if cls in _PLAIN:
            return None
        finish = None
        if cls is dict or cls is list:
            within = value
        elif (again := self._again(cls)) is not None:
            if (finish := again(value)) is None:
                return None
            within = value.__dict__
        else:
            raise Unstorable(f"a {cls.__name__} that must be read")
        simple: list[tuple[Any, Callable[[], Any]]] = []
        parts: list[tuple[Any, int]] = []
        for key, part in enumerate(within) if cls is list else within.items():
            if (step := self._step(part)) is None:
                continue
            new, *inside, last = step
            if last is None and not any(inside):
                simple.append((key, new))
            else:
                parts.append((key, len(self._steps)))
                self._steps.append(step)
        return within.copy, simple, parts, finish

    def __call__(self) -> Any:
        made: list[Any] = []
        for new, simple, parts, finish in self._steps:
            within = new()
            for key, new_part in simple:
                within[key] = new_part()
            for key, at in parts:
                within[key] = made[at]
            made.append(within if finish is None else finish(within))
        return made[-1]


class Makers:
    """Reads answers, and keeps the makers of those that are read again."""

    def __init__(self, read: Callable[[bytes], Any], again: Callable[[type], Again | None]) -> None:
        self._read = read
        self._again = again
        self._known: dict[bytes, Maker | bool] = {}  # True of an answer that was read once, False of one that has none

    def read(self, data: bytes) -> Any:
        """The answer of these bytes, a new one each time."""
        known = self._known.get(data)
        if type(known) is Maker:
            return known()
        found = self._read(data)
        if known is not False and len(data) <= _LONG:
            self._keep(data, again=known is True)
        return found

    def forget(self) -> None:
        """Forget all: classes are known now that were not."""
        self._known.clear()

    def _keep(self, data: bytes, *, again: bool) -> None:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        try:
            self._known[data] = Maker(self._read(data), self._again) if again else True
        except Unstorable:
            self._known[data] = False
