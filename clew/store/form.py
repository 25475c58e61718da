"""The form of each type: what a value of it becomes on its way into MessagePack (see encoding.py).

A *handler* takes the walk, a value and its depth, and returns what msgspec encodes without loss. Documents and messages
of whatever framework are *items*: registered by class, and encoded by the fields that they have in common.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import pathlib
import types
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from clew.store.decoding import Code
from clew.store.digest import Domain, text_bytes
from clew.store.errors import EncodingError
from clew.store.sink import Sink
from clew.store.tensor import tensor_bytes

REFERENCE_BYTES = 256
MIN_INT, MAX_INT = -(2**63), 2**64 - 1

pack = msgspec.msgpack.Encoder(order="sorted").encode
_items: dict[type, tuple[str, Callable[[Any], dict[str, Any]]]] = {}


class Walk(Protocol):
    """One value on its way (encoding.py), as handlers see it."""

    sink: Sink
    strict: bool
    complete: bool

    def plain(self, value: Any, depth: int) -> Any: ...
    def sequence(self, values: Iterable[Any], depth: int) -> list[Any]: ...
    def fields(self, values: dict[str, Any], depth: int) -> dict[str, Any]: ...
    def unknown(self, value: Any, why: str = ...) -> Any: ...
    def extension(self, code: Code, content: Any) -> Any: ...


def extension(code: int, content: bytes) -> msgspec.msgpack.Ext:  # msgspec takes exact ints only
    return msgspec.msgpack.Ext(int(code), content)


def qualified_name(cls: type) -> str:
    """`module.QualName` of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def register_item(cls: type, kind: str, fields: Callable[[Any], dict[str, Any]]) -> None:
    """Instances of `cls` and its subclasses are items of `kind` ("document", "message"), encoded as ``fields(it)``.

    The framework's own class name does not enter the encoding, so that the same document is the same artifact in
    every framework. Registering again replaces.
    """
    _items[cls] = (kind, fields)
    for known in [known for known in handlers if issubclass(known, cls)]:
        del handlers[known]


def item_kind(cls: type) -> str | None:
    """The kind that `cls` was registered under, itself or through an ancestor: "document", "message", or None."""
    for ancestor in cls.__mro__:
        if ancestor in _items:
            return _items[ancestor][0]
    return None


def item_fields(value: Any) -> dict[str, Any]:
    """The fields of a registered item, as its encoding names them ("text", "metadata", "id", ...)."""
    for ancestor in type(value).__mro__:
        if ancestor in _items:
            return _items[ancestor][1](value)
    raise EncodingError(f"{qualified_name(type(value))} is not registered as a document or message")


class NoForm(Exception):
    """A value that no key can be made of; `path` leads to it, innermost step first."""

    def __init__(self, type_name: str, why: str) -> None:
        super().__init__(type_name, why)
        self.type = type_name
        self.why = why
        self.path: list[str] = []

    def inside(self, step: object) -> NoForm:
        """The same, seen from one container further out."""
        self.path.append(str(step))
        return self


def is_utf8(text: str) -> bool:
    """Whether MessagePack can hold it: a lone surrogate has no UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def type_name(value: Any) -> bytes:
    """What an opaque marker says: the type, and of a function or class its own name too."""
    kind = type(value)
    name = qualified_name(value) if issubclass(kind, type) else qualified_name(kind)
    if issubclass(kind, (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
        name = f"{name}:{value.__module__}.{value.__qualname__}"
    return text_bytes(name)


def _sequence(walk: Walk, value: Any, depth: int) -> Any:
    return walk.sequence(value, depth)


def _mapping(walk: Walk, value: Any, depth: int) -> Any:
    clean = walk.sink.clean
    for key in value:
        if type(key) is not str or not (key in clean or is_utf8(key)):
            return _pairs(walk, value, depth)
    return walk.fields(value, depth)


def _pairs(walk: Walk, value: Any, depth: int) -> Any:
    """A mapping whose keys are not all texts."""
    parts = []
    try:
        for pair in value.items():
            key, part = pair
            if type(key) is str:
                part = walk.sink.named(key, part)
            parts.append(walk.plain(part, depth + 1))
    except NoForm as error:
        raise error.inside(pair[0]) from None
    pairs = sorted(zip(_each(walk, value, "<key>", depth), parts, strict=True), key=lambda pair: pair[0])
    return walk.extension(Code.MAP, [[msgspec.Raw(key), part] for key, part in pairs])


def _each(walk: Walk, values: Iterable[Any], step: str, depth: int) -> list[bytes]:
    """Each value's own bytes."""
    try:
        return [pack(walk.plain(value, depth + 1)) for value in values]
    except NoForm as error:
        raise error.inside(step) from None


def _members(code: Code) -> Callable[[Walk, Any, int], Any]:
    def members(walk: Walk, value: Any, depth: int) -> Any:
        encoded = sorted(_each(walk, value, "<member>", depth))
        return walk.extension(code, [msgspec.Raw(part) for part in encoded])

    return members


def _int(walk: Walk, value: int, depth: int) -> Any:
    value = int(value)
    return value if MIN_INT <= value <= MAX_INT else extension(Code.BIG_INT, format(value, "x").encode())


def _float(walk: Walk, value: float, depth: int) -> Any:
    return math.nan if value != value else float(value)  # every NaN is one NaN


def _bytes(walk: Walk, value: Any, depth: int) -> Any:
    data = bytes(value)
    return (
        walk.sink.bare(data)
        if len(data) < REFERENCE_BYTES
        else extension(Code.BYTES, walk.sink.data(Domain.BYTES, data))
    )


def _enum(walk: Walk, value: enum.Enum, depth: int) -> Any:
    member = value.value if isinstance(value, enum.Flag) else value.name  # flags combined need have no name
    return walk.extension(Code.ENUM, [qualified_name(type(value)), member])


