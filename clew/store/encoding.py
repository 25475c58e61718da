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

from collections.abc import Iterable
from typing import Any

import msgspec

from clew.store.decoding import Code
from clew.store.digest import Digest, Domain, digest
from clew.store.errors import EncodingError
from clew.store.form import (
    ITSELF,
    LEAVES,
    MAX_INT,
    MIN_INT,
    NoForm,
    extension,
    handlers,
    is_utf8,
    pack,
    resolve,
    type_name,
)
from clew.store.form import item_fields as item_fields
from clew.store.form import item_kind as item_kind
from clew.store.form import qualified_name as qualified_name
from clew.store.form import register_item as register_item
from clew.store.plain import is_plain, marshalled
from clew.store.sink import Digester as Digester
from clew.store.sink import Sink as Sink
from clew.store.tensor import tensor_bytes as tensor_bytes
from clew.store.tensor import tensor_parts as tensor_parts

REFERENCE_CHARS = 64
MAX_DEPTH = 64
MAX_PARTS = 1 << 18  # containers in one value; a graph whose nodes share children would unfold without end


_SMALL_BYTES = 256
_SMALL_DEPTH = 8  # from here no dict of that size, 5 bytes for each list in it, nests too deeply


def encode_key(value: Any, sink: Sink | None = None) -> bytes:
    """The canonical bytes of `value`; EncodingError for a type with no canonical form.

    >>> encode_key(1) != encode_key(1.0) != encode_key(True)
    True
    >>> encode_key({"b": 1, "a": (2,)}) == encode_key({"a": (2,), "b": 1}) != encode_key({"a": [2], "b": 1})
    True
    """
    try:
        return pack(_Walk(sink or Digester(), strict=True).plain(value, 0))
    except NoForm as error:
        place = ".".join(["value", *reversed(error.path)])
        raise EncodingError(f"cannot make a key of {place}: {error.type} {error.why}") from None


def encode_capture(value: Any, sink: Sink) -> tuple[bytes, bool]:
    """The bytes of `value` and whether they are complete. Never raises for what it finds in the value."""
    walk = _Walk(sink, strict=False)
    try:
        return pack(walk.plain(value, 0)), walk.complete
    except RecursionError:  # the program itself stands near the end of its stack
        return pack(extension(Code.OPAQUE, type_name(value))), False


def value_digest(value: Any) -> Digest:
    """The digest of `value` in its key form."""
    return digest(Domain.VALUE, encode_key(value))


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
        if cls in LEAVES:
            return LEAVES[cls](self, value, depth)
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
            return (handlers.get(cls) or resolve(cls))(self, value, depth)
        except Exception:  # a property or iterator of the user's object failed; capture goes on without it
            if self.strict:
                raise
            return self.unknown(value, "failed while being read")
        finally:
            self.around.discard(own)

    def text(self, value: str) -> Any:
        if len(value) < REFERENCE_CHARS and (value.isascii() or is_utf8(value)):
            return self.sink.inline(value)
        return extension(Code.TEXT, self.sink.text(value))

    def sequence(self, values: Iterable[Any], depth: int) -> list[Any]:
        found: list[Any] = []
        depth += 1
        try:
            for value in values:
                found.append(self.plain(value, depth))
        except NoForm as error:
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
                elif cls in ITSELF or (cls is int and MIN_INT <= value <= MAX_INT):
                    part = value
                elif cls is dict and depth < _SMALL_DEPTH and not self.strict and name in innocent:
                    part = self.small(value, depth)
                else:
                    if name not in innocent and cls not in LEAVES:
                        value = sink.named(name, value)
                    part = self.plain(value, depth)
                found[clean[name] if name in clean else sink.inline(name)] = part
        except NoForm as error:
            raise error.inside(name) from None
        return found

    def small(self, value: dict[Any, Any], depth: int) -> Any:
        """A dict under a name. Messages hold the same small ones again and again: one that was met is not walked."""
        content = marshalled(value)
        if content is None or len(content) > _SMALL_BYTES:
            return self.plain(value, depth)
        sink, before = self.sink, self.parts
        if (known := sink.packed(content)) is not None and before + known[1] <= MAX_PARTS:
            self.parts += known[1]
            return known[0]
        packed = pack(self.plain(value, depth))
        try:  # whether nothing of it was changed, is stored elsewhere or became an extension
            same = packed == pack(value) and is_plain(value) and content == marshalled(value)
        except Exception:  # it holds what MessagePack has no type for
            same = False
        if same:
            sink.keep_packed(content, (msgspec.Raw(packed), self.parts - before))
        return msgspec.Raw(packed)

    def unknown(self, value: Any, why: str = "has no canonical form") -> Any:
        if self.strict:
            raise NoForm(qualified_name(value if isinstance(value, type) else type(value)), why)
        self.complete = False
        return extension(Code.OPAQUE, type_name(value))

    def extension(self, code: Code, content: Any) -> Any:
        return extension(code, pack(content))
