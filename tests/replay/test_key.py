"""Keys: any part of a request that differs makes another key, and what says the same makes the same."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from clew.integrations.langchain.model_exchange import ModelExchange
from clew.replay.key import key_of
from clew.replay.value_exchange import ValueExchange
from clew.store.digest import Digest
from clew.store.errors import Unkeyable
from clew.tracer.init import Tracer
from tests.replay.conftest import Counted

leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5)
requests = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
quickly = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


class Asked(ValueExchange):
    def __init__(self, **parts: Any) -> None:
        super().__init__("ask")
        self._parts = parts

    def parts(self) -> dict[str, Any]:
        return self._parts


def key(tracer: Tracer, kind: str = "tool", occurrence: tuple[str, int] = ("", 0), **parts: Any) -> Digest:
    exchange = Asked(**parts)
    return key_of(tracer.gate, kind, exchange, exchange.parts(), occurrence).digest


def same(one: Any, other: Any) -> bool:
    """Whether two values are one, type by type."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return bool(one == other)


def shuffled(value: Any, chance: random.Random) -> Any:
    """The same, with its dicts in another order."""
    if isinstance(value, list):
        return [shuffled(part, chance) for part in value]
    if isinstance(value, dict):
        names = list(value)
        chance.shuffle(names)
        return {name: shuffled(value[name], chance) for name in names}
    return value


@quickly
@given(requests, requests)
def test_keys_are_equal_just_where_requests_are(tracer: Tracer, one: Any, other: Any) -> None:
    assert (key(tracer, request=one) == key(tracer, request=other)) == same(one, other)


@quickly
@given(st.dictionaries(st.text(min_size=1, max_size=5), requests, min_size=1, max_size=4), st.data(), requests)
def test_a_single_field_that_changes_changes_the_key(
    tracer: Tracer, request_: dict[str, Any], data: st.DataObject, value: Any
) -> None:
    name = data.draw(st.sampled_from(sorted(request_)))
    changed = {**request_, name: value}
    assert (key(tracer, request=request_) == key(tracer, request=changed)) == same(request_, changed)
    less = {one: part for one, part in request_.items() if one != name}
    assert key(tracer, request=request_) != key(tracer, request=less)


@quickly
@given(requests, st.randoms(use_true_random=False))
def test_the_order_of_dicts_says_nothing(tracer: Tracer, request_: Any, chance: random.Random) -> None:
    assert key(tracer, request=request_) == key(tracer, request=shuffled(request_, chance))


def test_parts_do_not_run_together(tracer: Tracer) -> None:
    """Dagster: code `1` and data `23` had the key of code `12` and data `3`; inputs could be swapped."""
    found = [
        key(tracer, code="1", data="23"),
        key(tracer, code="12", data="3"),
        key(tracer, data="1", code="23"),
        key(tracer, code="123"),
        key(tracer, kind="llm", code="1", data="23"),
    ]
    assert len(set(found)) == len(found)


def test_two_secrets_do_not_become_equal(tracer: Tracer) -> None:
    secrets = ["sk-proj-" + letter * 4 + "B3dE6gH9jK2mN5pQ8" * 2 for letter in "ab"]
    assert len({key(tracer, request=f"my key is {one}") for one in secrets}) == 2
    assert len({key(tracer, api_key=one) for one in secrets}) == 2


@pytest.mark.parametrize("value", [object(), {"a": [object]}, lambda: 1, iter([])])
def test_what_has_no_canonical_form_makes_no_key(tracer: Tracer, value: Any) -> None:
    with pytest.raises(Unkeyable, match="request"):
        key(tracer, request=value)


names = st.text("abc123-_", min_size=1, max_size=8)


@quickly
@given(st.lists(names, min_size=4, max_size=4, unique=True), st.lists(names, min_size=4, max_size=4, unique=True))
def test_minted_ids_are_told_by_their_order_alone(tracer: Tracer, one: list[str], other: list[str]) -> None:
    def conversation(ids: list[str], answered: int = 0) -> Digest:
        calls = [{"name": "calc", "args": {"x": at}, "id": ids[at]} for at in range(2)]
        messages = [
            HumanMessage("hello", id=ids[2]),
            AIMessage("", tool_calls=calls, id=ids[3]),
            ToolMessage("9", tool_call_id=ids[answered]),
        ]
        exchange = ModelExchange(Counted(), messages, None, {})
        return key_of(tracer.gate, "llm", exchange, exchange.parts(), ("", 0)).digest

    assert conversation(one) == conversation(other)
    assert conversation(one, answered=1) == conversation(other, answered=1) != conversation(one)
