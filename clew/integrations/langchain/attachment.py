"""What clew remembers of an object that it does not own: by identity, and only as long as the object lives.

Framework objects may be unhashable (pydantic models are), so a `WeakKeyDictionary` does not do.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Generic, TypeVar

T = TypeVar("T")
_SMALL = 64
_DEPTH = 4
_SERVICES = frozenset(
    [
        "httpx",
        "requests",
        "urllib3",
        "aiohttp",
        "openai",
        "anthropic",
        "cohere",
        "boto3",
        "botocore",
        "google",
        "grpc",
        "threading",
        "_thread",
        "asyncio",
        "concurrent",
        "logging",
    ]
)


class Attachments(Generic[T]):
    """One value for each living object."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._kept: dict[int, tuple[weakref.ref[object], T]] = {}

    def of(self, owner: object) -> T:
        """The value of `owner`, made on first use. An owner that takes no weak reference gets a new one each time."""
        key = id(owner)
        found = self._kept.get(key)
        if found is not None and found[0]() is owner:
            return found[1]
        value = self._make()
        kept = self._kept

        def forget(dead: object) -> None:  # the id may belong to another object by now
            found = kept.get(key)
            if found is not None and found[0] is dead:
                del kept[key]

        try:
            reference = weakref.ref(owner, forget)
        except TypeError:
            return value
        kept[key] = (reference, value)
        return value


class Derived(Generic[T]):
    """A value made from an object's attributes: anew when one of them, or of those of an object it holds, was set.

    A large container that is changed in place goes unnoticed.
    """

    def __init__(self, make: Callable[[object], T]) -> None:
        self._make = make
        self._kept: Attachments[list[tuple[list[object], T]]] = Attachments(list)

    def of(self, owner: object) -> T:
        """The value for `owner` as it is now."""
        kept = self._kept.of(owner)
        leaves = _leaves(owner)
        if kept and len(kept[0][0]) == len(leaves) and all(map(_same, kept[0][0], leaves)):
            return kept[0][1]
        value = self._make(owner)
        kept[:] = [(leaves, value)]
        return value


def is_service(value: object) -> bool:
    """Whether an object is a client, a lock or a logger: how something is reached, not what it is."""
    return type(value).__module__.split(".")[0] in _SERVICES


def _leaves(owner: object) -> list[object]:
    leaves: list[object] = []
    waiting: list[tuple[object, int]] = [(owner, 0)]
    for value, depth in waiting:  # grows while it is read
        for part in _parts(value):
            leaves.append(_leaf(part))
            if depth < _DEPTH and len(waiting) < 256 and _holds(part):
                waiting.append((part, depth + 1))
    return leaves


def _leaf(part: object) -> object:
    """What tells a part from every other, without keeping it alive: it may hold the owner itself."""
    if part is None or isinstance(part, (str, int, float, bytes)):
        return part
    try:
        return weakref.ref(part)  # one and the same as long as the part lives
    except TypeError:
        return id(part)


def _same(a: object, b: object) -> bool:
    return a is b or (type(a) is type(b) and not isinstance(a, weakref.ref) and a == b)


def _parts(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values() if len(value) <= _SMALL else (len(value),)
    elif isinstance(value, (list, tuple)):
        yield from value if len(value) <= _SMALL else (len(value),)
    else:
        yield from (getattr(value, "__dict__", None) or {}).values()
        yield from (getattr(value, "__pydantic_private__", None) or {}).values()


def _holds(value: object) -> bool:
    if value is None or isinstance(value, (str, int, float, bytes, type, FunctionType, ModuleType)):
        return False
    return type(value).__module__ != "numpy" and not is_service(value)
