"""Canonical encoding: one value has one sequence of bytes, two values have two, and hostile values break nothing."""

from __future__ import annotations

import collections
import datetime
import decimal
import math
import pathlib
import uuid
import zoneinfo
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.store import decoding, encoding
from clew.store.decoding import Record, Reference, decode
from clew.store.digest import Digest, Domain, digest, text_digest
from clew.store.encoding import encode_capture, encode_key, value_digest
from clew.store.sink import Digester
from clew.store.tensor import tensor_bytes, tensor_parts
from tests.store.encoding_bed import Access, Colour, Model, Pair, Point, Rank, Struct

GOLDEN: dict[str, tuple[Any, str]] = {
    "null": (None, "b3:86197b30ea5157a9cc609e1fd89a1d394e7d114256a035b1bc939f2dd17d8b70"),
    "true": (True, "b3:d8d374ff103e8df32040e490106e10d5b8c0f878535d67bf42d6dc37746a7917"),
    "false": (False, "b3:373e458bda3a206535f89785d304d28cf4239bda9f96f8bf8674528e52309f5b"),
    "int_0": (0, "b3:31c29b24539afc4b43c18606cdb3fff854a5b6272cdcec62b21c21983c577e47"),
    "int_1": (1, "b3:745a6f64b4566fbf2a5acba1017c3f9529bacea7aa6a307be65b61b5f3f58672"),
    "int_minus_1": (-1, "b3:bad072a4302e3873a07e79614fff402d65085cf0a0abee67ffccad537f3edaeb"),
    "int_64_bits": (2**64 - 1, "b3:3ad903827257857df3158f9f28bfc06d73e5aec601578e13ab2737f0a3e6e2f4"),
    "int_65_bits": (2**64, "b3:d1c3230f355646fc7d9c0a911dcb1b516029a31960d62015774570270161d3cc"),
    "int_huge_negative": (-(10**30), "b3:82ec174a82bb8a29aa22fc358a60f38950bf3c482fbca861f26967641c85715e"),
    "float_0": (0.0, "b3:de03b88e43389e940d8ce001fb7ed6dfa9aa30a42a982927c90166711dc04a0c"),
    "float_minus_0": (-0.0, "b3:bfbc37c446ef83658b8413afacfaba6baa11bfc001c1384bed62564be572fb86"),
    "float_1": (1.0, "b3:31b92b54259e11ffac96e4652ce65ac80d1c399991ab20315bbb666d06ae014f"),
    "float_tenth": (0.1, "b3:bb048422097e03bb67c48c95baa6506f019a6e88ee7216e1482fd1c69ec99632"),
    "nan": (math.nan, "b3:be5f5e415d525d9b3f6ed2b5f73737834cdfcc8c56b07ee26f69c080b7bc11a2"),
    "infinity": (math.inf, "b3:8274893bcdc1da5514e972d4a3df811686918368644eaec59f5249bebe7aab03"),
    "text_empty": ("", "b3:503e58eaf6f6511372ffdc72beb868d0a8048a401ec40a61a5ae294a65fd0aa4"),
    "text_short": ("Grüße", "b3:d0f68a80d8cde9c3ad8383768732765a0258faaffaf7aef881094b573354820f"),
    "text_long": ("x" * 64, "b3:b2b7beb461a4ae667554ed1bd13952a95c7957e13d3cab0b0eb125a7c43b28d9"),
    "text_lone_surrogate": ("\ud800", "b3:61f4d34e39eb8afc40d81774990286392c71b4e65d4956081429603a3395d095"),
    "bytes_empty": (b"", "b3:54b389ad5e2513dc0d26fe53d3166d5919141e23913ac49ec01082d512a0d067"),
    "bytes_short": (b"x", "b3:8684fa66f75b80b62472e6548cb7cb3c3813629cde7dfe657f82c48267c0b389"),
    "bytes_long": (b"x" * 256, "b3:fdb055635f3d514f0d6c61670e91e0be9d21e7427c612356ca85d01c05991d7f"),
    "list": ([1, "a", None], "b3:94c39188f9c42f4265011234ccc64121ee7c425e4249a9fc014a18ae36dcda47"),
    "tuple": ((1, "a", None), "b3:58e5dbaa4ef3f55a700c1f0533dc660515d0b38f9eb88999e1781a443067a843"),
    "set": ({3, 1, 2}, "b3:4cbbaa29b21c5cc6d6df668dc2195caf17fa4e0dfa7c761a7da907e45e784962"),
    "frozenset": (frozenset({3, 1, 2}), "b3:673fb3e75a2d4ce89542fa87554f51a9a00f19acc226353a5e375069232087c4"),
    "dict": ({"b": 1, "a": [2, {"c": (3,)}]}, "b3:2a16c1904c35affa31e343d13e3715d74cb3953252b79717c538c3d4ef18d837"),
    "dict_of_other_keys": (
        {1: "int", 1.5: "float", (1, 2): "tuple", b"k": "bytes"},
        "b3:a39cef6331d9e2270d88d10d62117779c6670760d4849503fc88a4a9b0b5113c",
    ),
    "complex": (1 - 2j, "b3:f2f38c6c331f51a1018f98dcb38447c8dccc6daa8507810dc9176f0e6db7d96f"),
    "datetime": (
        datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
        "b3:f14217ef76962e9bc8bb6231a75612b085596e1468f2f9e0fca39012edab40ed",
    ),
    "date": (datetime.date(2026, 1, 2), "b3:9bce74c41e0804356c9d02b28e733e4d6730e01ffacaec8f69b64822c13e5719"),
    "timedelta": (
        datetime.timedelta(days=-1, microseconds=1),
        "b3:8f16026e103e0de579053401278569eb03f60f20e1c41189e4ed499d48ce2abb",
    ),
    "decimal": (decimal.Decimal("1.10"), "b3:eccb4e382670f0a5cf30a18f200ee0b452bc08dd9209fe9b5ffdd1d867a8a902"),
    "uuid": (uuid.UUID(int=7), "b3:6c99fa38bf003f5a56944681d87a6b891de8463014527814f8643495804a7fdd"),
    "path": (pathlib.PurePosixPath("a/b"), "b3:2c6d62cb086051358cf09679a5e0deef841e214fdf46b395ffd04d4db7218947"),
    "range": (range(1, 9, 2), "b3:d930c0202a2c55145ef7e923efc9afb64733191da422777e66d8e5363ae08bed"),
    "array": (
        np.arange(6, dtype="<f4").reshape(2, 3),
        "b3:d36e79457f3adb3f748c141ecd5faff9ac711b18cb6b68a6f4ea8cb27df2f30f",
    ),
}

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(), max_size=80)
    | st.binary(max_size=300),
    lambda parts: (
        st.lists(parts, max_size=4)
        | st.lists(parts, max_size=4).map(tuple)
        | st.dictionaries(st.text(st.characters(), max_size=8), parts, max_size=4)
        | st.dictionaries(st.integers() | st.text(max_size=3) | st.binary(max_size=3), parts, max_size=4)
        | st.sets(st.integers() | st.text(max_size=80) | st.binary(max_size=3), max_size=4)
        | st.frozensets(st.integers() | st.text(max_size=3), max_size=4)
    ),
    max_leaves=12,
)


