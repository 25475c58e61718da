"""LangGraph's words: channels, commands, interrupts, retries, subgraphs, tasks."""

from __future__ import annotations

import asyncio
import operator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, RetryPolicy, Send, interrupt
from opentelemetry import trace
from pydantic import BaseModel

import clew
from clew.tracer.init import Tracer
from tests.integrations.conftest import log, traced


class State(TypedDict, total=False):
    question: str
    found: Annotated[list[str], operator.add]
    answer: str


def graph(*nodes: Any, state: Any = State, name: str = "G", **compiled: Any) -> Any:
    """A chain of nodes, named by their functions."""
    builder = StateGraph(state)
    builder.add_sequence(nodes)
    builder.add_edge(START, nodes[0].__name__)
    return builder.compile(name=name, **compiled)


def test_a_node_records_what_it_read_and_what_it_wrote(tracer: Tracer) -> None:
    def search(state: State) -> State:
        return {"found": ["a", "b"]}

    def write(state: State) -> State:
        return {"answer": "both"}

    graph(search, write).invoke({"question": "which"}, traced())
    content = log(tracer)
    assert content.values(content.one("workflow").used) == {"question": "which"}
    assert content.values(content.one("workflow").generated) == {
        "question": "which",
        "found": ["a", "b"],
        "answer": "both",
    }
    assert content.values(content.one("node", "search").generated) == {"found": ["a", "b"]}
    assert content.values(content.one("node", "write").used) == {"question": "which", "found": ["a", "b"]}
    assert content.values(content.one("node", "write").generated) == {"answer": "both"}
    node = content.one("node", "write").attributes
    assert node["graph.node.name"] == "write"
    assert node["langgraph.step"] == 2
    assert node["langgraph.checkpoint_ns"] == f"write:{node['graph.node.id']}"


@pytest.mark.parametrize("returned", [None, {}])
def test_a_node_that_writes_nothing_generates_nothing(tracer: Tracer, returned: Any) -> None:
    def first(state: State) -> State:
        return {"answer": "kept"}

    def idle(state: State) -> Any:
        return returned

    graph(first, idle).invoke({"question": "?"}, traced())
    content = log(tracer)
    assert content.one("node", "idle").generated == []
    run = next(run for run in content.runs.values() if run.span_id)
    assert content.values(run.answer) == {"answer": "kept"}


def test_states_of_classes_are_recorded_field_by_field(tracer: Tracer) -> None:
    class Model(BaseModel):
        question: str
        answer: str = ""

    @dataclass
    class Plain:
        question: str
        answer: str = ""

    def by_model(state: Model) -> Any:
        return Model(question="new").model_copy(update={"answer": "a"})

    def by_class(state: Plain) -> dict[str, str]:
        return {"answer": "a"}

    graph(by_model, state=Model, name="pydantic").invoke({"question": "q"}, traced())
    graph(by_class, state=Plain, name="dataclass").invoke({"question": "q"}, traced())
    content = log(tracer)
    assert content.values(content.one("node", "by_model").used) == {"question": "q", "answer": ""}
    assert content.values(content.one("node", "by_model").generated) == {"question": "new", "answer": "a"}
    assert content.values(content.one("node", "by_class").used) == {"question": "q", "answer": ""}


def test_commands_write_channels_and_say_where_they_go(tracer: Tracer) -> None:
    def decide(state: State) -> Command[Any]:
        return Command(update={"found": ["x"]}, goto="finish")

    def many(state: State) -> list[Any]:
        return [Command(update=[("found", ["y"])]), {"answer": "z"}]

    def finish(state: State) -> None:
        return None

    builder = StateGraph(State)
    builder.add_node(decide, destinations=("finish",))
    builder.add_node(many)
    builder.add_node(finish)
    builder.add_edge(START, "decide")
    builder.add_edge("finish", "many")
    builder.compile(name="G").invoke({"question": "?"}, traced())
    content = log(tracer)
    assert content.values(content.one("node", "decide").generated) == {"found": ["x"]}
    assert content.one("node", "decide").attributes["langgraph.goto"] == ["finish"]
    assert content.values(content.one("node", "many").generated) == {"found": ["y"], "answer": "z"}


