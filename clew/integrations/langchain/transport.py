"""Fields that say how an object is reached or traced, as LangChain means them; and which of them the program reads itself.

A class of the program may make anything of a field: where its code names one, the field counts.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator
from types import CodeType, FunctionType
from typing import Any

from clew.replay.code.bytecode import bytecode_of
from clew.replay.code.module import is_installed
from clew.replay.code.version import version_of

_known: weakref.WeakKeyDictionary[type, tuple[int, frozenset[str]]] = weakref.WeakKeyDictionary()  # with their versions
_UNKNOWN: tuple[int, frozenset[str]] = 0, frozenset()
_EVER = frozenset(
    ("callbacks", "callback_manager", "run_manager", "cache", "rate_limiter", "_serialized", "_lc_kwargs")
)


def unread(names: Collection[str], cls: type) -> frozenset[str]:
    """Those of `names` that say nothing about what `cls` answers: its code, where it is the program's, names none."""
    return frozenset(names) - named(cls)


def named(cls: type) -> frozenset[str]:
    """The names in a class's code, as far as that is the program's."""
    place = version_of(cls)
    version = place.value if place is not None else 0
    known, read = _known.get(cls, _UNKNOWN)
    if not version or known != version:
        read = frozenset(_words(cls)) - _EVER
        _known[cls] = version, read
    return read


def code_of_class(cls: type) -> Iterator[FunctionType]:
    """The functions of a class, and those that they name, as far as they are the program's."""
    waiting: list[Any] = [one for owner in cls.__mro__ for one in owner.__dict__.values()]
    seen: set[int] = set()
    while waiting:
        function = _function(waiting.pop())
        if function is None or id(function) in seen or is_installed(function.__code__.co_filename):
            continue
        seen.add(id(function))
        yield function
        references = bytecode_of(function.__code__).references
        waiting += [function.__globals__.get(reference.path[0]) for reference in references]


def _words(cls: type) -> Iterator[str]:
    for function in code_of_class(cls):
        yield from bytecode_of(function.__code__).words
        yield from _arguments(function.__code__)
        yield function.__code__.co_name


def _function(value: Any) -> FunctionType | None:
    """The function that a method, property or wrapper stands for."""
    for name in ("__func__", "fget", "func"):
        value = getattr(value, name, value) if not isinstance(value, (type, FunctionType)) else value
    while isinstance(inner := getattr(value, "__wrapped__", None), FunctionType):
        value = inner
    return value if isinstance(value, FunctionType) else None


def _arguments(code: CodeType) -> tuple[str, ...]:
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