class Kept(Digester):
    """Keeps what it is given, so that a value can be read back whole."""

    def __init__(self) -> None:
        self.texts: dict[Digest, str] = {}
        self.parts: dict[Digest, tuple[Domain, bytes]] = {}

    def text(self, text: str) -> Digest:
        name = super().text(text)
        self.texts[name] = text
        return name

    def data(self, domain: Domain, data: bytes) -> Digest:
        name = super().data(domain, data)
        self.parts[name] = (domain, data)
        return name

    def resolve(self, code: decoding.Code, name: Digest) -> Any:
        return self.texts[name] if code is decoding.Code.TEXT else self.parts[name][1]


def typed(value: Any) -> Any:
    """What `==` forgets: 1, 1.0 and True are three values, a list is no tuple, -0.0 is not 0.0."""
    if isinstance(value, (list, tuple)):
        return (type(value), tuple(map(typed, value)))
    if isinstance(value, (set, frozenset)):
        return (type(value), frozenset(map(typed, value)))
    if isinstance(value, dict):
        return (dict, frozenset((typed(key), typed(part)) for key, part in value.items()))
    if isinstance(value, float):
        return (float, value, math.copysign(1, value))
    return (type(value), value)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_digest_of_a_value_is_golden(name: str) -> None:
    value, expected = GOLDEN[name]
    assert str(value_digest(value)) == expected


def test_no_two_golden_values_share_a_digest() -> None:
    assert len({value_digest(value) for value, _ in GOLDEN.values()}) == len(GOLDEN)


@given(plain)
def test_a_value_is_read_back_as_it_was(value: Any) -> None:
    kept = Kept()
    assert typed(decode(encode_key(value, kept), kept.resolve)) == typed(value)


