"""The gate's memory of items keeps none alive and is never wrong about one that changed."""

from __future__ import annotations

import array
import enum
import gc
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage

from clew.store.digest import text_digest
from clew.store.encoding import encode_key
from clew.tracer import memo as memos
from clew.tracer.memo import ItemMemo, ListMemo, content_of


class Item:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class Other(Item):
    pass


class Colour(enum.StrEnum):
    RED = "red"


class Text(str):
    __slots__ = ()


DIGEST = text_digest("it")


def keep(memo: ItemMemo, item: Item) -> None:
    content = content_of(item)
    if content is not None:
        memo.keep(item, content, DIGEST)


def test_an_item_is_known_until_it_changes_however_deep() -> None:
    memo, item = ItemMemo(), Item(text="a", meta={"tags": ["x", {"n": [1]}]})
    assert memo.of(item) is None
    keep(memo, item)
    assert memo.of(item) == DIGEST
    item.__dict__["meta"]["tags"][1]["n"].append(2)
    assert memo.of(item) is None
    item.__dict__["meta"]["tags"][1]["n"].pop()
    assert memo.of(item) == DIGEST
    item.__dict__["more"] = None
    assert memo.of(item) is None


@pytest.mark.parametrize(("before", "after"), [(0, False), (1, 1.0), (0.0, -0.0), ("red", Colour.RED), ((1,), [1])])
def test_an_equal_value_of_another_type_is_a_change(before: Any, after: Any) -> None:
    memo, item = ItemMemo(), Item(meta={"seen": before})
    keep(memo, item)
    assert memo.of(item) == DIGEST
    item.__dict__["meta"]["seen"] = after
    assert memo.of(item) is None


def test_an_equal_item_is_another_one() -> None:
    memo, item = ItemMemo(), Item(text="a")
    keep(memo, item)
    assert memo.of(Item(text="a")) is None


def test_no_item_is_kept_alive_and_its_id_may_be_used_again() -> None:
    memo = ItemMemo()
    for number in range(1000):
        item = Item(text=number)
        assert memo.of(item) is None  # though many have had this id
        keep(memo, item)
    del item
    gc.collect()
    assert memo._kept == {}


@pytest.mark.parametrize(
    "odd",
    [
        object(),
        threading.Lock(),
        Item(x=1),
        np.int64(0),
        np.float64(0),
        np.zeros(1),
        np.bool_(1),
        array.array("d", [0.0]),
        b"",
        [{"deep": (bytearray(b"x"),)}],
    ],
)
def test_an_item_that_holds_more_than_plain_values_is_read_each_time(odd: Any) -> None:
    memo, item = ItemMemo(), Item(odd=odd)
    keep(memo, item)
    assert memo.of(item) is None


def test_what_has_no_fields_or_takes_no_weak_reference_is_not_remembered() -> None:
    class Slotted:
        __slots__ = ("__dict__",)

    memo, slotted = ItemMemo(), Slotted()
    assert content_of(3) is None
    slotted.__dict__["a"] = 1
    memo.keep(slotted, (Slotted, b"content"), DIGEST)
    assert memo.of(slotted) is None
    loop = Item()
    loop.__dict__["self"] = [loop.__dict__]
    assert content_of(loop) is None


def test_an_item_of_equal_content_is_known_too() -> None:
    memo, item = ItemMemo(), Item(text="a" * 100, meta={"n": [1, 2.5, None, True], "t": (1, "x")})
    keep(memo, item)
    again = Item(text="a" * 100, meta={"n": [1, 2.5, None, True], "t": (1, "x")})
    assert memo.alike(content_of(again)) == DIGEST


@pytest.mark.parametrize(
    "other",
    [
        Item(a=1.0),
        Item(a=True),
        Item(a="1"),
        Item(a=b"1"),
        Item(a=[1]),
        Item(b=1),
        Item(a=1, b=None),
        Other(a=1),
        Item(a=np.int64(1)),
        Item(a=object()),
    ],
)
def test_what_differs_in_a_type_alone_is_not_alike(other: Item) -> None:
    memo = ItemMemo()
    keep(memo, Item(a=1))
    assert memo.alike(content_of(Item(a=1))) == DIGEST
    assert memo.alike(content_of(other)) is None


