"""What can be seen of a value that has no exact form: enough to find again, within one run, what was asked there.

A cache may not use it, as something unseen may decide the answer. A replay serves what the run itself was answered, to
the same request at the same place; what could not be seen is told on its certificate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from clew.replay.code.module import name_in
from clew.replay.identity import identity
from clew.store.errors import ClewError

_DEPTH = 48
_THINGS = 20_000
# What these hold beside their attributes is looked at, too.
_HOLDING = (str, int, float, bytes, bytearray, list, tuple, dict, set, frozenset, BaseException)
Renamed = dict[str, str]  # ids that were minted -> what they are called here
Form = Callable[[Any, Renamed], Any]
_forms: list[tuple[type, Form]] = []


def register_form(cls: type, form: Form) -> None:
    """How values of a class, and of those below it, are told: `form(value, renamed)` gives data."""
    _forms.insert(0, (cls, form))


def loose(value: Any, renamed: Renamed | None = None) -> Any:
    """What can be seen of `value`, as data a key can be made of. Never raises."""
    return _Look({} if renamed is None else renamed).at(value, ())


class _Look:
    """One look at a value; of what lies beyond so many things only what has an exact form is looked at."""

    def __init__(self, renamed: Renamed) -> None:
        self.renamed = renamed
        self.left = _THINGS

    def at(self, value: Any, around: tuple[int, ...]) -> Any:
        self.left -= 1
        if id(value) in around:
            return ["around"]
        if self.left < 0 or len(around) > _DEPTH:
            return self._exact(value)
        try:
            return self._told(value, (*around, id(value)))
        except Exception:  # an object whose own methods fail
            return _leaf(value)

    def _told(self, value: Any, around: tuple[int, ...]) -> Any:
        for cls, form in _forms:
            if isinstance(value, cls):
                try:
                    return form(value, self.renamed)
                except ClewError:
                    break
        if type(value) in (list, tuple):
            return [self.at(part, around) for part in value]
        if type(value) is dict:
            return {_name(key): self.at(part, around) for key, part in value.items()}
        try:
            return identity(value)
        except ClewError:
            fields = None if isinstance(value, _HOLDING) else _fields(value)
        if fields is None:
            return _leaf(value) if callable(value) else self._taken_apart(value, around)
        told = {name: self.at(part, around) for name, part in sorted(fields.items())}
        return ["object", name_in(type(value)), told]

    def _taken_apart(self, value: Any, around: tuple[int, ...]) -> Any:
        """What a value says it would be copied from; one that says nothing is seen as one of its class."""
        if isinstance(value, (set, frozenset)):
            members = sorted((self.at(part, around) for part in value), key=repr)
            return ["object", name_in(type(value)), members]
        made = value.__reduce_ex__(4)
        if not isinstance(made, tuple):  # the name of a singleton
            return [_leaf(value), made]
        _, arguments, state, items, pairs = (*made, None, None, None)[:5]
        told = [arguments, state, items and list(items), pairs and [list(pair) for pair in pairs]]
        return ["object", name_in(type(value)), [self.at(part, around) for part in told]]

    def _exact(self, value: Any) -> Any:
        try:
            return identity(value)
        except Exception:
            return _leaf(value)


def _name(key: Any) -> str:
    return key if type(key) is str else repr(_leaf(key) if hasattr(key, "__dict__") else key)


def _fields(value: Any) -> dict[str, Any] | None:
    """What an object holds; None of one that shows nothing."""
    if callable(value) and not hasattr(type(value), "model_fields"):
        return None
    held = getattr(value, "__dict__", None)
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return {name: part for name, part in held.items() if type(name) is str} if isinstance(held, dict) else None


def _leaf(value: Any) -> Any:
    """A function or class by its name, anything else by its class."""
    named = value if callable(value) and hasattr(value, "__qualname__") else type(value)
    return ["unseen", name_in(named)]
