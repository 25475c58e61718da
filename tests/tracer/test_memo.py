"""The gate's memory of items keeps none alive and is never wrong about one that changed."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from clew.store.digest import text_digest
from clew.tracer.memo import ItemMemo, fields_of


class Item:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


DIGEST = text_digest("it")


def keep(memo: ItemMemo, item: Item) -> None:
    fields = fields_of(item)
    if fields is not None:
        memo.keep(item, fields, DIGEST)


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


@pytest.mark.parametrize("odd", [object(), {1, 2}, threading.Lock(), Item(x=1)])
def test_an_item_that_holds_more_than_plain_values_is_read_each_time(odd: Any) -> None:
    memo, item = ItemMemo(), Item(odd=odd)
    keep(memo, item)
    assert memo.of(item) is None


def test_what_has_no_fields_or_takes_no_weak_reference_is_not_remembered() -> None:
    class Slotted:
        __slots__ = ("__dict__",)

    memo, slotted = ItemMemo(), Slotted()
    assert fields_of(3) is None
    slotted.__dict__["a"] = 1
    memo.keep(slotted, {"a": 1}, DIGEST)
    assert memo.of(slotted) is None
    loop = Item()
    loop.__dict__["self"] = [loop.__dict__]
    assert fields_of(loop) is None
