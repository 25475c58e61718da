"""Keys made by joining texts: two requests that are one once they are joined had one key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

import clew
from tests.replay.conftest import LIVE, Caching, live
from tests.replay.defects.provider import Provider, sent

SPLITS = [(["ab", "c"], ["a", "bc"]), (["abc"], ["a", "b", "c"]), (["", "a"], ["a", ""]), (["a b"], ["a", "b"])]
splits = pytest.mark.parametrize(("one", "other"), SPLITS)


class Upper:
    """LlamaIndex' transforms are objects that are called with nodes."""

    def __init__(self, function: Callable[[str], str]) -> None:
        self.function = function

    def __call__(self, texts: list[str]) -> list[str]:
        return [self.function(text) for text in texts]


@splits
def test_llama_index_23002_a_transform_of_texts_that_run_together(
    caching: Caching, one: list[str], other: list[str]
) -> None:
    """LlamaIndex, run-llama#23002: ['a', 'bc'] was answered with ['AB', 'C'], which ['ab', 'c'] had become."""

    @clew.cached
    def upper(texts: list[str]) -> list[str]:
        return [text.upper() for text in texts]

    with caching():
        for texts in (one, other, one):
            assert upper(texts) == [text.upper() for text in texts]


@splits
def test_llama_index_23002_embeddings_of_texts_that_run_together(
    caching: Caching, one: list[str], other: list[str]
) -> None:
    """LlamaIndex, run-llama#23002, for the transform that is met most: embedding the texts of nodes."""

    class Lengths(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [[float(len(text))] for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return self.embed_documents([text])[0]

    with caching():
        for texts in (one, other, one):
            assert Lengths().embed_documents(texts) == [[float(len(text))] for text in texts]


@splits
def test_llama_index_23002_messages_that_run_together(caching: Caching, one: list[str], other: list[str]) -> None:
    """LlamaIndex, run-llama#23002, for a conversation."""
    with caching():
        for texts in (one, other, one):
            asked = [HumanMessage(text) for text in texts]
            assert sent(Provider(), asked)["messages"] == [["human", text] for text in texts]
    assert LIVE == {"llm": 2}


@splits
def test_llama_index_23002_a_tool_given_texts_that_run_together(
    caching: Caching, one: list[str], other: list[str]
) -> None:
    """LlamaIndex, run-llama#23002, for a tool."""

    @clew.effect("pure")
    @tool
    def count(texts: list[str]) -> str:
        """Count."""
        return "+".join(str(len(text)) for text in texts)

    with caching():
        for texts in (one, other, one):
            assert count.invoke({"texts": texts}) == "+".join(str(len(text)) for text in texts)


def f1(text: str) -> str:
    return f"{text}-one"


def f2(text: str) -> str:
    return f"{text}-two"


def test_llama_index_23003_a_transform_is_told_by_the_function_it_holds(caching: Caching) -> None:
    """LlamaIndex, run-llama#23003: its key deletes what looks like an address, and the function with it: the transform
    that holds f2 answered `x-one`."""

    @clew.cached
    def apply(transform: Upper, texts: list[str]) -> list[str]:
        live("apply")
        return transform(texts)

    with caching():
        assert [apply(Upper(function), ["x"]) for function in (f1, f2, f1)] == [["x-one"], ["x-two"], ["x-one"]]
    assert LIVE == {"apply": 2}


def test_llama_index_23003_a_method_is_told_by_the_function_its_object_holds(caching: Caching) -> None:
    """LlamaIndex, run-llama#23003, where what is cached is the transform itself."""
    with caching():
        for function, text in ((f1, "x-one"), (f2, "x-two"), (lambda text: f"{text}-three", "x-three")):
            assert clew.cached(Upper(function).__call__)(["x"]) == [text]


def test_dagster_code_1_with_data_23_is_not_code_12_with_data_3(caching: Caching) -> None:
    """Dagster: versions of code and data are joined, so code `1` with data `23` was code `12` with data `3`."""

    def step(version: str) -> Any:
        def answer(data: str) -> str:
            return f"code {version} on {data}"

        return clew.cached(version=version)(answer)

    with caching():
        asked = [("1", "23"), ("12", "3"), ("123", ""), ("", "123")]
        assert [step(code)(data) for code, data in asked] == [f"code {code} on {data}" for code, data in asked]


def test_dagster_inputs_are_told_by_their_names(caching: Caching) -> None:
    """Dagster: input names are no part of the version, so two inputs could be swapped."""

    @clew.cached
    def divide(a: int, b: int) -> float:
        return a / b

    @clew.effect("pure")
    @tool
    def difference(a: int, b: int) -> int:
        """Subtract."""
        return a - b

    with caching():
        assert [divide(a=1, b=2), divide(a=2, b=1), divide(b=1, a=2)] == [0.5, 2.0, 2.0]
        assert [difference.invoke({"a": a, "b": b}) for a, b in ((1, 2), (2, 1))] == [-1, 1]