def test_a_bare_message_is_written_to_the_messages_channel(tracer: Tracer) -> None:
    def reply(state: MessagesState) -> Any:
        return {"messages": [AIMessage("one", id="1")]}

    def again(state: MessagesState) -> Any:
        return Command(update={"messages": AIMessage("two", id="2")})

    graph(reply, again, state=MessagesState).invoke({"messages": [HumanMessage("hi", id="0")]}, traced())
    content = log(tracer)
    assert content.values(content.one("node", "reply").generated) == {
        "messages": [{"role": "assistant", "content": "one", "id": "1"}]
    }
    assert content.values(content.one("node", "again").used)["messages"] == [
        {"role": "user", "content": "hi", "id": "0"},
        {"role": "assistant", "content": "one", "id": "1"},
    ]
    run = next(run for run in content.runs.values() if run.span_id)
    assert content.values(run.answer) == {"messages": {"role": "assistant", "content": "two", "id": "2"}}


def test_sends_are_indexed_by_the_framework(tracer: Tracer) -> None:
    def fan(state: State) -> list[Send]:
        return [Send("work", {"question": str(i)}) for i in range(3)]

    def work(state: State) -> State:
        return {"found": [state["question"]]}

    builder = StateGraph(State)
    builder.add_node(work)
    builder.add_conditional_edges(START, fan, ["work"])
    builder.compile(name="G").invoke({"question": "?"}, traced())
    content = log(tracer)
    by_path = {span.start.path: content.values(span.generated) for span in content.of("node", "work")}
    assert by_path == {f"G/work[{i}]": {"found": [str(i)]} for i in range(3)}
    assert content.values(content.one("chain", "fan").generated) == {
        "output": [{"send": "work", "arg": {"question": str(i)}} for i in range(3)]
    }
    run = next(run for run in content.runs.values() if run.span_id)
    assert sorted(content.values(run.answer)["found"]) == [["0"], ["1"], ["2"]]


def test_an_interrupt_is_no_error_and_the_resumed_run_is_linked_to_it(tracer: Tracer) -> None:
    def ask(state: State) -> State:
        return {"answer": interrupt("sure?")}

    config = traced(configurable={"thread_id": "t-1"})
    asking = graph(ask, checkpointer=InMemorySaver())
    asking.invoke({"question": "?"}, config)
    content = log(tracer)
    paused = content.one("workflow")
    assert paused.status == "interrupted"
    assert content.one("node").status == "interrupted"
    assert paused.attributes["langgraph.checkpoint_id"]
    asking.invoke(Command(resume="yes"), config)
    content = log(tracer)
    resumed = content.of("workflow")[1]
    assert resumed.status == "ok"
    assert content.values(resumed.used) == {"resume": "yes"}
    assert resumed.end is not None
    assert [tuple(link) for link in resumed.end.links] == [
        (paused.start.trace_id, paused.start.span_id, "resumed_from")
    ]
    assert {run.session for run in content.runs.values() if run.span_id} == {"t-1"}


async def test_an_interrupt_in_an_async_subgraph_interrupts_every_span_around_it(tracer: Tracer) -> None:
    async def ask(state: State) -> State:
        return {"answer": interrupt("sure?")}

    inner = graph(ask, name="Inner")
    builder = StateGraph(State)
    builder.add_node("sub", inner)
    builder.add_edge(START, "sub")
    outer = builder.compile(name="Outer", checkpointer=InMemorySaver())
    config = traced(configurable={"thread_id": "t-1"})
    await outer.ainvoke({"question": "?"}, config)
    content = log(tracer)
    assert {span.name: span.status for span in content.spans} == dict.fromkeys(
        ("Outer", "sub", "Inner", "ask"), "interrupted"
    )
    assert (await outer.ainvoke(Command(resume="yes"), config))["answer"] == "yes"
    assert [span.status for span in log(tracer).spans[4:]] == ["ok"] * 4


