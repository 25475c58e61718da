"""A message whose text was changed under its id is made of its new text."""

from __future__ import annotations

from pathlib import Path

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph

import clew
from clew.lineage.graph import Lineage
from tests.lineage.lineage_bed import Fake, Given, documents, numbered, rows, rows_of, traced, used


def answered(messages: list[BaseMessage], number: int = 0) -> str:
    model = Fake(reply=lambda messages: f"Answer number {number}, in words of its own.")
    return str(model.invoke(messages).content)


def test_a_constant_id_names_the_newest_text(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        with clew.run("ask") as run:
            for number in range(3):
                found = Given(found=documents(handbook[number : number + 1])).invoke("Which is it?")
                system = SystemMessage(f"Context: {found[0].page_content}", id="system")
                last = answered([system, HumanMessage("Go on?")], number)
            run.output(last)
        lineage = clew.why(run)
    assert used(lineage) == ["h2"]
    assert rows_of(lineage, "considered") == ["h0", "h1"]


def test_an_answer_that_was_edited_is_its_new_text(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        with clew.run("ask") as run:
            found = Given(found=documents(handbook[:2])).invoke("Which is it?")
            draft = Fake().invoke([HumanMessage(found[0].page_content)])
            run.output(answered([HumanMessage("Go on?"), AIMessage(found[1].page_content, id=draft.id)]))
        lineage = clew.why(run)
    assert used(lineage) == ["h1"]


def test_a_message_that_a_node_replaced_is_the_new_one(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        retriever = Given(found=documents(handbook[:2]))

        def node(number: int):  # type: ignore[no-untyped-def]
            def replace(state: MessagesState) -> dict[str, list[BaseMessage]]:
                text = retriever.invoke("Which is it?")[number].page_content
                return {"messages": [SystemMessage(f"Context: {text}", id="context")]}

            return replace

        graph = StateGraph(MessagesState).add_node("one", node(0)).add_node("two", node(1))
        graph.add_node("answer", lambda state: {"messages": [AIMessage(answered(state["messages"]))]})
        graph.add_edge(START, "one").add_edge("one", "two").add_edge("two", "answer").add_edge("answer", END)
        graph.compile().invoke({"messages": [HumanMessage("Hello?")]})
        lineage = clew.why()
    assert used(lineage) == ["h1"]


def looked_up(folder: Path, change: str) -> Lineage:
    """A tool brings three documents; the model is asked with what `change` leaves of its message."""
    with traced(folder):
        handbook = rows()
        clew.dataset("handbook", handbook)
        retriever = Given(found=documents(handbook[:3]))

        @tool
        def look(subject: str) -> str:
            """Look it up."""
            return numbered(retriever.invoke(subject))

        call = {"name": "look", "args": {"subject": "leave"}, "id": "call-1"}
        with clew.run("ask") as run:
            message = look.invoke({"type": "tool_call", **call})
            texts = {"cut": message.content.split("\n\n")[0], "cleared": "[cleared]", "kept": message.content}
            changed = ToolMessage(texts[change], tool_call_id="call-1", additional_kwargs={"seen": True})
            run.output(answered([HumanMessage("Go on?"), AIMessage("", tool_calls=[call]), changed]))
        return clew.why(run)


def test_a_tool_message_that_was_cut_leads_to_what_is_left(tmp_path: Path) -> None:
    lineage = looked_up(tmp_path, "cut")
    assert used(lineage) == ["h0"]
    assert rows_of(lineage, "considered") == ["h1", "h2"]


def test_a_tool_message_that_was_cleared_leads_nowhere(tmp_path: Path) -> None:
    assert used(looked_up(tmp_path, "cleared")) == []


def test_a_tool_message_with_other_metadata_is_the_same(tmp_path: Path) -> None:
    assert used(looked_up(tmp_path, "kept")) == ["h0", "h1", "h2"]
