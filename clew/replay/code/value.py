"""The values that code holds, by sort: which are plain, what others consist of, and which show nothing of their state."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import functools
import logging
import pathlib
import re
import threading
import types
import typing
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from clew.replay.code.bytecode import constant
from clew.store.encoding import encode_key
from clew.store.errors import EncodingError

LEAVES = frozenset((type(None), bool, int, float, complex, str, bytes))
CONTAINERS = frozenset((list, dict, set, tuple, frozenset, bytearray))
CHANGING: tuple[Any, ...] = (list, dict, set, bytearray, collections.deque)  # what items can be put into
_DATES = (datetime.date, datetime.time, datetime.datetime, datetime.timedelta)
_PATHS = (pathlib.PosixPath, pathlib.PurePosixPath, pathlib.WindowsPath, pathlib.PureWindowsPath)
_IMMUTABLE = frozenset((*_DATES, *_PATHS, decimal.Decimal, uuid.UUID, range))
_ITERATED: tuple[Any, ...] = (list, tuple, set, frozenset)
_PLAIN: tuple[Any, ...] = (int, float, complex, str, bytes)
_LOCKS = (type(threading.Lock()), type(threading.RLock()))
_OPEN = frozenset(
    ("abc", "dataclasses", "enum", "functools", "inspect", "types", "typing")
)  # their objects are what a class was made from


def members(value: Any) -> list[tuple[str, Any]] | None:
    """What an object that stands for code consists of, by name; None of another object.

    Formed where it stands: what it consists of cannot be exchanged, or has a reading of its own.
    """
    if isinstance(value, types.MethodType):
        return [("function", value.__func__), ("self", value.__self__)]
    if isinstance(value, (staticmethod, classmethod)):
        return [("class", type(value)), ("function", value.__func__)]
    if isinstance(value, property):
        return [("class", type(value)), ("get", value.fget), ("set", value.fset), ("delete", value.fdel)]
    if isinstance(value, functools._lru_cache_wrapper):
        return [("function", value.__wrapped__), ("parameters", tuple(value.cache_parameters().items()))]
    if isinstance(value, types.CellType):
        return None
    origin = typing.get_origin(value)
    if origin is not None:
        return [("origin", origin), *(("argument", one) for one in typing.get_args(value))]
    return None


def immutable(value: Any) -> Any:
    """Plain data that stands for an immutable object, or for one whose state is not code; None of another object."""
    cls = type(value)
    if cls is re.Pattern:
        return [value.pattern, value.flags]
    if cls in (logging.Logger, logging.RootLogger):
        return [value.name]
    if isinstance(value, _LOCKS):
        return []
    if cls is datetime.timezone:
        return [repr(value)]
    if cls.__name__ == "_tuplegetter":
        return [value.__reduce__()[1][0]]
    if cls.__module__ in ("typing", "typing_extensions") and not hasattr(value, "__value__"):
        return [text] if " at 0x" not in (text := repr(value)) else None
    return [encode_key(value)] if cls in _IMMUTABLE else None


def array(value: Any) -> bytes | None:
    """The canonical bytes of a numpy array or scalar, which can change in place without a trace."""
    if type(value).__module__ != "numpy":
        return None
    try:
        return encode_key(value)
    except EncodingError:
        return None


def container(value: Any) -> Iterable[Any] | None:
    """What a container, or an instance of a subclass of a plain type, holds besides attributes, in order."""
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, collections.OrderedDict):
        return [part for pair in collections.OrderedDict.items(value) for part in pair]
    if isinstance(value, (dict, types.MappingProxyType)):
        factory = [value.default_factory] if isinstance(value, collections.defaultdict) else []
        pairs = dict.items(value) if isinstance(value, dict) else value.items()
        return [*factory, *(part for pair in pairs for part in pair)]
    if isinstance(value, collections.deque):
        return [value.maxlen, *collections.deque.__iter__(value)]
    for cls in _ITERATED:
        if isinstance(value, cls):
            return cls(cls.__iter__(value))  # type: ignore[no-any-return]
    for cls in _PLAIN:
        if isinstance(value, cls):
            return list(cls.__getnewargs__(value))
    return [bytes(value)] if isinstance(value, bytearray) else None


def sort_key(value: Any) -> bytes | None:
    """What members of a set can be sorted by, in every process alike; None if nothing of the kind is known."""
    if is_constant(value):
        return encode_key(constant(value))
    if isinstance(value, enum.Enum):
        return f"{type(value).__module__}.{type(value).__qualname__}.{value.name}".encode()
    if isinstance(value, (type, types.FunctionType)) or (
        isinstance(value, types.BuiltinFunctionType) and isinstance(value.__self__, types.ModuleType)
    ):
        return f"{value.__module__}.{value.__qualname__}".encode()
    return None


def is_constant(value: Any) -> bool:
    """Whether a value is plain, or a tuple or frozenset of such."""
    return type(value) in LEAVES or (type(value) in (tuple, frozenset) and all(map(is_constant, value)))


def container_parts(value: Any) -> list[Any]:
    """The same for a reading: what is compared by identity must not be made anew."""
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, _PLAIN):
        return [value]
    if isinstance(value, (set, frozenset)):
        return [*(set if isinstance(value, set) else frozenset).__iter__(value)]  # type: ignore[arg-type]
    return list(value) if isinstance(value, bytearray) else list(container(value) or ())


def is_all_python(cls: type) -> bool:
    """Whether instances keep all their state in a dictionary and slots, as `object.__reduce_ex__` asks it."""
    slots = sum(type(one).__name__ == "member_descriptor" for owner in cls.__mro__ for one in owner.__dict__.values())
    words = slots + (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0)
    return cls.__itemsize__ == 0 and cls.__basicsize__ <= object.__basicsize__ + 8 * words


def is_open(cls: type, versions: Callable[[str], object]) -> bool:
    """Whether the state of an instance counts: of the project's classes, and of what builds classes."""
    return cls.__module__ in _OPEN or versions(cls.__module__) is None