def _scalar(text: Callable[[Any], str]) -> Callable[[Walk, Any, int], Any]:
    def scalar(walk: Walk, value: Any, depth: int) -> Any:
        return walk.extension(Code.SCALAR, [_scalar_name(type(value)), walk.sink.inline(text(value))])

    return scalar


def _scalar_name(cls: type) -> str:
    return "pathlib.Path" if issubclass(cls, pathlib.PurePath) else qualified_name(cls)


def _moment(value: Any) -> str:
    """Time of day or date and time, with its zone; a zone of the user's own is named by its class."""
    zone: Any = value.tzinfo
    if zone is not None and " at 0x" in str(zone):
        zone = qualified_name(type(zone))
    return f"{value.isoformat()}[{zone}]f{value.fold}"


def _object(fields: Callable[[Any], dict[str, Any]]) -> Callable[[Walk, Any, int], Any]:
    def record(walk: Walk, value: Any, depth: int) -> Any:
        return walk.extension(Code.OBJECT, [qualified_name(type(value)), walk.fields(fields(value), depth)])

    return record


def _item(kind: str, fields: Callable[[Any], dict[str, Any]]) -> Callable[[Walk, Any, int], Any]:
    def item(walk: Walk, value: Any, depth: int) -> Any:
        known = walk.sink.seen(value)
        if known is not None:
            return extension(Code.ITEM, known)
        around, walk.complete = walk.complete, True
        encoded = pack(walk.fields(fields(value), depth))
        complete, walk.complete = walk.complete, walk.complete and around
        return extension(Code.ITEM, walk.sink.item(kind, value, encoded, complete))

    return item


def _array(walk: Walk, value: Any, depth: int) -> Any:
    if value.dtype.hasobject:
        return walk.unknown(value)
    dtype = value.dtype.str if value.dtype.names is None else repr(value.dtype.descr)
    data = tensor_bytes(dtype, value.shape, value.tobytes())
    return extension(Code.TENSOR, walk.sink.data(Domain.TENSOR, data))


def _pydantic_fields(value: Any) -> dict[str, Any]:
    return {**value.__dict__, **(getattr(value, "__pydantic_extra__", None) or {})}


def _numpy(cls: type) -> Handler | None:
    """The handler of an array or a scalar of numpy; a masked array is neither, its mask is no bytes of its own."""
    bases = {qualified_name(ancestor) for ancestor in cls.__mro__}
    if "numpy.ma.MaskedArray" in bases or "numpy.ma.core.MaskedArray" in bases:
        return None
    if "numpy.ndarray" in bases or "numpy.void" in bases:
        return _array
    if "numpy.generic" in bases:
        return lambda walk, value, depth: walk.extension(Code.SCALAR, [qualified_name(cls), str(value)])
    return None


Handler = Callable[["Walk", Any, int], Any]
handlers: dict[type, Handler] = {
    int: _int,
    float: _float,
    bytes: _bytes,
    bytearray: _bytes,
    memoryview: _bytes,
    list: _sequence,
    tuple: lambda walk, value, depth: walk.extension(Code.TUPLE, walk.sequence(value, depth)),
    dict: _mapping,
    OrderedDict: _mapping,
    defaultdict: _mapping,
    set: _members(Code.SET),
    frozenset: _members(Code.FROZENSET),
    complex: _scalar(repr),
    datetime.datetime: _scalar(_moment),
    datetime.date: _scalar(lambda value: value.isoformat()),
    datetime.time: _scalar(_moment),
    datetime.timedelta: _scalar(lambda value: f"{value.days}d{value.seconds}s{value.microseconds}us"),
    decimal.Decimal: _scalar(str),
    uuid.UUID: _scalar(str),
    range: _scalar(lambda value: f"{value.start}:{value.stop}:{value.step}"),
}
ITSELF = frozenset((bool, type(None)))
LEAVES: dict[type, Handler] = {
    type(None): lambda walk, value, depth: None,
    bool: lambda walk, value, depth: value,
    int: _int,
    float: _float,
}


def resolve(cls: type) -> Handler:
    """The handler of a class seen for the first time, remembered for the next."""
    handler = _find(cls)
    if len(handlers) < 4096:  # classes made in a loop must not grow it for ever
        handlers[cls] = handler
    return handler


def _find(cls: type) -> Handler:
    for ancestor in cls.__mro__:
        if ancestor in _items:
            return _item(*_items[ancestor])
    if issubclass(cls, enum.Enum):
        return _enum
    if issubclass(cls, str):  # a str subclass is its text
        return lambda walk, value, depth: walk.plain(str.__str__(value), depth)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _object(lambda value: value._asdict())
    for known in (int, float, bytes, list, tuple, dict, set, frozenset, datetime.datetime, datetime.date):
        if issubclass(cls, known):
            return handlers[known]
    if issubclass(cls, pathlib.PurePath):
        return _scalar(str)
    if (numpy := _numpy(cls)) is not None:
        return numpy
    if dataclasses.is_dataclass(cls):
        return _object(lambda value: {f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if hasattr(cls, "__pydantic_fields__"):
        return _object(_pydantic_fields)
    if issubclass(cls, msgspec.Struct):
        return _object(lambda value: {name: getattr(value, name) for name in value.__struct_fields__})
    if issubclass(cls, BaseException):
        return _exception
    return lambda walk, value, depth: walk.unknown(value)


def _exception(walk: Walk, value: BaseException, depth: int) -> Any:
    if walk.strict:
        return walk.unknown(value)
    return walk.extension(Code.OBJECT, [qualified_name(type(value)), {"args": walk.sequence(value.args, depth)}])
