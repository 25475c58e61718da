"""The gate's memory of items keeps none alive and is never wrong about one that changed."""

from __future__ import annotations

import array
import enum
import gc
import threading
import weakref
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
    look = memo.look(item)
    if look is not None and memo.same(look):
        memo.keep(look, DIGEST)


def alike(memo: ItemMemo, item: Any) -> bytes | None:
    look = memo.look(item)
    return None if look is None else memo.alike(look)


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


@pytest.mark.parametrize("length", [1, 10_000])
def test_an_equal_item_is_known_and_one_of_another_class_is_not(length: int) -> None:
    memo, item, equal = ItemMemo(), Item(text="a" * length), Item(text="a" * length)
    keep(memo, item)
    look = memo.look(equal)
    assert look is not None
    assert memo.alike(look) == memo.of(equal) == DIGEST
    other = Other(text="a" * length)
    assert memo.of(other) is None
    assert (look := memo.look(other)) is not None
    assert memo.alike(look) is None


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
    assert content_of(slotted) is not None
    assert memo.look(slotted) is None
    loop = Item()
    loop.__dict__["self"] = [loop.__dict__]
    assert content_of(loop) is None


def test_an_item_of_equal_content_is_known_too() -> None:
    memo, item = ItemMemo(), Item(text="a" * 100, meta={"n": [1, 2.5, None, True], "t": (1, "x")})
    keep(memo, item)
    again = Item(text="a" * 100, meta={"n": [1, 2.5, None, True], "t": (1, "x")})
    assert alike(memo, again) == DIGEST


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
    assert alike(memo, Item(a=1)) == DIGEST
    assert alike(memo, other) is None


@pytest.mark.parametrize(
    "pair", [("red", Colour.RED), ("red", Text("red")), ((1,), [1]), ({1}, [1]), ({1}, frozenset({1}))]
)
def test_equal_values_of_two_types_are_not_alike(pair: tuple[Any, Any]) -> None:
    for one, other in (pair, pair[::-1]):
        memo = ItemMemo()
        keep(memo, Item(a=[one]))
        assert alike(memo, Item(a=[other])) is None


def test_a_field_beyond_the_declared_ones_makes_another_item() -> None:
    memo, message = ItemMemo(), HumanMessage("hi")
    keep(memo, message)
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
    assert alike(memo, items[-1]) == DIGEST
    long = content_of(Item(text="x" * 100_000))
    assert long is not None
    assert len(long[1]) == 32


def test_an_item_that_another_thread_changes_while_it_is_encoded_is_not_the_same() -> None:
    memo, item = ItemMemo(), Item(text="a", meta={"n": [1]})
    look = memo.look(item)
    assert look is not None
    assert memo.same(look)
    item.__dict__["meta"]["n"].append(2)
    assert not memo.same(look)


def test_an_item_that_another_thread_changes_before_it_is_kept_is_known_as_it_was() -> None:
    memo, item = ItemMemo(), Item(text="a", meta={"n": [1]})
    look = memo.look(item)
    assert look is not None
    item.__dict__["meta"]["n"].append(2)
    memo.keep(look, DIGEST)
    assert memo.of(item) is None
    item.__dict__["meta"]["n"].pop()
    assert memo.of(item) == DIGEST


@pytest.mark.parametrize(
    ("before", "after"),
    [(0, False), (1, 1.0), (1, True), (0.0, -0.0), ("red", Colour.RED), ("x", Text("x")), ((1,), [1]), ("a", "b")],
)
def test_a_field_that_is_replaced_by_its_equal_of_another_type_is_a_change(before: Any, after: Any) -> None:
    memo, item = ItemMemo(), Item(text="t", value=before)
    keep(memo, item)
    assert memo.of(item) == DIGEST
    item.__dict__["value"] = after
    assert memo.of(item) is None


def test_a_field_that_is_replaced_by_another_object_of_the_same_content_is_no_change() -> None:
    memo, item = ItemMemo(), Item(text="".join(["a", "b"]), number=10.5, meta={"n": [1]})
    keep(memo, item)
    item.__dict__.update(text="".join(["a", "b"]), number=float("10.5"), meta={"n": [1]})
    assert memo.of(item) == DIGEST


