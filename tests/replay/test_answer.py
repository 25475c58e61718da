"""Answers as bytes: they come back equal, type by type, or are refused when they are written."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from clew.integrations.langchain import answer as _answer  # noqa: F401 - its classes may stand in an answer
from clew.replay.answer import pack, register_answer, texts, unpack
from clew.store.errors import Unstorable

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.datetimes()
)
keys = st.text() | st.integers() | st.tuples(st.text(), st.booleans())
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.frozensets(keys)
        | st.sets(keys)
    ),
    max_leaves=20,
)


def kinds(value: Any) -> Any:
    """A value's types, all the way down."""
    if isinstance(value, (list, tuple)):
        return [type(value), *map(kinds, value)]
    if isinstance(value, dict):
        return [dict, *((kinds(key), kinds(part)) for key, part in value.items())]
    return type(value)


def told(value: Any) -> Any:
    """A value and its types, all the way down; of a set in no order."""
    if isinstance(value, (list, tuple)):
        return [type(value), *map(told, value)]
    if isinstance(value, dict):
        return [dict, *((told(key), told(part)) for key, part in value.items())]
    if isinstance(value, (set, frozenset)):
        return [type(value), *sorted(map(repr, map(told, value)))]
    return type(value), repr(value)


@given(values)
def test_what_comes_back_is_equal_in_value_and_type(value: Any) -> None:
    try:
        data = pack(value)
    except Unstorable:
        assert "\\ud" in ascii(value) or "fold=1" in repr(value)  # a lone surrogate has no UTF-8
        return
    for _ in range(3):  # from the third time on it is not read again
        back = unpack(data)
        assert told(back) == told(value)


@given(values, values)
def test_different_answers_have_different_bytes(one: Any, other: Any) -> None:
    try:
        same = pack(one) == pack(other)
    except Unstorable:
        return
    assert not same or kinds(one) == kinds(other)


class Handle:
    pass


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value", [Handle(), [Handle()], {"a": (Handle(),)}, Handle, Text("x"), lambda: 1, datetime.UTC, range(3)]
)
def test_what_is_not_known_is_refused_by_name(value: Any) -> None:
    with pytest.raises(Unstorable, match="an answer that holds a"):
        pack(value)


def test_a_registered_class_comes_back() -> None:
    class Point(msgspec.Struct):
        x: Any

    register_answer(Point, lambda point: [point.x], lambda data: Point(*data), name="tests.Point")
    assert unpack(pack([Point((1, 2))])) == [Point((1, 2))]


def test_an_answer_is_a_new_one_each_time() -> None:
    """However often it is read, and whatever is done to those that were read before."""
    message = AIMessage(
        "one",
        id="a",
        tool_calls=[{"name": "f", "args": {"x": [1, {"y": 2}]}, "id": "1"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        additional_kwargs={"deep": {"er": [[1.5, None]]}},
    )
    documents = [Document("text", metadata={"at": 1})]
    whole: dict[str, Any] = {
        "response": ChatResult(generations=[ChatGeneration(message=message)], llm_output={"model": "m"}),
        "documents": documents,
        "plain": [[1, True, 1.0], {"": []}],
    }
    data = pack(whole)
    for number in range(4):
        read = unpack(data)
        assert read == whole
        assert kinds(read) == kinds(whole)
        given = read["response"].generations[0].message
        assert type(given) is AIMessage
        assert given.model_fields_set == message.model_fields_set
        assert type(read["response"].generations[0].text) is type(whole["response"].generations[0].text)
        given.tool_calls[0]["args"]["x"][1]["y"] = number
        given.additional_kwargs["deep"]["er"][0].append(number)
        given.usage_metadata["input_tokens"] = number
        given.model_fields_set.add("name")
        given.id = given.name = str(number)
        read["response"].llm_output["model"] = number
        read["response"].generations.append(number)
        read["documents"][0].metadata["at"] = number
        read["plain"][1][""].append(number)


def test_an_answer_with_more_than_fields_is_read_each_time() -> None:
    message = AIMessage("one", extra_field={"a": [1]})  # type: ignore[call-arg]
    data = pack(message)
    for _ in range(4):
        read = unpack(data)
        assert read == message
        read.extra_field["a"].append(2)


def test_a_class_that_comes_back_otherwise_is_refused() -> None:
    class Lossy(msgspec.Struct):
        x: int

    register_answer(Lossy, lambda one: 0, lambda data: Lossy(data), name="tests.Lossy")
    assert unpack(pack(Lossy(0))) == Lossy(0)
    with pytest.raises(Unstorable, match="does not come back equal"):
        pack(Lossy(1))


def test_a_list_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(Unstorable, match="nested too deeply"):
        pack(value)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xc7\x02\x06\x92\xa1a", b"\xd4\x63\x00", b"\x91"])
def test_bytes_that_are_no_answer_are_a_named_error(data: bytes) -> None:
    with pytest.raises(Unstorable):
        unpack(data)


def test_every_text_is_told_with_its_name() -> None:
    data = pack({"a": "1", "b": [("2", {"c": "3"})], 4: decimal.Decimal("5"), "d": uuid.UUID(int=0)})
    found = {text: name for name, text in texts(data) if isinstance(text, str)}
    assert {"1", "2", "3", "5"} <= found.keys()
    assert found["3"] == "c"