def test_a_subgraph_is_a_workflow_in_the_same_run_and_its_answer_counts(tracer: Tracer) -> None:
    def write(state: State) -> State:
        return {"answer": "inner"}

    def outer_node(state: State) -> State:
        return {"found": ["outer"]}

    builder = StateGraph(State)
    builder.add_node(outer_node)
    builder.add_node("sub", graph(write, name="Inner"))
    builder.add_edge(START, "outer_node")
    builder.add_edge("outer_node", "sub")
    builder.add_edge("sub", END)
    builder.compile(name="Outer").invoke({"question": "?"}, traced())
    content = log(tracer)
    inner = content.one("workflow", "Inner")
    assert inner.start.path == "Outer/sub/Inner"
    run = next(run for run in content.runs.values() if run.span_id)
    assert {span.start.run_id for span in content.spans} == {run.run_id}
    assert content.values(run.answer) == {"answer": "inner"}
    above = content.one("node", "sub").attributes["graph.node.id"]
    assert content.one("node", "write").attributes["graph.node.parent_id"] == above


def test_a_graph_inside_a_clew_run_is_a_child_run(tracer: Tracer) -> None:
    def write(state: State) -> State:
        return {"answer": "a"}

    with clew.run("whole", session="s-1") as run:
        graph(write).invoke({"question": "?"}, traced())
    content = log(tracer)
    inner = next(one for one in content.runs.values() if one.name == "G")
    assert inner.parent_run_id is not None
    assert inner.parent_run_id.hex() == run.id
    assert inner.session == "s-1"
    assert content.one("workflow", "G").start.parent_id == content.one("workflow", "whole").start.span_id


def test_a_node_named_like_a_function_inside_it_is_one_node(tracer: Tracer) -> None:
    from langchain_core.runnables import RunnableLambda

    def write(state: State) -> State:
        return {"answer": RunnableLambda(lambda text: text + "!").with_config(run_name="write").invoke("a")}

    graph(write).invoke({"question": "?"}, traced())
    content = log(tracer)
    node = content.one("node", "write")
    assert [child.kind for child in content.children(node)] == ["chain"]


def test_an_attempt_is_linked_to_the_one_before(tracer: Tracer) -> None:
    tries = iter([OSError("once"), OSError("twice"), None])

    def flaky(state: State) -> State:
        if (failure := next(tries)) is not None:
            raise failure
        return {"answer": "a"}

    builder = StateGraph(State)
    policy = RetryPolicy(initial_interval=0.001, jitter=False, retry_on=OSError)
    builder.add_node(flaky, retry_policy=policy)
    builder.add_edge(START, "flaky")
    builder.compile(name="G").invoke({"question": "?"}, traced())
    first, second, third = log(tracer).of("node")
    assert [span.status for span in (first, second, third)] == ["error", "error", "ok"]
    assert first.attributes["error.type"] == "OSError"
    assert third.attributes["langgraph.attempt"] == 3
    for later, earlier in ((second, first), (third, second)):
        assert later.end is not None
        assert [tuple(link) for link in later.end.links] == [
            (earlier.start.trace_id, earlier.start.span_id, "retry_of")
        ]


def test_a_handoff_to_the_parent_graph_is_no_error(tracer: Tracer) -> None:
    def hand_over(state: State) -> Command[Any]:
        return Command(graph=Command.PARENT, goto="other", update={"answer": "handed"})

    def other(state: State) -> None:
        return None

    builder = StateGraph(State)
    builder.add_node("sub", graph(hand_over, name="Inner"))
    builder.add_node(other)
    builder.add_edge(START, "sub")
    builder.compile(name="Outer").invoke({"question": "?"}, traced())
    content = log(tracer)
    assert {span.status for span in content.spans} == {"ok"}
    node = content.one("node", "hand_over")
    assert content.values(node.generated) == {"answer": "handed"}
    assert node.attributes["langgraph.goto"] == ["other"]


