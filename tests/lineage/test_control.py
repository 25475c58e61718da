"""`why --control`: which node ran because of which."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import RetryPolicy, Send

import clew
from clew.lineage.graph import Lineage
from tests.lineage.lineage_bed import QUESTION, Given, agent, documents, rows, traced, used


class State(TypedDict, total=False):
    question: str
    found: Annotated[list[str], operator.add]
    answer: str


def triggers(lineage: Lineage) -> set[tuple[str, str, str]]:
    """Names of a node and of what triggered it, and the evidence."""
    names = {key: node.name for key, node in lineage.nodes.items()}
    return {
        (names[edge.effect], names[edge.cause], edge.evidence)
        for edge in lineage.edges
        if edge.relation == "triggered_by"
    }


def answered(graph: Any) -> Lineage:
    graph.compile(name="G").invoke({"question": QUESTION})
    return clew.why(control=True)


@clew.trace
def work(text: str) -> str:
    return text + " and what was made of it, at some length"


def test_control_edges_are_there_only_when_asked_for(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        agent(Given(found=documents(handbook[:3]))).invoke({"question": QUESTION})
        without, lineage = clew.why(), clew.why(control=True)
    assert triggers(without) == set()
    assert triggers(lineage) == {("answer", "choose", "declared"), ("choose", "retrieve", "declared")}
    assert used(lineage) == used(without)
    assert {key: node for key, node in lineage.nodes.items() if node.kind != "node"} == {
        key: node for key, node in without.nodes.items() if node.kind != "node"
    }


def test_a_channels_name_of_any_length_leads_to_the_node_that_wrote_it(tmp_path: Path) -> None:
    made: list[list[tuple[str, str, str]]] = []
    for length in (21, 22, 23):
        name = "x" * length
        graph = StateGraph(TypedDict("Named", {name: str}))  # type: ignore[operator]
        graph.add_node("one", lambda state, name=name: {name: work("one")})
        graph.add_node("two", lambda state, name=name: {name: f"{len(state[name])}"})
        graph.add_edge(START, "one")
        graph.add_edge("one", "two")
        graph.add_edge("two", END)
        with traced(tmp_path / str(length)):
            graph.compile(name="G").invoke({name: QUESTION})
            lineage = clew.why(control=True)
        names = {key: node.name.replace(name, "x") for key, node in lineage.nodes.items() if node.name}
        made.append(
            sorted((names.get(one.effect, ""), names.get(one.cause, ""), one.relation) for one in lineage.edges)
        )
        clew.shutdown()
    assert made[0] == made[1] == made[2]


def test_a_join_was_triggered_by_all_that_it_waited_for(tmp_path: Path) -> None:
    graph = StateGraph(State)
    graph.add_node("one", lambda state: {"found": [work("one")]})
    graph.add_node("two", lambda state: {"found": [work("two")]})
    graph.add_node("later", lambda state: {"found": [work("later")]})
    graph.add_node("last", lambda state: {"answer": work(" ".join(state["found"]))})
    graph.add_edge(START, "one")
    graph.add_edge(START, "two")
    graph.add_edge("two", "later")
    graph.add_edge(["one", "later"], "last")
    graph.add_edge("last", END)
    with traced(tmp_path):
        found = triggers(answered(graph))
    assert found == {
        ("last", "one", "declared"),
        ("last", "later", "declared"),
        ("later", "one", "inferred"),  # two ran in the step before, and which wrote the trigger nobody tells
        ("later", "two", "inferred"),
    }


def test_sent_tasks_a_loop_and_a_second_attempt(tmp_path: Path) -> None:
    failures = [ValueError("not yet")]

    def worker(state: State) -> State:
        if failures:
            raise failures.pop()
        return {"found": [work(state["question"])]}

    graph = StateGraph(State)
    graph.add_node("plan", lambda state: {"found": []})
    graph.add_node("worker", worker, retry_policy=RetryPolicy(initial_interval=0.01, retry_on=ValueError))
    graph.add_node("answer", lambda state: {"answer": work(" ".join(state["found"]))})
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", lambda state: [Send("worker", {"question": "q"})], ["worker"])
    graph.add_conditional_edges("worker", lambda state: "answer" if len(state["found"]) > 1 else "plan")
    graph.add_edge("answer", END)
    with traced(tmp_path):
        lineage = answered(graph)
    assert triggers(lineage) == {
        ("answer", "worker", "declared"),
        ("worker", "plan", "declared"),
        ("plan", "worker", "declared"),
    }
