"""A list of objects that grows at its end, such as a conversation: whether those that it began with are as they were.

The objects keep their state in a dictionary of plain values, as messages do. They are compared as a witness does
(code/witness.py), but with lists that only ever get longer, so that what is added costs what it is, and no more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from gc import get_referents
from itertools import chain
from typing import Any

from clew.replay.code.witness import END, addresses

_FIXED = frozenset((str, int, float, bool, type(None)))  # types of values that cannot change
_TEXTS = frozenset((str,))
_HELD = frozenset((dict, list))


class Growth:
    """What was seen of objects when they were added: add one before it is read."""

    def __init__(self, apart: Collection[str]) -> None:
        self.length = 0
        self.blind = False  # something in them can change without a trace
        self._apart = apart  # fields of which it does not count what is in them
        self._objects: list[Any] = []  # held, so that no other ones take their place in memory
        self._heads = bytearray()  # addresses of what they refer to: dictionary, other slots, class
        self._roots: list[Any] = []  # what is in them that can change, each followed by END
        self._seen: list[Sequence[Any]] = []  # held, too
        self._parts = bytearray()  # addresses of what those refer to
        self._dicts: list[dict[Any, Any]] = []
        self._keys = bytearray()  # addresses of theirs
        self._empty: list[Any] = []

    def begins(self, objects: Sequence[Any]) -> bool:
        """Whether `objects` begins with those that were added, and nothing in them changed."""
        try:
            return (
                addresses(tuple(get_referents(*objects[: self.length]))) == self._heads
                and addresses(tuple(get_referents(*self._roots))) == self._parts
                and not any(self._empty)
                and addresses(tuple(chain.from_iterable(self._dicts))) == self._keys
            )
        except RuntimeError:  # another thread changes it now
            return False

    def add(self, one: Any) -> None:
        """One more object."""
        self.length += 1
        head = get_referents(one)
        self._objects.append((one, head))
        self._heads += addresses(tuple(head))
        extra = getattr(one, "__pydantic_extra__", None)
        waiting: list[Any] = [one.__dict__] if extra is None else [one.__dict__, extra]
        for value in waiting:  # grows while it is read
            if not value:
                self._empty.append(value)
                continue
            referred = get_referents(value, END)
            self._roots += (value, END)
            self._seen.append(referred)
            self._parts += addresses(tuple(referred))
            inner = value
            if type(value) is dict:
                self._dicts.append(value)
                keys = tuple(value)
                self._seen.append(keys)
                self._keys += addresses(keys)
                self.blind |= not _TEXTS.issuperset(map(type, value))
                apart = self._apart if value is waiting[0] else ()
                inner = [part for key, part in value.items() if key not in apart]
            for part in inner:
                if type(part) in _FIXED:
                    continue
                if type(part) not in _HELD or len(waiting) > _MOST:
                    self.blind = True
                else:
                    waiting.append(part)


_MOST = 1000  # containers in one object
