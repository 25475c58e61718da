"""Patches of tools: another implementation goes live."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode

import clew
from clew.store.errors import ReplayMiss
from tests.replay.conftest import LIVE, Counted, live
from tests.replay.patches.bed import CALL, Checker, Recording, hybrid, looked_up, recorded, search, spans


def test_another_implementation_of_a_tool_goes_live(recording: Recording) -> None:
    with recording() as tracer:
        run = recorded(looked_up)
        given, certificate, again = hybrid(run, clew.Tool("search", lambda query: f"other {query}"), looked_up)
        assert given == "other qchecked c"
        assert LIVE == {}
        assert [one.name for one in certificate.live] == ["search"]
        assert "differs from the recorded call in tool" in certificate.live[0].why
        assert spans(tracer, again.id, "tool")[0].used[0].value == spans(tracer, run.id, "tool")[0].used[0].value
        with (
            pytest.raises(ReplayMiss, match="tool search"),
            clew.replay(run, patch=clew.Tool("search", lambda query: "x")),
        ):
            looked_up()


def test_tools_of_a_class_and_async_functions(recording: Recording) -> None:
    async def checked(claim: str) -> str:
        return f"async {claim}"

    def body() -> str:
        return asyncio.run(search.ainvoke(CALL)).content + asyncio.run(Checker().ainvoke({"claim": "c"}))  # type: ignore[no-any-return]

    with recording():
        run = recorded(body)
        patch = [clew.Tool("check", checked), clew.Tool("search", lambda query: f"other {query}")]
        given, certificate, _ = hybrid(run, patch, body)
        assert given == "other qasync c"
        assert certificate.patches == ["tool 'check': 1 time", "tool 'search': 1 time"]


def test_a_tool_object_brings_its_definition_and_may_ask_the_one_it_replaces(recording: Recording) -> None:
    @tool("search")
    def louder(query: str) -> str:
        """Look a thing up, loudly."""
        return str(search.invoke({"query": query})).upper()

    def body() -> str:
        from langchain_core.utils.function_calling import convert_to_openai_tool

        Counted().bind(tools=[convert_to_openai_tool(search)]).invoke("x")
        return str(search.invoke(CALL).content)

    with recording() as tracer:
        run = recorded(body)
        given, certificate, again = hybrid(run, clew.Tool("search", louder), body)
        assert given == "FOUND Q"
        assert {one.kind for one in certificate.live} == {"llm", "tool"}
        shown = next(slot for slot in spans(tracer, again.id, "llm")[0].used if slot.role == "tools")
        assert shown.value["function"]["description"] == "Look a thing up, loudly."


def test_a_tool_in_a_tool_node_that_is_given_the_graphs_state(recording: Recording) -> None:
    @tool
    def noted(query: str, state: Annotated[Any, InjectedState]) -> str:
        """Note it."""
        live("tool")
        return f"noted {query} of {len(state['messages'])}"

    def body() -> str:
        graph = StateGraph(MessagesState)
        graph.add_node("tools", ToolNode([noted]))
        graph.add_edge(START, "tools")
        graph.add_edge("tools", END)
        call = {"name": "noted", "args": {"query": "q"}, "id": "call_1", "type": "tool_call"}
        return str(graph.compile().invoke({"messages": [AIMessage("", tool_calls=[call])]})["messages"][-1].content)

    with recording():
        run = recorded(body)
        with clew.replay(run) as again:
            assert body() == "noted q of 1"
        assert again.certificate.holds
        patch = clew.Tool("noted", lambda query, state: f"other {query} of {len(state['messages'])}")
        given, certificate, _ = hybrid(run, patch, body)
        assert given == "other q of 1"
        assert LIVE == {}
        assert "it is patched, and it cannot be seen whether it is the same" in certificate.live[0].why
