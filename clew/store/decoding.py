"""Reading back what `encoding` wrote: plain Python, with markers where no plain type fits. No class is imported for it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import msgspec

from clew.store.digest import Digest, text_of


class Code(enum.IntEnum):
    """Extension codes. They stand in logs: append, never renumber."""

    TEXT = 1
    BYTES = 2
    TENSOR = 3
    ITEM = 4
    TUPLE = 5
    SET = 6
    FROZENSET = 7
    BIG_INT = 8
    MAP = 9
    ENUM = 10
    OBJECT = 11
    OPAQUE = 12
    SCALAR = 13


class Record(msgspec.Struct, frozen=True):
    """A decoded object of a class that is not imported on reading: its qualified name and its fields."""

    type: str
    fields: Any


class Opaque(msgspec.Struct, frozen=True):
    """What stood where a value could not be encoded: the qualified name of its type."""

    type: str


class Reference(msgspec.Struct, frozen=True):
    """A decoded reference to a part stored under its own digest."""

    code: Code
    digest: Digest


def decode(data: bytes, resolve: Callable[[Code, Digest], Any] = Reference) -> Any:
    """The value of `data`: plain Python, with `Record`, `Opaque` and `Reference` where no plain type fits.

    `resolve(code, digest)` is called for each part stored under its own digest; what it returns stands in the value.
    """

    def unpack(content: Any) -> Any:
        return msgspec.msgpack.decode(content, ext_hook=hook)

    def hook(number: int, content: memoryview) -> Any:
        code = Code(number)
        match code:
            case Code.TEXT | Code.BYTES | Code.TENSOR | Code.ITEM:
                return resolve(code, Digest(content))
            case Code.TUPLE:
                return tuple(unpack(content))
            case Code.SET | Code.FROZENSET:
                return (set if code is Code.SET else frozenset)(_hashable(part) for part in unpack(content))
            case Code.BIG_INT:
                return int(bytes(content), 16)
            case Code.MAP:
                return {_hashable(key): value for key, value in unpack(content)}
            case Code.OPAQUE:
                return Opaque(text_of(bytes(content)))
            case _:
                name, fields = unpack(content)
                return Record(name, fields)

    return unpack(data)


def parts(data: bytes) -> list[Digest]:
    """The parts of a value that are stored under their own digests."""
    found: list[Digest] = []
    decode(data, lambda _, part: found.append(part))
    return found


def legible(number: int) -> int | str:
    """`number`, in hexadecimal where it has more digits than Python prints (`sys.set_int_max_str_digits`)."""
    try:
        str(number)
    except ValueError:
        return hex(number)
    return number


def printed(value: Any) -> str:
    """`value` as Python prints it; of what holds a number that Python does not print, the type."""
    try:
        return str(value)
    except ValueError:
        return hex(value) if isinstance(value, int) else f"{type(value).__name__}[…]"


def _hashable(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_hashable(part) for part in value)
    if isinstance(value, dict):
        return tuple(sorted((key, _hashable(part)) for key, part in value.items()))
    if isinstance(value, Record):
        return Record(value.type, _hashable(value.fields))
    return value
