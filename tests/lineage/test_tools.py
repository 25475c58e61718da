"""Tools: what they return leads to what they found, and each result to its own call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

import clew
from tests.lineage.lineage_bed import (
    QUESTION,
    Fake,
    Given,
    choices,
    documents,
    kinds,
    numbered,
    rows,
    rows_of,
    traced,
    used,
)


def tool_agent(reply: Any, *tools: Any) -> Any:
    model = Fake(reply=reply).bind_tools(list(tools))

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("ask", ask).add_node("tools", ToolNode(list(tools)))
    graph.add_edge(START, "ask").add_edge("tools", "ask")
    graph.add_conditional_edges(
        "ask", lambda state: "tools" if state["messages"][-1].tool_calls else END, ["tools", END]
    )
    return graph.compile(name="Tooled")


def calls(*names_and_arguments: tuple[str, dict[str, Any]]) -> AIMessage:
    return AIMessage(
        "",
        tool_calls=[
            {"name": name, "args": arguments, "id": f"call-{number}"}
            for number, (name, arguments) in enumerate(names_and_arguments)
        ],
    )


def test_a_tool_that_retrieves_leads_to_the_rows_in_its_result(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        retriever = Given(found=documents(handbook[:3]))

        @tool
        def look_up(query: str) -> str:
            """Look something up in the handbook."""
            return retriever.invoke(query)[2].page_content

        def reply(messages: list[Any]) -> Any:
            if isinstance(messages[-1], ToolMessage):
                return "The handbook says that the desk decides on it, always."
            return calls(("look_up", {"query": "fire drills"}))

        tool_agent(reply, look_up).invoke({"messages": [HumanMessage(QUESTION)]})
        lineage = clew.why()
    assert used(lineage) == ["h2"]
    assert rows_of(lineage, "considered") == ["h0", "h1"]
    assert kinds(lineage) >= {"tool", "llm", "model", "row", "dataset"}
    assert any(node.span_id is None and node.name == "look_up" for node in lineage.find("tool"))


def test_a_tool_that_returns_documents_as_its_artifact_leads_to_their_rows(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        retriever = Given(found=documents(handbook[:2]))

        @tool(response_format="content_and_artifact")
        def look_up(query: str) -> Any:
            """Look something up in the handbook."""
            found = retriever.invoke(query)
            return numbered(found), found

        def reply(messages: list[Any]) -> Any:
            return "The desk decides." if isinstance(messages[-1], ToolMessage) else calls(("look_up", {"query": "x"}))

        tool_agent(reply, look_up).invoke({"messages": [HumanMessage(QUESTION)]})
        lineage = clew.why()
    assert used(lineage) == ["h0", "h1"]


def test_two_calls_with_equal_results_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    with traced(tmp_path):

        @tool
        def weather(place: str) -> str:
            """What the weather is like."""
            return "Sunny spells, with a light wind from the west, and no rain at all."

        def reply(messages: list[Any]) -> Any:
            if isinstance(messages[-1], ToolMessage):
                return "It is sunny in both."
            return calls(("weather", {"place": "Athens"}), ("weather", {"place": "Knossos"}))

        tool_agent(reply, weather).invoke({"messages": [HumanMessage("How is the weather there, in both places?")]})
        lineage = clew.why()
    assert len([node for node in lineage.find("tool") if node.span_id]) == 2
    assert choices(lineage) == []