def test_a_field_of_another_name_or_place_is_a_change() -> None:
    memo, item = ItemMemo(), Item(a="x", b=None)
    keep(memo, item)
    value = item.__dict__.pop("b")
    item.__dict__["c"] = value
    assert memo.of(item) is None
    del item.__dict__["c"]
    assert memo.of(item) is None


def test_an_item_in_which_something_odd_was_put_is_read_each_time() -> None:
    memo, item = ItemMemo(), Item(meta={"n": [1]})
    keep(memo, item)
    item.__dict__["meta"]["n"][0] = object()
    assert memo.of(item) is None


def lists_of(*classes: type) -> ListMemo:
    items = ItemMemo()
    items.classes.update(classes)
    return ListMemo(items)


def met(memo: ListMemo, values: list[Any]) -> bytes | None:
    """What a list memo answers; it is told the digest of the list's items where it wants to know."""
    content = memo.content_of(values)
    if content is None:
        return None
    known = memo.of(content)
    if known is None:
        memo.keep(content, values, digest_of(values))
    return known


def digest_of(values: list[Any]) -> bytes:
    return text_digest(repr([(type(one), str(one) if isinstance(one, str) else one.__dict__) for one in values]))


def test_a_list_is_known_when_it_is_met_again_until_something_in_it_changes() -> None:
    memo = lists_of(Item, Other)
    item = Item(a=[1], text="x", n=1)
    values: list[Any] = [item, Item(text="y")]
    assert [met(memo, values) for _ in range(3)] == [None, digest_of(values), digest_of(values)]
    assert met(memo, [Item(a=[1], text="x", n=1), Item(text="y")]) == digest_of(values)
    for change in (
        lambda: values.append(values[0]),
        values.reverse,
        lambda: item.__dict__["a"].append(True),
        lambda: item.__dict__["a"].__setitem__(0, True),
        lambda: item.__dict__.__setitem__("n", True),
        lambda: item.__dict__.__setitem__("m", item.__dict__.pop("n")),
        lambda: values.__setitem__(0, Other(a=[1], text="x")),
        lambda: values.__setitem__(0, Item(a=[1], text="x")),
        values.clear,
    ):
        before = digest_of(values)
        change()
        if values and digest_of(values) != before:
            assert met(memo, values) is None
        assert met(memo, values) in (None, digest_of(values))
        assert met(memo, values) in (None, digest_of(values))


def test_a_message_in_a_list_that_is_given_a_field_beyond_its_own_makes_another_list() -> None:
    memo, message = lists_of(HumanMessage), HumanMessage("hi")
    values = [message, HumanMessage("ho")]
    assert [met(memo, values) for _ in range(2)][1] == digest_of(values)
    message.extra_field = 1
    assert memo.content_of(values) is None


def test_a_list_that_another_thread_changes_while_it_is_digested_is_not_taken_for_what_it_was() -> None:
    memo, item = lists_of(Item), Item(a=[1])
    values = [item]
    before = memo.content_of(values)
    assert before is not None
    item.__dict__["a"].append(2)
    memo.keep(before, values, digest_of(values))
    assert memo.of(before) is None
    after = memo.content_of(values)
    assert after is not None
    assert memo.of(after) is None


@pytest.mark.parametrize("odd", [1, None, b"x", Text("x"), ["x"], Other(), "x"])
def test_a_list_with_anything_but_remembered_items_is_looked_at_each_time(odd: Any) -> None:
    memo, values = lists_of(Item), [Item(), odd]
    assert memo.content_of(values) is None


def test_lists_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memos, "_LISTS", 8)
    memo, lists = lists_of(Item), [[Item(a=number)] for number in range(50)]
    for values in lists:
        met(memo, values)
    assert len(memo._kept) <= 8
    long = [Item(a="x" * 100_000)]
    assert [met(memo, long) for _ in range(4)] == [None] * 4


def test_a_list_does_not_keep_its_items_alive() -> None:
    memo, item = lists_of(Item), Item(a="x")
    values = [item]
    for _ in range(3):
        met(memo, values)
    gone = weakref.ref(item)
    del values, item
    gc.collect()
    assert gone() is None
