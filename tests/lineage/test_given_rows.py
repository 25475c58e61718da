"""Rows of a dataset that are given to code as they are, without a document around them, are found like documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, StateGraph

import clew
from tests.lineage.lineage_bed import Fake, Given, choices, rows, rows_of, traced, used


@pytest.mark.parametrize(
    ("make", "given", "firm", "possible"),
    [
        (lambda found: f"Row: {found[1]['body']}", lambda found: found[:3], ["h1"], []),
        (lambda found: f"Row: {found['body'][:90]}", lambda found: found[2], ["h2"], []),
        (lambda found: found[1], lambda found: found[:3], ["h1"], []),
        (lambda found: found[1]["body"].upper(), lambda found: found[:3], [], ["h0", "h1", "h2"]),
        (lambda found: "yes", lambda found: found[0], [], ["h0"]),
    ],
    ids=["of a list", "one alone", "passed on", "reworked", "judged"],
)
def test_rows_given_to_a_function_are_used_where_they_stand_in_its_result(
    tmp_path: Path, make: Any, given: Any, firm: list[str], possible: list[str]
) -> None:
    with traced(tmp_path):
        handbook = list(clew.dataset("handbook", rows()))
        with clew.run("ask") as run:
            run.output(clew.trace("make")(make)(given(handbook)))
        lineage = clew.why(run)
    assert used(lineage) == firm
    assert rows_of(lineage, "possible") == possible
    assert choices(lineage) == []


class State(TypedDict, total=False):
    question: str
    found: list[dict[str, Any]]
    best: dict[str, Any]
    answer: str


@pytest.mark.parametrize("fetched", [True, False], ids=["fetched by a node", "given to the graph"])
def test_rows_in_a_state_are_found_in_a_prompt(tmp_path: Path, fetched: bool) -> None:
    with traced(tmp_path):
        handbook = list(clew.dataset("handbook", rows()))
        state: State = {"found": handbook[:3], "best": handbook[4]}

        def answer(state: State) -> State:
            prompt = f"First: {state['found'][0]['body']}\nBest: {state['best']['body']}"
            return {"answer": str(Fake().invoke([HumanMessage(prompt)]).content)}

        graph = StateGraph(State).add_node("answer", answer)
        graph.add_node("fetch", lambda asked: state if fetched else {})
        graph.add_edge(START, "fetch").add_edge("fetch", "answer").add_edge("answer", END)
        graph.compile().invoke({"question": "Which is it?"} if fetched else state)
        lineage = clew.why()
    assert used(lineage) == ["h0", "h4"]
    assert choices(lineage) == []


def test_a_row_and_a_document_of_its_very_text_are_one_source(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = list(clew.dataset("handbook", rows()))
        made = clew.trace(lambda found: [Document(one["body"]) for one in found])
        with clew.run("ask") as run:
            found = Given(found=made(handbook[:3])).invoke("Which of them is it?")
            run.output(Fake().invoke([HumanMessage(f"Sum up: {found[1].page_content}")]).content)
        lineage = clew.why(run)
    assert used(lineage) == ["h1"]
    assert choices(lineage) == []


@pytest.mark.parametrize("key", ["id", None])
def test_a_small_dict_is_a_row_only_if_the_key_of_the_dataset_stands_in_it(tmp_path: Path, key: str | None) -> None:
    with traced(tmp_path):
        labels = clew.dataset("labels", [{"id": "h1", "label": "yes"}, {"id": "h2", "label": "no"}], key=key)
        same = clew.trace(lambda one: one)
        with clew.run("ask") as run:
            run.output(same(labels[0]))
        lineage = clew.why(run)
    assert used(lineage) == (["h1"] if key else [])


def test_a_number_that_is_a_row_somewhere_is_no_row(tmp_path: Path) -> None:
    with traced(tmp_path):
        clew.dataset("numbers", [1, 2, 3])
        same = clew.trace(lambda one: one)
        with clew.run("ask") as run:
            run.output(same(2))
        lineage = clew.why(run)
    assert lineage.find("row", role=None) == []
