"""What holds of the key of any request: one field that changes, changes it; order, minted ids and transport do not.

Requests are random, and as the integrations make them: a model with any settings, a conversation, tools, functions.
"""

from __future__ import annotations

import copy
import datetime
import enum
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import StructuredTool
from pydantic import BaseModel

from clew.integrations.langchain.model_exchange import _TRANSPORT_OPTIONS, ModelExchange
from clew.integrations.langchain.tool_exchange import ToolExchange
from clew.replay.cached import FunctionExchange
from clew.replay.effect import Effect
from clew.replay.identity import identity
from clew.replay.key import asked_key, key_of
from clew.store.digest import Digest
from clew.store.encoding import encode_key
from clew.tracer.init import Tracer
from tests.replay.defects.provider import Provider

quickly = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)

# Words that stand for something in a request, and in the forms that a key is made of.
WORDS = [
    "id",
    "name",
    "type",
    "text",
    "tool_use",
    "date",
    "created",
    "object",
    "class",
    "tuple",
    "set",
    "dict",
    "secret",
]
words = st.sampled_from(WORDS) | st.text(max_size=4)
leaves = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | words
names = st.sampled_from([f"setting_{number}" for number in range(6)]) | st.sampled_from(
    ["seed", "top_p", "min_p", "max_tokens", "response_format", "logit_bias", "date", "nonce", "user", "prompt"]
)
json = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=8
)
contents = st.text(max_size=6) | st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": words}, optional={"extra": json}), min_size=1, max_size=2
)
requests = st.fixed_dictionaries(
    {
        "settings": st.dictionaries(names, json, max_size=4),
        "model_kwargs": st.dictionaries(names, json, max_size=2),
        "options": st.dictionaries(names, json, max_size=3),
        "stop": st.none() | st.lists(words, min_size=1, max_size=2),
        "system": st.text(max_size=6),
        "asked": contents,
        "calls": st.lists(st.dictionaries(words, json, max_size=2), min_size=1, max_size=2),
        "answers": st.lists(contents, min_size=1, max_size=2),
    }
)


def key(tracer: Tracer, kind: str, exchange: Any) -> Digest:
    """The key, and what is remembered of it says the same."""
    made = key_of(tracer.gate, kind, exchange, exchange.parts(), ("", 0))
    assert asked_key(tracer.gate, kind, exchange, ("", 0)) == asked_key(tracer.gate, kind, exchange, ("", 0)) == made
    return made.digest


def chat(tracer: Tracer, request: dict[str, Any], ids: str = "id", transport: dict[str, Any] | None = None) -> Digest:
    """The key of a conversation, whose ids begin with `ids`."""
    calls = [
        {"name": "calc", "args": arguments, "id": f"{ids}-{number}"}
        for number, arguments in enumerate(request["calls"])
    ]
    messages = [
        SystemMessage(request["system"], id=f"{ids}-s"),
        HumanMessage(request["asked"], id=f"{ids}-h"),
        AIMessage("", tool_calls=calls, id=f"{ids}-a", response_metadata={"id": ids, "created": len(ids)}),
        *(ToolMessage(answer, tool_call_id=f"{ids}-{at}") for at, answer in enumerate(request["answers"])),
    ]
    model = Provider(model_kwargs=request["model_kwargs"], **request["settings"])
    return key(
        tracer, "llm", ModelExchange(model, messages, request["stop"], {**request["options"], **(transport or {})})
    )


def add(a: Any = None, b: Any = None, **more: Any) -> Any:
    return a, b, more


def as_function(tracer: Tracer, arguments: dict[str, Any]) -> Digest:
    return key(tracer, "chain", FunctionExchange(add, arguments, Effect("pure"), None))


def as_tool(tracer: Tracer, arguments: dict[str, Any]) -> Digest:
    made = StructuredTool.from_function(add, name="add", description="Add.")
    return key(tracer, "tool", ToolExchange(made, arguments, {}, False))


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to every leaf and every empty container."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = False
    for name, part in parts:
        found = True
        yield from paths(part, (*path, name))
    if not found:
        yield path


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def put(value: Any, path: tuple[Any, ...], part: Any) -> Any:
    changed = copy.deepcopy(value)
    at(changed, path[:-1])[path[-1]] = part
    return changed


