"""What has no canonical form makes no key, and capture takes it, whatever it does."""

from __future__ import annotations

import collections
import fractions
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import pytest

from clew.store import encoding
from clew.store.decoding import Opaque, decode
from clew.store.encoding import encode_capture, encode_key
from clew.store.errors import EncodingError
from clew.store.sink import Digester
from tests.store.encoding_bed import Access, Point


class Secretive:
    """Has no fields that anyone may read."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Secretive(), r"value: .*\.Secretive"),
        ({"a": [1, {"b": Secretive()}]}, r"value\.a\.1\.b: .*\.Secretive"),
        ([print], r"value\.0: builtins\.builtin_function_or_method"),
        ({"x": (i for i in range(3))}, r"value\.x: builtins\.generator"),
        (Point(1, Secretive()), r"value\.y: .*\.Secretive"),
        ({"k": {Secretive()}}, r"value\.k\.<member>: .*\.Secretive"),
        ({Secretive(): 1}, r"value\.<key>: .*\.Secretive"),
        ([ValueError("x")], r"value\.0: builtins\.ValueError"),
        (np.array([object()]), r"value: numpy\.ndarray"),
        (np.ma.masked_array([1, 2], [0, 1]), r"value: numpy\.ma.*MaskedArray"),
        (pd.DataFrame({"a": [1]}), r"value: pandas.*DataFrame"),
        (fractions.Fraction(1, 2), r"value: fractions\.Fraction"),
    ],
)
def test_a_key_of_an_unknown_type_is_an_error_that_names_the_path(value: Any, path: str) -> None:
    with pytest.raises(EncodingError, match=path):
        encode_key(value)


def test_a_key_of_what_contains_itself_is_an_error() -> None:
    cycle: dict[str, Any] = {"list": []}
    cycle["list"].append(cycle)
    with pytest.raises(EncodingError, match=r"value\.list\.0: builtins\.dict contains itself"):
        encode_key(cycle)


class RaisingProperty(pydantic.BaseModel):
    model_config = {"extra": "allow"}

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no")


class RaisingClass:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("working outside of request context")


class Pretender:
    __class__ = str  # type: ignore[assignment]


class RaisingIterator(list[int]):
    def __iter__(self) -> Iterator[int]:
        yield 1
        raise ValueError("half way")


class RaisingItems(dict[str, int]):
    def items(self) -> Any:
        raise KeyError("no items")


class RaisingEverything:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __call__(self) -> None:
        raise RuntimeError("call")


class Bottomless:
    """Never runs out of fields."""

    def __init__(self) -> None:
        self.x = 1


def registered_bottomless() -> Bottomless:
    encoding.register_item(Bottomless, "message", lambda it: {"next": Bottomless()})
    return Bottomless()


def list_cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle += [cycle] * 10
    return cycle


def tree_cycle() -> Point:
    root = Point(0, [])
    root.y += [Point(number, root) for number in range(50)]
    return root


def doubled() -> list[Any]:
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]
    return value


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


HOSTILE: dict[str, Callable[[], Any]] = {
    "raising property": lambda: RaisingProperty.model_construct(),
    "raising __class__": RaisingClass,
    "a __class__ that lies": Pretender,
    "raising iterator": lambda: RaisingIterator([1]),
    "raising items": lambda: RaisingItems(a=1),
    "raising everything": RaisingEverything,
    "bottomless": registered_bottomless,
    "cyclic list": list_cycle,
    "cyclic objects": tree_cycle,
    "shared children": doubled,
    "deep": lambda: deep(100_000),
    "generator": lambda: (number for number in range(3)),
    "class": lambda: Secretive,
    "lambda": lambda: lambda: 1,
    "builtin": lambda: print,
    "method": lambda: Secretive().__str__,
    "module": lambda: math,
    "file": lambda: open,
    "object array": lambda: np.array([object()]),
    "masked array": lambda: np.ma.masked_array([1], [1]),
    "frame": lambda: pd.DataFrame({"a": [1]}),
    "exception of objects": lambda: ValueError(Secretive()),
    "memory of no bytes": lambda: memoryview(b"").cast("B"),
    "ellipsis": lambda: ...,
}
COMPLETE = {"memory of no bytes"}


@pytest.mark.parametrize("name", HOSTILE)
def test_capture_takes_anything_and_says_that_it_is_incomplete(name: str) -> None:
    value = HOSTILE[name]()
    data, complete = encode_capture({"before": 1, "value": value, "after": 2}, Digester())
    assert complete is (name in COMPLETE)
    read = decode(data)
    assert (read["before"], read["after"]) == (1, 2)  # the rest is there
    assert encode_capture({"before": 1, "value": HOSTILE[name](), "after": 2}, Digester())[0] == data


@pytest.mark.parametrize(
    "value",
    [
        10**5000,
        {"\ud800": "\udfff"},
        "\ud800" * 100,
        Access(64),
        np.array(["a", "bc"]),
        np.array(3.5),
        np.zeros((0, 3)),
        np.datetime64("2026-01-01"),
        np.zeros(2, [("a", "i4")])[0],
        np.rec.array([(1, 2.0)]),
        np.bool_(True),
        pd.Timestamp("2026-01-01T00:00:00.123456789"),
        pd.NaT,
        bytearray(b"x"),
        memoryview(np.arange(6).reshape(2, 3)[:, ::2]),
        collections.Counter("aab"),
        collections.defaultdict(list, a=[1]),
        ValueError("said"),
    ],
    ids=lambda value: type(value).__qualname__,
)
def test_capture_knows_these_whole(value: Any) -> None:
    data, complete = encode_capture([value], Digester())
    assert complete
    assert len(decode(data)) == 1


def test_capture_near_the_end_of_the_stack_is_an_opaque_marker() -> None:
    def at_the_end(value: Any) -> tuple[bytes, bool]:
        try:
            return at_the_end(value)
        except RecursionError:
            return encode_capture(value, Digester())

    data, complete = at_the_end(deep(40))
    assert isinstance(decode(data), (list, Opaque))
    assert complete or b"builtins.list" in data


def test_an_opaque_marker_names_the_type_and_holds_no_address() -> None:
    assert decode(encode_capture(Secretive(), Digester())[0]) == Opaque(f"{__name__}.Secretive")
    assert decode(encode_capture(deep, Digester())[0]) == Opaque(f"builtins.function:{__name__}.deep")
    assert b"0x" not in encode_capture([Secretive(), lambda: 1, Secretive().__str__], Digester())[0]