@pytest.mark.parametrize(
    "pair", [("red", Colour.RED), ("red", Text("red")), ((1,), [1]), ({1}, [1]), ({1}, frozenset({1}))]
)
def test_equal_values_of_two_types_are_not_alike(pair: tuple[Any, Any]) -> None:
    for one, other in (pair, pair[::-1]):
        memo = ItemMemo()
        keep(memo, Item(a=[one]))
        assert memo.alike(content_of(Item(a=[other]))) is None


def test_a_field_beyond_the_declared_ones_makes_another_item() -> None:
    memo, message = ItemMemo(), HumanMessage("hi")
    content = content_of(message)
    assert content is not None
    memo.keep(message, content, DIGEST)
    assert memo.of(message) == DIGEST
    message.extra_field = 1
    assert memo.of(message) is None
    assert content_of(message) is None


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(json, json)
def test_alike_means_the_same_encoding(one: Any, other: Any) -> None:
    if content_of(Item(a=one)) == content_of(Item(a=other)):
        assert encode_key({"a": one}) == encode_key({"a": other})


def test_contents_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memos, "_CONTENT_BYTES", 1000)
    memo = ItemMemo()
    items = [Item(text=f"{number:0100}") for number in range(50)]
    for item in items:
        keep(memo, item)
    assert len(memo._alike) < 10
    assert memo.alike(content_of(items[-1])) == DIGEST
    long = content_of(Item(text="x" * 100_000))
    assert long is not None
    assert len(long[1]) == 32


def met(memo: ListMemo, values: list[Any]) -> bytes | None:
    """What a list memo answers; it is told the digest of the list's items where it wants to know."""
    known, content = memo.look(values)
    if known is None and content is not None:
        memo.keep(values, content, digest_of(values))
    return known


def digest_of(values: list[Any]) -> bytes:
    return text_digest(repr([(type(one), one if type(one) is str else one.__dict__) for one in values]))


def test_a_list_is_known_the_third_time_it_is_met_until_something_in_it_changes() -> None:
    memo, item = ListMemo({Item}), Item(a=[1], text="x")
    values = ["text", item]
    assert [met(memo, values) for _ in range(4)] == [None, None, digest_of(values), digest_of(values)]
    for change in (
        lambda: values.append("more"),
        lambda: values.reverse(),
        lambda: item.__dict__["a"].append(True),
        lambda: item.__dict__["a"].__setitem__(0, True),
        lambda: values.__setitem__(0, Other(a=[1], text="x")),
        values.clear,
    ):
        change()
        assert met(memo, values) is None
        assert met(memo, values) in (None, digest_of(values))


def test_a_list_that_another_thread_changes_while_it_is_digested_is_not_remembered() -> None:
    memo, values = ListMemo(set()), ["a"]
    memo.look(values)
    _, content = memo.look(values)
    assert content is not None
    before = digest_of(values)
    values.append("b")
    memo.keep(values, content, before)
    assert memo.look(values)[0] is None


@pytest.mark.parametrize("odd", [1, None, b"x", Text("x"), ["x"], Other(), HumanMessage("hi", more=1)])
def test_a_list_with_anything_but_texts_and_remembered_items_is_looked_at_each_time(odd: Any) -> None:
    memo, values = ListMemo({Item, HumanMessage}), ["a", odd]
    assert [memo.look(values) for _ in range(3)] == [(None, None)] * 3


def test_lists_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memos, "_LISTS", 8)
    memo, lists = ListMemo(set()), [[str(number)] for number in range(50)]
    for values in lists:
        met(memo, values)
    assert len(memo._kept) <= 8
    long = ["x" * 100_000]
    assert [met(memo, long) for _ in range(3)] == [None, None, digest_of(long)]
    ((_, content), _) = memo._kept[id(long)] or (([], b""), b"")
    assert len(content) == 32
