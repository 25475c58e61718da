"""What clew remembers of an object that it does not own: by identity, and only as long as the object lives.

Framework objects may be unhashable (pydantic models are), so a `WeakKeyDictionary` does not do.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from types import FunctionType, ModuleType
from typing import Generic, TypeVar

T = TypeVar("T")
_SCALARS = frozenset((str, int, float, bool, bytes))
_CLOSED = frozenset((type, FunctionType, ModuleType))
_SMALL = 64
_DEPTH = 4
_SERVICES = (
    " httpx httpx2 requests urllib3 aiohttp openai anthropic cohere boto3 botocore google grpc groq ollama threading _thread asyncio "
    "concurrent logging "
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
        if kept and _equal(kept[0][0], leaves):
            return kept[0][1]
        value = self._make(owner)
        kept[:] = [(leaves, value)]
        return value


def is_service(value: object) -> bool:
    """Whether an object is a client, a lock or a logger: how something is reached, not what it is."""
    return is_of_service(type(value).__module__)


def is_of_service(module: str) -> bool:
    """Whether a module is of a library of such."""
    return f" {module.split('.')[0]} " in _SERVICES


def _leaves(owner: object) -> list[object]:
    """The scalars an object holds, and what tells each other part from every other."""
    leaves: list[object] = []
    waiting: list[tuple[object, int]] = [(owner, 0)]
    for value, depth in waiting:  # grows while it is read
        for part in _parts(value):
            cls = part.__class__
            if part is None or cls in _SCALARS:
                leaves.append(part)
                continue
            leaves.append(_reference(part))
            closed = cls in _CLOSED or cls.__module__ == "numpy" or is_service(part)
            if not closed and depth < _DEPTH and len(waiting) < 256:
                waiting.append((part, depth + 1))
    return leaves


def _reference(part: object) -> object:
    """Never the part itself: it may hold its owner, which would then live for ever."""
    try:
        return weakref.ref(part)  # one and the same as long as the part lives
    except TypeError:
        return id(part)


def _equal(before: list[object], now: list[object]) -> bool:
    try:
        return before == now
    except Exception:  # two arrays, which have no one truth: another array was set
        return False


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values() if len(value) <= _SMALL else (len(value),)
    if isinstance(value, (list, tuple)):
        return value if len(value) <= _SMALL else (len(value),)
    fields = getattr(value, "__dict__", None)
    private = getattr(value, "__pydantic_private__", None)
    return [*(fields or {}).values(), *private.values()] if private else (fields or {}).values()