@given(plain, plain)
def test_different_values_have_different_bytes(one: Any, other: Any) -> None:
    assert (encode_key(one) == encode_key(other)) == (typed(one) == typed(other))


@given(st.dictionaries(st.text(max_size=5) | st.integers(), st.integers(), max_size=6), st.randoms())
def test_the_order_of_a_dict_does_not_matter(value: dict[Any, int], random: Any) -> None:
    pairs = list(value.items())
    random.shuffle(pairs)
    assert encode_key(dict(pairs)) == encode_key(value) == encode_key(collections.OrderedDict(pairs))


@given(plain)
def test_capture_gives_a_plain_value_the_bytes_of_its_key(value: Any) -> None:
    assert encode_capture(value, Digester()) == (encode_key(value), True)


@pytest.mark.parametrize(
    "values",
    [
        [1, 1.0, True, "1", b"1", decimal.Decimal(1), Rank.FIRST, np.int64(1), np.float32(1)],
        [0.0, -0.0, 0, False, None, "", b"", [], (), {}, set(), frozenset()],
        [["a"], ("a",), {"a"}, frozenset({"a"}), "a", b"a", {"a": None}, [["a"]]],
        [{1: "x"}, {"1": "x"}, {1.0: "x"}, {True: "x"}, {b"1": "x"}, {(1,): "x"}],
        [[1, 2], [2, 1], [[1], 2], [1, [2]], [12]],
        [Access.READ, Access.WRITE, Access.READ | Access.WRITE, Access(64), Access(128)],
        [Point(1), Point(1, 2), Struct(1), Model(x=1), Model(x=1, y=2), {"x": 1}, Pair(1, 2), (1, 2), Colour.RED],
        [uuid.UUID(int=1), str(uuid.UUID(int=1)), uuid.UUID(int=1).bytes, uuid.UUID(int=1).int],
        [decimal.Decimal("1.0"), decimal.Decimal("1.00"), "1.0"],
        [pathlib.PurePosixPath("a"), "a"],
        [2**64, -(2**64), str(2**64), 2.0**64],
        [
            datetime.datetime(2026, 10, 25, 2, 30),
            datetime.datetime(2026, 10, 25, 2, 30, fold=1),
            datetime.datetime(2026, 10, 25, 2, 30, tzinfo=datetime.UTC),
            datetime.datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
            datetime.date(2026, 10, 25),
        ],
        [
            np.zeros(4, "u1"), np.zeros(1, "u4"), np.zeros((2, 2), "u1"), np.zeros((4, 1), "u1"), np.zeros(4, "i1"),
            np.zeros(1, [("a", "i4")]), np.zeros(1, [("b", "i4")]), np.zeros(1, [("a", "f4")]), bytes(4),
        ],
        [np.arange(5000.0), np.concatenate([np.arange(2500.0), [7.0], np.arange(2501, 5000.0)])],
        ["x" * 64, b"x" * 64, text_digest("x" * 64)],
    ],
    ids=lambda values: type(values[0]).__name__,
)  # fmt: skip
def test_what_looks_alike_is_told_apart(values: list[Any]) -> None:
    assert len({encode_key(value) for value in values}) == len(values)
    assert len({value_digest([value]) for value in values}) == len(values)


def test_every_nan_is_one_nan() -> None:
    quiet, other = math.nan, np.array([0x7FF8000000000001], "u8").view("f8")[0]
    assert encode_key(quiet) == encode_key(float(other)) == encode_key(-quiet)


def test_an_array_is_the_same_whatever_its_memory_looks_like() -> None:
    array = np.arange(12.0).reshape(3, 4)
    assert encode_key(array) == encode_key(np.asfortranarray(array)) == encode_key(array.repeat(2, 0)[::2])


def test_the_bytes_of_an_array_lead_back_to_it() -> None:
    array = np.arange(6, dtype=">i2").reshape(3, 2)
    dtype, shape, elements = tensor_parts(tensor_bytes(array.dtype.str, array.shape, array.tobytes()))
    assert np.array_equal(np.frombuffer(elements, dtype).reshape(shape), array)


def test_a_zone_without_a_name_of_its_own_has_no_address_in_its_key() -> None:
    class Zone(datetime.tzinfo):
        def utcoffset(self, when: datetime.datetime | None) -> datetime.timedelta:
            return datetime.timedelta(hours=1)

    moments = [datetime.datetime(2026, 1, 1, tzinfo=Zone()) for _ in range(2)]
    assert encode_key(moments[0]) == encode_key(moments[1])


