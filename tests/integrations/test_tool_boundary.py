"""Tools below their public methods: injected arguments, raw results, and calls of calls."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolArg, InjectedToolCallId, StructuredTool, ToolException, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode

import clew
from clew.tracer import context
from tests.integrations.boundary_bed import Bed, instrumented, traced


@tool
def square(x: int) -> int:
    """Square a number."""
    return x * x


@tool(response_format="content_and_artifact")
def looked_up(word: str) -> tuple[str, list[int]]:
    """Look a word up."""
    return f"found {word}", [1, 2]


@tool
def whose(
    x: int, user: Annotated[str, InjectedToolArg], call: Annotated[str, InjectedToolCallId], config: RunnableConfig
) -> str:
    """Say whose call it is."""
    return f"{user} {x}"


@tool
def with_state(x: int, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """See the whole state."""
    return f"{len(state['messages'])} messages"


class Countdown(BaseTool):
    name: str = "countdown"
    description: str = "Calls itself through its public method."

    def _run(self, n: int) -> int:
        return 0 if n == 0 else 1 + int(self.invoke({"n": n - 1}))


class Wrapping(BaseTool):
    name: str = "wrapping"
    description: str = "Calls another tool's body."

    def _run(self, x: int) -> int:
        return int(square._run(x=x, config={})) + 1


def values(bed: Bed, name: str) -> dict[str, Any]:
    span = bed.log.one("tool", name)
    return bed.log.values([*span.used, *span.generated])


async def test_sync_async_and_async_by_default_are_one_span_each(tmp_path: Path) -> None:
    async def doubled(x: int) -> int:
        """Double a number."""
        return 2 * x

    only_async = StructuredTool.from_function(coroutine=doubled)
    with instrumented(tmp_path) as bed:
        assert square.invoke({"x": 3}) == 9
        assert await square.ainvoke({"x": 3}) == 9
        assert await only_async.ainvoke({"x": 3}) == 6
        assert len(bed.log.of("tool")) == 3
        assert not bed.faults


def test_injected_arguments_are_slots_of_their_own(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        call = {"name": "whose", "args": {"x": 1, "user": "ann"}, "id": "c1", "type": "tool_call"}
        assert whose.invoke(call).content == "ann 1"
        found = values(bed, "whose")
        assert found["arguments"] == {"x": 1}
        assert found["injected:user"] == "ann"
        assert found["injected:call"] == "c1"
        assert "injected:config" not in found


def test_a_graphs_state_that_is_injected_is_captured(tmp_path: Path) -> None:
    def ask(state: MessagesState) -> dict[str, Any]:
        call = {"name": "with_state", "args": {"x": 1}, "id": "c1", "type": "tool_call"}
        return {"messages": [AIMessage("", tool_calls=[call])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode([with_state]))
    graph.add_edge(START, "ask")
    graph.add_edge("ask", "tools")
    graph.add_edge("tools", END)
    with instrumented(tmp_path) as bed:
        end = graph.compile().invoke({"messages": [("human", "hello")]})
        assert end["messages"][-1].content == "2 messages"
        found = values(bed, "with_state")
        assert [message["content"] for message in found["injected:state"]["messages"]] == ["hello", ""]
        assert found["result"] == "2 messages"
        assert found["message"]["tool_call_id"] == "c1"


def test_the_raw_result_is_kept_before_langchain_makes_a_message_of_it(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        looked_up.invoke({"name": "looked_up", "args": {"word": "clew"}, "id": "c1", "type": "tool_call"})
        found = values(bed, "looked_up")
        assert found["result"] == ("found clew", [1, 2])
        assert found["message"]["content"] == "found clew"


def test_a_tool_that_calls_itself_makes_as_many_calls(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        assert Countdown().invoke({"n": 3}) == 3
        log = bed.log
        spans = log.of("tool")
        assert len(spans) == 4
        assert [log.parent(span) for span in spans] == [None, *spans[:3]]


def test_a_tool_that_calls_anothers_body_makes_two(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        assert Wrapping().invoke({"x": 3}) == 10
        log = bed.log
        outer, inner = log.of("tool")
        assert (outer.name, inner.name) == ("wrapping", "square")
        assert log.parent(inner) is outer
        assert log.values([*inner.used, *inner.generated])["result"] == 9


def test_a_body_called_directly_has_its_own_span_with_the_definition(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        with clew.trace("node"):
            square._run(x=2, config={})
        log = bed.log
        span = log.one("tool")
        parent = log.parent(span)
        assert parent is not None
        assert parent.name == "node"
        found = log.values([*span.used, *span.generated])
        assert found["tool"]["function"]["name"] == "square"
        assert (found["arguments"], found["result"]) == ({"x": 2}, 4)


def test_the_span_is_current_in_the_body_and_errors_pass(tmp_path: Path) -> None:
    seen = []

    @tool
    def failing(x: int) -> int:
        """Fail."""
        here = context.enclosing()
        seen.append(here and here.kind)
        raise ToolException("no")

    with instrumented(tmp_path) as bed:
        with pytest.raises(ToolException):
            failing.invoke({"x": 1})
        assert seen == ["tool"]
        assert bed.log.one("tool").status == "error"


async def test_concurrent_tools_keep_apart(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        answers = await asyncio.gather(*(square.ainvoke({"x": i}) for i in range(20)))
        assert answers == [i * i for i in range(20)]
        log = bed.log
        pairs = {
            (found["arguments"]["x"], found["result"])
            for span in log.of("tool")
            if (found := log.values([*span.used, *span.generated]))
        }
        assert pairs == {(i, i * i) for i in range(20)}
