"""A model that was put in the place of another is one call that was asked otherwise, not one less and one more."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langgraph.graph import END, START, StateGraph

import clew
from clew.lineage.difference.alignment import Pair
from clew.lineage.difference.result import Difference
from tests.lineage.diff_bed import changes_of, newest, of_kind, parted, states
from tests.lineage.lineage_bed import Fake, traced
from tests.replay.patches.bed import Sized


@pytest.fixture
def store(clean_tracing: None, tmp_path: Path) -> Iterator[Path]:
    with traced(tmp_path) as folder:
        yield folder


def asked(store: Path, *calls: tuple[str, str]) -> str:
    """A run in which models are asked, each by its name."""
    with clew.run("asked"):
        for name, question in calls:
            Sized(model_name=name, says=f"it is {question}").invoke(question)
    return newest(store)


def names(found: Difference) -> list[tuple[str | None, str | None]]:
    """The models of each pair of calls, as both runs have them."""
    return [(pair.a and pair.a.name, pair.b and pair.b.name) for pair in of_kind(found, "llm")]


def model_of(pair: Pair) -> list[tuple[str, Any, Any]]:
    return [(one.path, one.a, one.b) for one in changes_of(pair) if one.path.startswith(("name", "model.model"))]


class Notes(TypedDict, total=False):
    notes: Annotated[list[str], operator.add]


def team() -> Any:
    """Three nodes that run in parallel and ask alike, and one that asks twice, the second time by what it was answered."""

    def research(state: Notes) -> Notes:
        return {"notes": [Sized().invoke([SystemMessage("Be brief."), HumanMessage("Who decides?")]).text]}

    def merge(state: Notes) -> Notes:
        first = Sized().invoke([HumanMessage("Merge.")]).text
        return {"notes": [Sized().invoke([HumanMessage(first)]).text]}

    graph = StateGraph(Notes)
    for name in ("a", "b", "c"):
        graph.add_node(name, research)
        graph.add_edge(START, name)
        graph.add_edge(name, "merge")
    graph.add_node("merge", merge)
    graph.add_edge("merge", END)
    return graph.compile(name="Team")


def test_a_replay_with_another_model_is_told_call_by_call(clean_tracing: None, tmp_path: Path) -> None:
    clew.init(project="tests", store=tmp_path / "store", record=True)
    clew.instrument()

    def program() -> None:
        first = Sized().invoke([SystemMessage("Plan."), HumanMessage("Who decides?")]).text
        Fake(reply=lambda _: "checked").invoke("check")
        Sized().invoke(first)

    with clew.run("answer") as run:
        program()
    with clew.replay(run, mode="hybrid", patch=clew.Model("small", model_name="large")) as again:
        program()
    found = clew.diff(again.id, store=tmp_path / "store")
    assert found.counts["added"] == found.counts["removed"] == 0
    assert names(found) == [("small", "large"), ("Fake", "Fake"), ("small", "large")]
    first, _, second = of_kind(found, "llm")
    assert found.divergences == [first]
    assert model_of(first) == [("model.model", "small", "large")]
    assert (second.follows, second.own) == (first, ["model"])
    assert "~ llm answer/large  asked otherwise  request: model" in found.text().replace("replay of answer", "answer")


def test_each_node_keeps_its_calls(clean_tracing: None, tmp_path: Path) -> None:
    clew.init(project="tests", store=tmp_path / "store", record=True)
    clew.instrument()
    with clew.run("answer") as run:
        team().invoke({"notes": []})
    with clew.replay(run, mode="hybrid", patch=clew.Model("small", model_name="large")) as again:
        team().invoke({"notes": []})
    found = clew.diff(again.id, store=tmp_path / "store")
    calls = of_kind(found, "llm")
    assert states(calls) == {"asked otherwise": 5}
    for pair in calls:
        assert pair.a is not None
        assert pair.b is not None
        assert pair.a.span.path.split("/")[-2] == pair.b.span.path.split("/")[-2]
    assert all(pair.b.span.path.endswith("large") for pair in calls if pair.b)


def test_one_model_by_the_name_of_another_is_aligned_by_what_it_was_asked(store: Path) -> None:
    first = asked(store, ("small", "one"), ("large", "two"))
    found = clew.diff(first, asked(store, ("large", "one"), ("large", "two")), store=store)
    assert names(found) == [("small", "large"), ("large", "large")]
    assert parted(found) == [("asked otherwise", "llm", "asked/large")]


def test_an_embedding_model_is_one_as_well(store: Path) -> None:
    from langchain_core.embeddings import Embeddings

    class Lengths(Embeddings):
        def __init__(self, model: str) -> None:
            self.model = model

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [[float(len(text))] for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return [float(len(text))]

    def once(model: str) -> str:
        with clew.run("asked"):
            Lengths(model).embed_query("one")
        return newest(store)

    found = clew.diff(once("small"), once("large"), store=store)
    assert states(of_kind(found, "embedding")) == {"asked otherwise": 1}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("small", "one")], [("large", "two")]),
        ([("small", "one"), ("mid", "one")], [("large", "one"), ("huge", "one")]),
        ([("small", "one")], [("large", "one"), ("huge", "one")]),
    ],
    ids=["asked another thing", "two and two", "one and two"],
)
def test_calls_of_which_nothing_tells_that_they_are_the_same_are_not_aligned(
    store: Path, one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    found = clew.diff(asked(store, *one), asked(store, *other), store=store)
    assert states(of_kind(found, "llm")) == {"removed": len(one), "added": len(other)}


def test_a_model_that_both_runs_ask_stands_for_no_other(store: Path) -> None:
    first = asked(store, ("small", "one"), ("large", "one"), ("small", "two"))
    second = asked(store, ("large", "one"), ("large", "three"))
    found = clew.diff(first, second, store=store)
    assert sorted(names(found), key=str) == [("large", "large"), ("small", None), ("small", None), (None, "large")]


def test_the_next_call_of_a_renamed_model_is_aligned_though_it_was_asked_otherwise(store: Path) -> None:
    first = asked(store, ("small", "one"), ("small", "and two"), ("mid", "other"))
    found = clew.diff(first, asked(store, ("large", "one"), ("large", "and three"), ("mid", "other")), store=store)
    assert names(found) == [("small", "large"), ("small", "large"), ("mid", "mid")]