def same(one: Any, other: Any) -> bool:
    """Whether two values are one, type by type; 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (set, frozenset)):
        return one == other and {(type(part), repr(part)) for part in one} == {
            (type(part), repr(part)) for part in other
        }
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return repr(one) == repr(other)


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, list):
        return [shuffled(part, chance) for part in value]
    if isinstance(value, dict):
        order = list(value)
        chance.shuffle(order)
        return {name: shuffled(value[name], chance) for name in order}
    return value


@quickly
@given(requests, st.data())
def test_any_single_field_of_a_chat_that_changes_changes_its_key(
    tracer: Tracer, request_: dict[str, Any], data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from([path for path in paths(request_) if at(request_, path) not in ([], {}, None)]))
    before = at(request_, path)
    after = f"{before}." if isinstance(before, str) else data.draw(leaves)
    assume(not same(before, after))
    assume(path[0] != "answers" or isinstance(after, str))
    assert chat(tracer, request_) != chat(tracer, put(request_, path, after))


@quickly
@given(requests, st.sampled_from(["settings", "model_kwargs", "options"]), names, json)
def test_a_field_more_is_another_chat(tracer: Tracer, request_: dict[str, Any], of: str, name: str, value: Any) -> None:
    assume(name not in request_[of])
    assert chat(tracer, request_) != chat(tracer, {**request_, of: {**request_[of], name: value}})


@quickly
@given(
    requests,
    st.text("abc123_", min_size=1, max_size=9),
    st.dictionaries(st.sampled_from(sorted(_TRANSPORT_OPTIONS - {"stop", "run_manager"})), json, max_size=3),
    st.randoms(use_true_random=False),
)
def test_order_minted_ids_and_transport_are_no_part_of_a_chat(
    tracer: Tracer, request_: dict[str, Any], ids: str, transport: dict[str, Any], chance: random.Random
) -> None:
    assert chat(tracer, request_) == chat(tracer, shuffled(request_, chance), ids, transport)


@quickly
@given(st.dictionaries(st.text(min_size=1, max_size=6), json, min_size=1, max_size=4), st.data())
def test_any_single_argument_that_changes_changes_the_key(
    tracer: Tracer, arguments: dict[str, Any], data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from([path for path in paths(arguments) if path]))
    after = data.draw(json)
    assume(not same(at(arguments, path), after))
    for ask in (as_function, as_tool):
        assert ask(tracer, arguments) != ask(tracer, put(arguments, path, after))


@quickly
@given(st.dictionaries(st.text(min_size=1, max_size=6), json, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_keywords_is_no_part_of_a_call(
    tracer: Tracer, arguments: dict[str, Any], chance: random.Random
) -> None:
    for ask in (as_function, as_tool):
        assert ask(tracer, arguments) == ask(tracer, shuffled(arguments, chance))


class Colour(enum.Enum):
    RED = "RED"
    BLUE = 2


class Held(BaseModel):
    value: Any = None


hashable = st.recursive(
    leaves | st.binary(max_size=2) | st.sampled_from(Colour) | st.dates(), lambda inner: st.tuples(inner, inner)
)
anything = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(hashable, inner, max_size=2)
        | st.sets(hashable, max_size=2)
        | st.frozensets(hashable, max_size=2)
        | inner.map(lambda value: Held(value=value))
        | inner.map(lambda value: ["object", value])
        | st.tuples(words, inner)
    ),
    max_leaves=6,
)


@given(anything, anything)
@settings(deadline=None)
def test_forms_are_equal_just_where_values_are(one: Any, other: Any) -> None:
    assert (encode_key(identity(one)) == encode_key(identity(other))) == equal(one, other)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Held) and isinstance(other, Held):
        return equal(one.value, other.value)
    if type(one) is type(other) and isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if type(one) is type(other) is dict:
        pairs = [
            sorted(((told(key), value) for key, value in each.items()), key=lambda pair: pair[0])
            for each in (one, other)
        ]
        return len(one) == len(other) and all(a == b and equal(x, y) for (a, x), (b, y) in zip(*pairs, strict=True))
    if type(one) is type(other) and isinstance(one, (set, frozenset)):
        return sorted(map(told, one)) == sorted(map(told, other))
    return same(one, other)


def told(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"


FORMS: list[tuple[Any, Any]] = [
    (bytearray(b"x"), ["bytearray", b"x"]),
    (datetime.UTC, ["timezone", "datetime.timezone.utc"]),
    ({1: "a"}, ["dict", [(1, "a")]]),
    ({1}, ["set", [1]]),
    (len, ["builtin", "builtins.len"]),
]


@pytest.mark.parametrize(("value", "data"), FORMS, ids=lambda value: type(value).__name__)
def test_no_data_looks_like_the_form_of_something_else(value: Any, data: Any) -> None:
    assert encode_key(identity(value)) not in {encode_key(identity(one)) for one in (data, tuple(data), [*data, None])}


def test_a_model_of_another_class_is_another_model(tracer: Tracer) -> None:
    asked = [HumanMessage("hello")]
    classes: list[type[BaseChatModel]] = [Provider, type("Provider", (Provider,), {"__module__": Provider.__module__})]
    assert len({key(tracer, "llm", ModelExchange(cls(), asked, None, {})) for cls in classes}) == 2
