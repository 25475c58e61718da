"""Turns of a conversation: an answer leads through the history in its prompt to earlier rows, and through nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

import clew
from tests.lineage.lineage_bed import Fake, Given, documents, numbered, rows, rows_of, traced, used


class Chat(MessagesState, total=False):
    found: list[Document]


def chat(retrievers: dict[str, Given], reply: Any, checkpointer: Any) -> Any:
    model = Fake(reply=reply)

    def retrieve(state: Chat) -> Any:
        return {"found": retrievers[str(state["messages"][-1].content)].invoke("x")}

    def answer(state: Chat) -> Any:
        system = SystemMessage("Use the context.\n" + numbered(state["found"]))
        return {"messages": [model.invoke([system, *state["messages"]])]}

    graph = StateGraph(Chat).add_node("retrieve", retrieve).add_node("answer", answer)
    return (
        graph.add_edge(START, "retrieve").add_edge("retrieve", "answer").compile(checkpointer=checkpointer, name="Chat")
    )


def test_a_second_turn_leads_through_the_first_turns_answer_to_its_rows(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        graph = chat(
            {"First?": Given(found=documents(handbook[:1])), "Second?": Given(found=documents(handbook[1:2]))},
            lambda messages: f"Answer number {len(messages)} of the desk, which is final.",
            InMemorySaver(),
        )
        here: Any = {"configurable": {"thread_id": "t-1"}}
        graph.invoke({"messages": [HumanMessage("First?")]}, here)
        assert used(clew.why()) == ["h0"]
        graph.invoke({"messages": [HumanMessage("Second?")]}, here)
        lineage = clew.why()
    assert used(lineage) == ["h0", "h1"]
    assert len({node.run_id for node in lineage.find("llm") if node.span_id}) == 2
    assert rows_of(lineage, "possible") == []


def test_a_second_turn_of_another_process_leads_to_the_first(tmp_path: Path) -> None:
    handbook = rows()
    saver = InMemorySaver()
    here: Any = {"configurable": {"thread_id": "t-1"}}
    for number, question in enumerate(("First?", "Second?")):
        with traced(tmp_path):
            clew.dataset("handbook", handbook)
            graph = chat(
                {question: Given(found=documents(handbook[number : number + 1]))},
                lambda messages: f"Answer number {len(messages)} of the desk, which is final.",
                saver,
            )
            graph.invoke({"messages": [HumanMessage(question)]}, here)
            lineage = clew.why()
    assert used(lineage) == ["h0", "h1"]
    assert len({node.run_id for node in lineage.find("llm") if node.span_id}) == 2


def test_a_second_turn_that_leaves_the_first_out_of_its_prompt_does_not_lead_to_it(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        model = Fake(reply=lambda messages: "Said by the desk, and by nobody else at all.")
        retrievers = {"First?": Given(found=documents(handbook[:1])), "Second?": Given(found=documents(handbook[1:2]))}

        def answer(state: Chat) -> Any:
            question = str(state["messages"][-1].content)
            context = numbered(retrievers[question].invoke("x"))
            return {"messages": [model.invoke([SystemMessage(context), HumanMessage(question)])]}

        graph = (
            StateGraph(Chat).add_node("answer", answer).add_edge(START, "answer").compile(checkpointer=InMemorySaver())
        )
        here: Any = {"configurable": {"thread_id": "t-1"}}
        graph.invoke({"messages": [HumanMessage("First?")]}, here)
        graph.invoke({"messages": [HumanMessage("Second?")]}, here)
        lineage = clew.why()
    assert used(lineage) == ["h1"]


@pytest.mark.parametrize("threads", [None, ("t-1", "t-2")])
def test_two_runs_whose_messages_are_both_ok_are_not_linked(threads: Any, tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        graph = chat(
            {"ok": Given(found=documents(handbook[:1])), "ok ": Given(found=documents(handbook[1:2]))},
            lambda messages: "ok",
            InMemorySaver() if threads else None,
        )
        for number, question in enumerate(("ok", "ok ")):
            config: Any = {"configurable": {"thread_id": threads[number]}} if threads else None
            graph.invoke({"messages": [HumanMessage(question)]}, config)
        runs = [run.run_id for run in clew.open(tmp_path / "store").runs()]
        newer, older = clew.why(runs[0]), clew.why(runs[1])
    assert used(older) == ["h0"]
    assert used(newer) == ["h1"]
    for lineage, other in ((newer, runs[1]), (older, runs[0])):
        assert other not in {node.run_id for node in lineage.nodes.values()}


def test_two_processes_whose_messages_are_both_ok_are_not_linked(tmp_path: Path) -> None:
    handbook = rows()
    for number in range(2):
        with traced(tmp_path):
            clew.dataset("handbook", handbook)
            retrievers = {"ok": Given(found=documents(handbook[number : number + 1]))}
            chat(retrievers, lambda messages: "ok", None).invoke({"messages": [HumanMessage("ok")]})
    with clew.open(tmp_path / "store") as store:
        runs = [run.run_id for run in store.runs()]
        newer, older = store.why(runs[0]), store.why(runs[1])
    assert used(older) == ["h0"]
    assert used(newer) == ["h1"]
    assert runs[1] not in {node.run_id for node in newer.nodes.values()}
    assert runs[0] not in {node.run_id for node in older.nodes.values()}
