"""Rounds of a loop that make the very same text: the state tells which of them the next node works on."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Annotated, TypedDict

import pytest
from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, StateGraph

import clew
from clew.lineage.graph import Lineage
from tests.lineage.lineage_bed import Fake, Given, choices, documents, numbered, rows, rows_of, traced, used

SAME = "The draft is the very same each time that it is made."


class State(TypedDict, total=False):
    rounds: int
    draft: str
    answer: str


class Kept(State, total=False):
    best: str
    history: Annotated[list[str], operator.add]


def drafted(polished: bool) -> Lineage:
    """Three rounds of a node that drafts from another row each, then a node that hands the draft on, or polishes it."""
    handbook = rows()
    clew.dataset("handbook", handbook)
    retrievers = [Given(found=documents([row])) for row in handbook]

    def draft(state: State) -> State:
        rounds = state.get("rounds", 0)
        prompt = [HumanMessage(numbered(retrievers[rounds].invoke("Which is it?")))]
        return {"draft": str(Fake(reply=lambda messages: SAME).invoke(prompt).content), "rounds": rounds + 1}

    def answer(state: State) -> State:
        if not polished:
            return {"answer": state["draft"]}
        return {"answer": str(Fake().invoke([HumanMessage(f"Polish: {state['draft']}")]).content)}

    graph = StateGraph(State).add_node("draft", draft).add_node("answer", answer)
    graph.add_edge(START, "draft").add_edge("answer", END)
    graph.add_conditional_edges(
        "draft", lambda state: "draft" if state["rounds"] < 3 else "answer", ["draft", "answer"]
    )
    graph.compile().invoke({"rounds": 0})
    return clew.why()


@pytest.mark.parametrize("polished", [True, False])
def test_a_draft_that_every_round_repeats_is_that_of_the_round_that_wrote_what_was_read(
    tmp_path: Path, polished: bool
) -> None:
    with traced(tmp_path):
        lineage = drafted(polished)
    assert used(lineage) == ["h2"]
    assert rows_of(lineage, "considered") == ["h0", "h1"]
    assert choices(lineage) == []


def test_without_a_state_that_tells_it_stays_open_which_of_two_calls_is_meant(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        draft = clew.trace("draft")(
            lambda found: Fake(reply=lambda messages: SAME).invoke([HumanMessage(numbered(found))]).content
        )
        with clew.run("ask") as run:
            made = [draft(Given(found=documents([row])).invoke("Which is it?")) for row in handbook[:2]]
            run.output(clew.trace("final")(lambda text: f"Final: {text}")(made[1]))
        lineage = clew.why(run)
    assert used(lineage) == []
    assert [count for count, _ in choices(lineage)] == [2]


@pytest.mark.parametrize("listed", [False, True])
def test_of_two_channels_with_one_text_none_is_taken_for_the_one_that_was_read(tmp_path: Path, listed: bool) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)

        def draft(state: Kept) -> Kept:
            rounds = state.get("rounds", 0)
            found = Given(found=documents(handbook[rounds : rounds + 1])).invoke("Which is it?")
            text = str(Fake(reply=lambda messages: SAME).invoke([HumanMessage(numbered(found))]).content)
            return {"draft": text, "rounds": rounds + 1, **({"history": [text]} if listed else {})}

        def judge(state: Kept) -> Kept:
            return {"best": state["draft"]} if state["rounds"] == 1 and not listed else {}

        def answer(state: Kept) -> Kept:
            text = state["history"][0] if listed else state["best"]
            return {"answer": str(Fake().invoke([HumanMessage(f"Polish: {text}")]).content)}

        graph = StateGraph(Kept).add_node("draft", draft).add_node("judge", judge).add_node("answer", answer)
        graph.add_edge(START, "draft").add_edge("draft", "judge").add_edge("answer", END)
        graph.add_conditional_edges(
            "judge", lambda state: "draft" if state["rounds"] < 3 else "answer", ["draft", "answer"]
        )
        graph.compile().invoke({"rounds": 0})
        lineage = clew.why()
    assert used(lineage) == []
    assert [count for count, _ in choices(lineage)] == [3]