def test_an_error_is_an_error_at_every_level_with_its_traceback(tracer: Tracer) -> None:
    def break_down(state: State) -> State:
        raise LookupError("no such thing")

    with pytest.raises(LookupError):
        graph(break_down).invoke({"question": "?"}, traced())
    content = log(tracer)
    for span in (content.one("workflow"), content.one("node")):
        assert span.status == "error"
        assert span.attributes["error.type"] == "LookupError"
        assert "break_down" in content.values(span.used)["traceback"]


async def test_a_cancelled_run_is_cancelled(tracer: Tracer) -> None:
    started = asyncio.Event()

    async def wait(state: State) -> State:
        started.set()
        await asyncio.Event().wait()
        return {}

    running = asyncio.create_task(graph(wait).ainvoke({"question": "?"}, traced()))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [span.status for span in log(tracer).spans] == ["cancelled", "cancelled"]


@pytest.mark.parametrize("is_async", [False, True])
def test_parallel_tools_nest_the_users_spans_under_their_own_calls(tracer: Tracer, is_async: bool) -> None:
    @tool
    def look(key: str) -> str:
        """Look a thing up."""
        with trace.get_tracer("user").start_as_current_span(f"io {key}"):
            return key.upper()

    def call(state: MessagesState) -> Any:
        calls = [{"name": "look", "args": {"key": key}, "id": key} for key in ("a", "b", "c")]
        return {"messages": [AIMessage("", tool_calls=calls, id="m")]}

    builder = StateGraph(MessagesState)
    builder.add_node(call)
    builder.add_node("tools", ToolNode([look]))
    builder.add_edge(START, "call")
    builder.add_edge("call", "tools")
    compiled = builder.compile(name="G")
    if is_async:
        asyncio.run(compiled.ainvoke({"messages": []}, traced()))
    else:
        compiled.invoke({"messages": []}, traced())
    content = log(tracer)
    for span in content.of("tool"):
        arguments = content.values(span.used)["arguments"]
        assert [child.name for child in content.children(span)] == [f"io {arguments['key']}"]
        assert span.attributes["gen_ai.tool.call.id"] == arguments["key"]
        assert content.values(span.generated)["result"] == arguments["key"].upper()
    assert len(content.of("tool")) == 3


def test_tasks_of_the_functional_api_are_nodes(tracer: Tracer) -> None:
    @task
    def double(number: int) -> int:
        return number * 2

    @entrypoint()
    def flow(numbers: list[int]) -> int:
        return sum(one.result() for one in [double(number) for number in numbers])

    assert flow.invoke([1, 2], traced()) == 6
    content = log(tracer)
    assert sorted(span.start.path for span in content.of("node", "double")) == [
        "LangGraph/flow/double[0]",
        "LangGraph/flow/double[1]",
    ]
    assert len(content.traces) == 1
    assert content.values(next(run for run in content.runs.values() if run.span_id).answer) == {"output": 6}


def test_a_channel_of_messages_is_stored_once(tracer: Tracer) -> None:
    class Chat(TypedDict):
        messages: Annotated[list[AnyMessage], operator.add]

    def reply(state: Chat) -> Any:
        return {
            "messages": [AIMessage(f"answer {len(state['messages'])} " + "x" * 200, id=str(len(state["messages"])))]
        }

    chat = graph(reply, state=Chat, checkpointer=InMemorySaver())
    for turn in range(10):
        config = traced(configurable={"thread_id": "t"})
        chat.invoke({"messages": [HumanMessage(f"question {turn} " + "y" * 200, id=f"q{turn}")]}, config)
    texts = [data for data in log(tracer).blobs.values() if data.startswith((b"answer", b"question"))]
    assert len(texts) == len(set(texts)) == 20