def test_a_long_text_is_one_content_wherever_it_stands() -> None:
    text = "a text that is long enough to be content of its own, which is 64 characters"
    kept = Kept()
    encode_key({"deep": [{"er": (text,)}], "and": text}, kept)
    assert kept.texts == {text_digest(text): text}
    assert decode(encode_key(text)) == Reference(decoding.Code.TEXT, text_digest(text))


def test_objects_are_read_back_by_name_and_never_imported() -> None:
    assert decode(encode_key(Point(1, [2]))) == Record(f"{Point.__module__}.Point", {"x": 1, "y": [2]})
    assert decode(encode_key(Pair(1, 2))) == Record(f"{Pair.__module__}.Pair", {"left": 1, "right": 2})
    assert decode(encode_key(Colour.RED)) == Record(f"{Colour.__module__}.Colour", "RED")
    assert decode(encode_key(Model(x=1, more="m"))) == Record(f"{Model.__module__}.Model", {"x": 1, "more": "m"})


def test_an_item_is_the_same_in_every_framework_and_a_subclass_of_it_too() -> None:
    class Mine:
        text = "t"

    class Theirs:
        text = "t"

    class Late(Theirs):
        pass

    unregistered = encode_capture(Late(), Digester())
    for cls in (Mine, Theirs):
        encoding.register_item(cls, "document", lambda it: {"text": it.text})
    assert unregistered[1] is False
    assert encode_key(Mine()) == encode_key(Theirs()) == encode_key(Late())
    assert encoding.item_kind(Late) == "document"
    assert encoding.item_fields(Late()) == {"text": "t"}
    name = digest(Domain.VALUE, encode_key({"text": "t"}))
    assert decode(encode_key(Mine())) == Reference(decoding.Code.ITEM, name)


class Everything:
    def __contains__(self, name: object) -> bool:
        return True


class Remembering(Digester):
    """Remembers small dicts, as the gate does."""

    innocent = Everything()

    def __init__(self) -> None:
        self.kept: dict[bytes, Any] = {}

    def packed(self, marshalled: bytes) -> Any:
        return self.kept.get(marshalled)

    def keep_packed(self, marshalled: bytes, packed: Any) -> None:
        self.kept[marshalled] = packed


small = st.dictionaries(
    st.text(max_size=3),
    plain | st.sampled_from([Rank.FIRST, np.int64(1), bytearray(b"x"), "\ud800", 2**70, object(), "x" * 70]),
    max_size=3,
)


@given(st.lists(small, max_size=4))
def test_a_small_dict_that_was_met_before_has_the_bytes_it_had(parts: list[dict[str, Any]]) -> None:
    sink = Remembering()
    for part in [*parts, *parts]:
        value = {"extra": part, "more": {"deep": part}}
        assert encode_capture(value, sink) == encode_capture(value, Digester())


def test_of_small_dicts_only_those_are_remembered_that_stand_in_the_encoding_as_they_are() -> None:
    sink = Remembering()
    kept = {"a": 1, "b": [None, True, 1.5, "text"], "c": {"d": {}}}
    others: list[dict[Any, Any]] = [{"a": (1,)}, {"a": "x" * 64}, {1: 2}, {"a": Rank.FIRST}, {"a": math.nan, "b": {1}}]
    for part in [kept, *others]:
        encode_capture({"extra": part}, sink)
    assert [msgspec.msgpack.decode(packed) for packed, _ in sink.kept.values()] == [{}, {"d": {}}, kept]
    assert [count for _, count in sink.kept.values()] == [1, 2, 4]


def test_parts_of_small_dicts_count_when_they_are_met_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_PARTS", 20)
    value = {str(number): {"a": {"b": 1}} for number in range(20)}
    sink = Remembering()
    first = encode_capture(value, sink)
    assert not first[1]
    assert encode_capture(value, sink) == first == encode_capture(value, Digester())


@pytest.mark.parametrize("other", [np.int64(5), np.array([5]), np.float64(2.5e-323), bytearray(b"\5" + bytes(7))])
def test_a_small_dict_with_a_buffer_is_not_one_with_its_bytes(other: Any) -> None:
    sink = Remembering()
    for part in (b"\5" + bytes(7), other, b"\5" + bytes(7), other):
        value = {"extra": {"x": part}}
        assert encode_capture(value, sink) == encode_capture(value, Digester())
