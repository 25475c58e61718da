"""Sends: one node run many times at once, whose texts lead to the rows of the one that made them."""

from __future__ import annotations

from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

import clew
from tests.lineage.lineage_bed import Fake, Given, choices, documents, numbered, prose, rows, rows_of, traced, used


class Fanned(TypedDict, total=False):
    topics: list[str]
    parts: Annotated[list[str], add]
    answer: str


class Topic(TypedDict):
    topic: str


def test_sends_that_make_equal_texts_lead_to_the_rows_of_all_or_stand_as_one_of_several(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        same = "The desk decides on this matter, as on all others."
        by_id = {row["id"]: Given(found=documents([row])) for row in handbook}

        def work(state: Topic) -> Any:
            prompt = [HumanMessage(numbered(by_id[state["topic"]].invoke("x")))]
            return {"parts": [str(Fake(reply=lambda messages: same).invoke(prompt).content)]}

        def answer(state: Fanned) -> Any:
            return {"answer": Fake().invoke([HumanMessage("\n".join(state["parts"]))]).content}

        graph = StateGraph(Fanned).add_node("work", work).add_node("answer", answer)
        graph.add_conditional_edges(
            START, lambda state: [Send("work", {"topic": one}) for one in state["topics"]], ["work"]
        )
        graph.add_edge("work", "answer").add_edge("answer", END)
        graph.compile().invoke({"topics": ["h0", "h1"]})
        lineage = clew.why()
    rows_used = used(lineage)
    assert rows_used in (["h0", "h1"], [])
    assert rows_used or any(count == 2 for count, _ in choices(lineage))


def test_sends_that_make_different_texts_lead_to_the_row_of_the_one_that_was_chosen(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        by_id = {row["id"]: Given(found=documents([row])) for row in handbook}

        def work(state: Topic) -> Any:
            prompt = [HumanMessage(numbered(by_id[state["topic"]].invoke("x")))]
            return {"parts": [str(Fake(reply=lambda messages: prose(state["topic"])).invoke(prompt).content)]}

        def answer(state: Fanned) -> Any:
            return {"answer": Fake().invoke([HumanMessage(f"Sum up: {state['parts'][1]}")]).content}

        graph = StateGraph(Fanned).add_node("work", work).add_node("answer", answer)
        graph.add_conditional_edges(
            START, lambda state: [Send("work", {"topic": one}) for one in state["topics"]], ["work"]
        )
        graph.add_edge("work", "answer").add_edge("answer", END)
        graph.compile().invoke({"topics": ["h0", "h1", "h2"]})
        lineage = clew.why()
    assert used(lineage) == ["h1"]
    assert rows_of(lineage, "considered") == ["h0", "h2"]
