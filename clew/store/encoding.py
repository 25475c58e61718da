"""Canonical encoding: one value, one sequence of bytes.

The core is MessagePack with sorted keys (msgspec) over an own walk, because msgspec alone would give a tuple and a
list, an enum and its value, a UUID and its text the same bytes. What MessagePack has no type for becomes an
extension. Two forms share the walk:

* `encode_key` is strict. A type it does not know raises `EncodingError` with the path to it: a key must never guess.
* `encode_capture` never raises. An unknown type becomes an opaque marker with the type's qualified name (never a
  repr, which holds addresses), and the result is flagged incomplete.

Texts of `REFERENCE_CHARS` characters and more, bytes of `REFERENCE_BYTES` and more, arrays, and *items* (documents and
messages, see `register_item`) are not inlined: they are handed to a `Sink`, which stores them under their own digest,
and the encoding holds that digest. So a text has one identity everywhere, and a list of documents costs 36 bytes each.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import marshal
import math
import pathlib
import types
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from clew.store.decoding import Code
from clew.store.digest import Digest, Domain, digest, text_bytes
from clew.store.errors import EncodingError
from clew.store.sink import Digester as Digester
from clew.store.sink import Sink as Sink
from clew.store.tensor import tensor_bytes as tensor_bytes
from clew.store.tensor import tensor_parts as tensor_parts

REFERENCE_CHARS = 64
REFERENCE_BYTES = 256
MAX_DEPTH = 64
MAX_PARTS = 1 << 18  # containers in one value; a graph whose nodes share children would unfold without end


_pack = msgspec.msgpack.Encoder(order="sorted").encode

_items: dict[type, tuple[str, Callable[[Any], dict[str, Any]]]] = {}
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1
_SMALL_BYTES = 256
_SMALL_DEPTH = 8  # from here no dict of that size, 5 bytes for each list in it, nests too deeply


def _extension(code: int, content: bytes) -> msgspec.msgpack.Ext:  # msgspec takes exact ints only
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
    for known in [known for known in _dispatch if issubclass(known, cls)]:
        del _dispatch[known]


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


def encode_key(value: Any, sink: Sink | None = None) -> bytes:
    """The canonical bytes of `value`; EncodingError for a type with no canonical form.

    >>> encode_key(1) != encode_key(1.0) != encode_key(True)
    True
    >>> encode_key({"b": 1, "a": (2,)}) == encode_key({"a": (2,), "b": 1}) != encode_key({"a": [2], "b": 1})
    True
    """
    try:
        return _pack(_Walk(sink or Digester(), strict=True).plain(value, 0))
    except _NoForm as error:
        place = ".".join(["value", *reversed(error.path)])
        raise EncodingError(f"cannot make a key of {place}: {error.type} {error.why}") from None


def encode_capture(value: Any, sink: Sink) -> tuple[bytes, bool]:
    """The bytes of `value` and whether they are complete. Never raises for what it finds in the value."""
    walk = _Walk(sink, strict=False)
    try:
        return _pack(walk.plain(value, 0)), walk.complete
    except RecursionError:  # the program itself stands near the end of its stack
        return _pack(_extension(Code.OPAQUE, _type_name(value))), False


def value_digest(value: Any) -> Digest:
    """The digest of `value` in its key form."""
    return digest(Domain.VALUE, encode_key(value))


class _NoForm(Exception):
    """A value that no key can be made of; `path` leads to it, innermost step first."""

    def __init__(self, type_name: str, why: str) -> None:
        super().__init__(type_name, why)
        self.type = type_name
        self.why = why
        self.path: list[str] = []

    def inside(self, step: object) -> _NoForm:
        """The same, seen from one container further out."""
        self.path.append(str(step))
        return self


class _Walk:
    """One value on its way to what msgspec encodes without loss."""

    __slots__ = ("around", "complete", "parts", "sink", "strict")

    def __init__(self, sink: Sink, *, strict: bool) -> None:
        self.sink = sink
        self.strict = strict
        self.complete = True
        self.around: set[int] = set()  # ids of the containers that the walk is inside of
        self.parts = 0

    def plain(self, value: Any, depth: int) -> Any:
        cls = type(value)  # not __class__, which a proxy or a mock makes up
        if cls is str:
            return self.text(value)
        if cls in _LEAVES:
            return _LEAVES[cls](self, value, depth)
        if depth > MAX_DEPTH:
            return self.unknown(value, "is nested too deeply")
        own = id(value)
        if own in self.around:
            return self.unknown(value, "contains itself")
        self.parts += 1
        if self.parts > MAX_PARTS:
            return self.unknown(value, f"is one of more than {MAX_PARTS} parts")
        self.around.add(own)
        try:
            return (_dispatch.get(cls) or _resolve(cls))(self, value, depth)
        except Exception:  # a property or iterator of the user's object failed; capture goes on without it
            if self.strict:
                raise
            return self.unknown(value, "failed while being read")
        finally:
            self.around.discard(own)

    def text(self, value: str) -> Any:
        if len(value) < REFERENCE_CHARS and (value.isascii() or _is_utf8(value)):
            return self.sink.inline(value)
        return _extension(Code.TEXT, self.sink.text(value))

    def sequence(self, values: Iterable[Any], depth: int) -> list[Any]:
        found: list[Any] = []
        depth += 1
        try:
            for value in values:
                found.append(self.plain(value, depth))
        except _NoForm as error:
            raise error.inside(len(found)) from None
        return found

    def fields(self, values: dict[str, Any], depth: int) -> dict[str, Any]:
        """Parts that stand under names, each name as it may be stored."""
        found: dict[str, Any] = {}
        sink = self.sink
        clean, innocent = sink.clean, sink.innocent
        depth += 1
        name = ""
        try:
            for name, value in values.items():
                cls = type(value)
                if cls is str:
                    if name not in innocent:
                        value = sink.named(name, value)
                    part: Any = clean[value] if value in clean else self.text(value)
                elif cls in _ITSELF or (cls is int and _MIN_INT <= value <= _MAX_INT):
                    part = value
                elif cls is dict and depth < _SMALL_DEPTH and not self.strict and name in innocent:
                    part = self.small(value, depth)
                else:
                    if name not in innocent and cls not in _LEAVES:
                        value = sink.named(name, value)
                    part = self.plain(value, depth)
                found[clean[name] if name in clean else sink.inline(name)] = part
        except _NoForm as error:
            raise error.inside(name) from None
        return found

    def small(self, value: dict[Any, Any], depth: int) -> Any:
        """A dict under a name. Messages hold the same small ones again and again: one that was met is not walked."""
        try:
            marshalled = marshal.dumps(value, 2)  # equal for equal values of the same types; never read back
        except ValueError:
            return self.plain(value, depth)
        if len(marshalled) > _SMALL_BYTES:
            return self.plain(value, depth)
        sink, before = self.sink, self.parts
        if (known := sink.packed(marshalled)) is not None and before + known[1] <= MAX_PARTS:
            self.parts += known[1]
            return known[0]
        packed = _pack(self.plain(value, depth))
        try:  # whether nothing of it was changed, is stored elsewhere or became an extension
            same = packed == _pack(value) and marshalled == marshal.dumps(value, 2)
        except Exception:  # it holds what MessagePack has no type for
            same = False
        if same:
            sink.keep_packed(marshalled, (msgspec.Raw(packed), self.parts - before))
        return msgspec.Raw(packed)

    def unknown(self, value: Any, why: str = "has no canonical form") -> Any:
        if self.strict:
            raise _NoForm(qualified_name(value if isinstance(value, type) else type(value)), why)
        self.complete = False
        return _extension(Code.OPAQUE, _type_name(value))

    def extension(self, code: Code, content: Any) -> Any:
        return _extension(code, _pack(content))


def _is_utf8(text: str) -> bool:
    """Whether MessagePack can hold it: a lone surrogate has no UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _type_name(value: Any) -> bytes:
    """What an opaque marker says: the type, and of a function or class its own name too."""
    kind = type(value)
    name = qualified_name(value) if issubclass(kind, type) else qualified_name(kind)
    if issubclass(kind, (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
        name = f"{name}:{value.__module__}.{value.__qualname__}"
    return text_bytes(name)


def _sequence(walk: _Walk, value: Any, depth: int) -> Any:
    return walk.sequence(value, depth)


def _mapping(walk: _Walk, value: Any, depth: int) -> Any:
    clean = walk.sink.clean
    for key in value:
        if type(key) is not str or not (key in clean or _is_utf8(key)):
            return _pairs(walk, value, depth)
    return walk.fields(value, depth)


def _pairs(walk: _Walk, value: Any, depth: int) -> Any:
    """A mapping whose keys are not all texts."""
    parts = []
    try:
        for pair in value.items():
            key, part = pair
            if type(key) is str:
                part = walk.sink.named(key, part)
            parts.append(walk.plain(part, depth + 1))
    except _NoForm as error:
        raise error.inside(pair[0]) from None
    pairs = sorted(zip(_each(walk, value, "<key>", depth), parts, strict=True), key=lambda pair: pair[0])
    return walk.extension(Code.MAP, [[msgspec.Raw(key), part] for key, part in pairs])


def _each(walk: _Walk, values: Iterable[Any], step: str, depth: int) -> list[bytes]:
    """Each value's own bytes."""
    try:
        return [_pack(walk.plain(value, depth + 1)) for value in values]
    except _NoForm as error:
        raise error.inside(step) from None


def _members(code: Code) -> Callable[[_Walk, Any, int], Any]:
    def members(walk: _Walk, value: Any, depth: int) -> Any:
        encoded = sorted(_each(walk, value, "<member>", depth))
        return walk.extension(code, [msgspec.Raw(part) for part in encoded])

    return members


def _int(walk: _Walk, value: int, depth: int) -> Any:
    value = int(value)
    return value if _MIN_INT <= value <= _MAX_INT else _extension(Code.BIG_INT, format(value, "x").encode())


def _float(walk: _Walk, value: float, depth: int) -> Any:
    return math.nan if value != value else float(value)  # every NaN is one NaN


def _bytes(walk: _Walk, value: Any, depth: int) -> Any:
    data = bytes(value)
    return (
        walk.sink.bare(data)
        if len(data) < REFERENCE_BYTES
        else _extension(Code.BYTES, walk.sink.data(Domain.BYTES, data))
    )


def _enum(walk: _Walk, value: enum.Enum, depth: int) -> Any:
    member = value.value if isinstance(value, enum.Flag) else value.name  # flags combined need have no name
    return walk.extension(Code.ENUM, [qualified_name(type(value)), member])


def _scalar(text: Callable[[Any], str]) -> Callable[[_Walk, Any, int], Any]:
    def scalar(walk: _Walk, value: Any, depth: int) -> Any:
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


def _object(fields: Callable[[Any], dict[str, Any]]) -> Callable[[_Walk, Any, int], Any]:
    def record(walk: _Walk, value: Any, depth: int) -> Any:
        return walk.extension(Code.OBJECT, [qualified_name(type(value)), walk.fields(fields(value), depth)])

    return record


def _item(kind: str, fields: Callable[[Any], dict[str, Any]]) -> Callable[[_Walk, Any, int], Any]:
    def item(walk: _Walk, value: Any, depth: int) -> Any:
        known = walk.sink.seen(value)
        if known is not None:
            return _extension(Code.ITEM, known)
        around, walk.complete = walk.complete, True
        encoded = _pack(walk.fields(fields(value), depth))
        complete, walk.complete = walk.complete, walk.complete and around
        return _extension(Code.ITEM, walk.sink.item(kind, value, encoded, complete))

    return item


def _array(walk: _Walk, value: Any, depth: int) -> Any:
    if value.dtype.hasobject:
        return walk.unknown(value)
    dtype = value.dtype.str if value.dtype.names is None else repr(value.dtype.descr)
    data = tensor_bytes(dtype, value.shape, value.tobytes())
    return _extension(Code.TENSOR, walk.sink.data(Domain.TENSOR, data))


def _pydantic_fields(value: Any) -> dict[str, Any]:
    return {**value.__dict__, **(getattr(value, "__pydantic_extra__", None) or {})}


def _numpy(cls: type) -> _Handler | None:
    """The handler of an array or a scalar of numpy; a masked array is neither, its mask is no bytes of its own."""
    bases = {qualified_name(ancestor) for ancestor in cls.__mro__}
    if "numpy.ma.MaskedArray" in bases or "numpy.ma.core.MaskedArray" in bases:
        return None
    if "numpy.ndarray" in bases or "numpy.void" in bases:
        return _array
    if "numpy.generic" in bases:
        return lambda walk, value, depth: walk.extension(Code.SCALAR, [qualified_name(cls), str(value)])
    return None


_Handler = Callable[["_Walk", Any, int], Any]
_dispatch: dict[type, _Handler] = {
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
_ITSELF = frozenset((bool, type(None)))
_LEAVES: dict[type, _Handler] = {
    type(None): lambda walk, value, depth: None,
    bool: lambda walk, value, depth: value,
    int: _int,
    float: _float,
}


def _resolve(cls: type) -> _Handler:
    """The handler of a class seen for the first time, remembered for the next."""
    handler = _find(cls)
    if len(_dispatch) < 4096:  # classes made in a loop must not grow it for ever
        _dispatch[cls] = handler
    return handler


def _find(cls: type) -> _Handler:
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
            return _dispatch[known]
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


def _exception(walk: _Walk, value: BaseException, depth: int) -> Any:
    if walk.strict:
        return walk.unknown(value)
    return walk.extension(Code.OBJECT, [qualified_name(type(value)), {"args": walk.sequence(value.args, depth)}])
