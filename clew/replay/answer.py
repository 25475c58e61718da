"""Answers as bytes: what a call returned, kept so that it comes back exactly, and never by running what was stored.

MessagePack, with extensions for what it has no type for. A value of a class is kept only if its class is registered with
how it is taken apart and put together; reading imports nothing. What would not come back equal is refused when it is
written, so that a wrong answer cannot be read.
"""

from __future__ import annotations

import copy
import datetime
import decimal
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from clew.replay.maker import Again, Makers
from clew.store.errors import Unstorable

_TUPLE, _SET, _FROZENSET, _MAP, _SCALAR, _REGISTERED, _BIG_INT = range(1, 8)
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1
_DEPTH = 64
_encode = msgspec.msgpack.Encoder().encode
_PLAIN = frozenset((type(None), bool, float, bytes))
_FLOATS = frozenset((float,))


class _Class(NamedTuple):
    name: str
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]
    again: Again | None


_by_class: dict[type, _Class] = {}
_by_name: dict[str, _Class] = {}


def register_answer(
    cls: type,
    dump: Callable[[Any], Any],
    load: Callable[[Any], Any],
    name: str | None = None,
    again: Again | None = None,
) -> None:
    """Values of exactly this class may stand in an answer: `dump` takes one apart into data, `load` puts it together.

    `again` gives of a value what makes others of their dictionaries (replay/maker.py).
    """
    known = _Class(name or f"{cls.__module__}.{cls.__qualname__}", dump, load, again)
    _by_class[cls] = _by_name[known.name] = known
    _makers.forget()


def copied(chunk: Any) -> Any:
    """A chunk of a stream, of its own, as it was when it came; one that cannot be copied is none that can be kept, either."""
    try:
        return copy.deepcopy(chunk)
    except Exception:
        return chunk


def pack(value: Any) -> bytes:
    """The bytes of an answer. Raises Unstorable, with the reason, for one that would not come back equal."""
    try:
        data = _encode(_out(value, 0))
        same = _equal(value, unpack(data))
    except Unstorable:
        raise
    except Exception as error:  # a class whose own methods fail
        raise Unstorable(f"an answer that cannot be taken apart: {error!r}") from error
    if not same:
        raise Unstorable(f"a {type(value).__name__} that does not come back equal")
    return data


def unpack(data: bytes) -> Any:
    """The answer of `data`, a new one each time. Raises Unstorable where it holds what is not registered here."""
    try:
        return _makers.read(data)
    except msgspec.MsgspecError as error:
        raise Unstorable(f"an answer that cannot be read: {error}") from error


def texts(data: bytes) -> Iterator[tuple[str | None, Any]]:
    """Every text, bytes and container in an answer, with the name that it stands under."""

    def inside(name: str | None, value: Any) -> Iterator[tuple[str | None, Any]]:
        if isinstance(value, (str, bytes)):
            yield name, value
        elif isinstance(value, dict):
            yield name, value
            for key, part in value.items():
                yield from inside(None, key)
                yield from inside(key if isinstance(key, str) else None, part)
        elif isinstance(value, list):
            yield name, value
            if not _FLOATS.issuperset(map(type, value)):  # a vector
                for part in value:
                    yield from inside(name, part)

    def opened(code: int, content: memoryview) -> Any:
        inner = read(content)
        if code == _MAP:
            return [{key: part} if isinstance(key, str) else [key, part] for key, part in inner]
        return inner

    read = msgspec.msgpack.Decoder(ext_hook=opened).decode
    yield from inside(None, read(data))


def _out(value: Any, depth: int) -> Any:
    cls = type(value)
    if cls is str or cls in _PLAIN:
        return value
    if cls is int:
        return value if _MIN_INT <= value <= _MAX_INT else _ext(_BIG_INT, format(value, "x"))
    if depth > _DEPTH:
        raise Unstorable("an answer that is nested too deeply")
    if cls is list:
        if _FLOATS.issuperset(map(type, value)):  # a vector
            return value
        return [_out(part, depth + 1) for part in value]
    if cls is dict:
        if all(type(key) is str for key in value):
            return {key: _out(part, depth + 1) for key, part in value.items()}
        return _ext(_MAP, [[_out(key, depth + 1), _out(part, depth + 1)] for key, part in value.items()])
    if cls is tuple:
        return _ext(_TUPLE, [_out(part, depth + 1) for part in value])
    if cls is set or cls is frozenset:
        return _ext(_SET if cls is set else _FROZENSET, [_out(part, depth + 1) for part in value])
    if cls in (datetime.datetime, datetime.time) and (value.fold or not _is_fixed(value.tzinfo)):
        raise Unstorable(f"a {cls.__name__} in a time zone that is more than an offset")
    if cls in _SCALARS:
        return _ext(_SCALAR, [cls.__name__, _SCALARS[cls][0](value)])
    known = _by_class.get(cls)
    if known is None:
        raise Unstorable(f"an answer that holds a {cls.__module__}.{cls.__qualname__}")
    return _ext(_REGISTERED, [known.name, _out(known.dump(value), depth + 1)])


def _is_fixed(zone: Any) -> bool:
    return zone is None or (type(zone) is datetime.timezone and zone.tzname(None).startswith("UTC"))


def _ext(code: int, content: Any) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, _encode(content))


def _back(code: int, content: memoryview) -> Any:
    inner = _read(content)
    if code == _REGISTERED:
        known = _by_name.get(inner[0])
        if known is None:
            raise Unstorable(f"an answer that holds a {inner[0]}, which is not known here")
        return known.load(inner[1])
    if code == _TUPLE:
        return tuple(inner)
    if code == _SET:
        return set(inner)
    if code == _FROZENSET:
        return frozenset(inner)
    if code == _MAP:
        return dict(map(tuple, inner))
    if code == _BIG_INT:
        return int(inner, 16)
    if code == _SCALAR:
        return _BY_SCALAR[inner[0]](inner[1])
    raise Unstorable(f"an answer that holds a {code}, which is not known here")


_read = msgspec.msgpack.Decoder(ext_hook=_back).decode


def _again(cls: type) -> Again | None:
    known = _by_class.get(cls)
    return None if known is None else known.again


_makers = Makers(_read, _again)


def _equal(one: Any, other: Any) -> bool:
    """Whether two answers are the same, type by type: 1 is not True, and a list no tuple."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        if _FLOATS.issuperset(map(type, one)) and _FLOATS.issuperset(map(type, other)) and one == other:
            return True
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(_equal(one[key], other[key]) for key in one)
    return bool(one == other) or (one != one and other != other)


_SCALARS: dict[type, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    datetime.datetime: (datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    datetime.date: (datetime.date.isoformat, datetime.date.fromisoformat),
    datetime.time: (datetime.time.isoformat, datetime.time.fromisoformat),
    decimal.Decimal: (str, decimal.Decimal),
    uuid.UUID: (str, uuid.UUID),
}
_BY_SCALAR = {cls.__name__: load for cls, (_, load) in _SCALARS.items()}
