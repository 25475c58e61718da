"""What tells two calls of a LangGraph node apart: the node's code, the ways out of it, what it is given; ids do not."""

from __future__ import annotations

import asyncio
import textwrap
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config, get_store
from langgraph.config import get_config as config_now
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore

import clew
from tests.replay.cache_bed import spans
from tests.replay.conftest import LIVE, Caching, live
from tests.replay.node_cache_bed import POLICY, State, graph

# -- what is another node


def made(source: str, **names: Any) -> Any:
    space: dict[str, Any] = {"live": live, "__name__": "nodes", **names}
    exec(textwrap.dedent(source), space)
    return space["node"]


def test_an_edited_node_runs_again(caching: Caching) -> None:
    """LangGraph tells a node by the name of its function, so an edited one was answered with the old one's writes."""

    def closed(over: str) -> Any:
        def node(state: State) -> State:
            live("node")
            return {"answer": over}

        return node

    with caching(None):
        answers = [graph(closed(over)).invoke({"question": "x"})["answer"] for over in ("a", "b", "a")]
    assert answers == ["a", "b", "a"]
    assert LIVE == {"node": 2}


def test_two_functions_of_one_name_do_not_answer_for_each_other_while_both_run(caching: Caching) -> None:
    """What was asked for by one graph is kept for that graph's node, though LangGraph's key is the same."""
    cache = clew.NodeCache()

    def closed(over: str) -> Any:
        async def node(state: State) -> State:
            live("node")
            await asyncio.sleep(0.01)
            return {"answer": over}

        return node

    async def both() -> Any:
        runs = [graph(closed(over), cache=cache).ainvoke({"question": "x"}) for over in ("a", "b")]
        return [one["answer"] for one in await asyncio.gather(*runs)]

    with caching(None):
        assert [asyncio.run(both()) for _ in range(2)] == [["a", "b"]] * 2
    assert LIVE == {"node": 2}


def test_a_graph_with_other_edges_does_not_go_the_old_way(caching: Caching) -> None:
    def one(state: State) -> State:
        live("node")
        return {"found": ["one"]}

    def routed(to: str) -> Any:
        builder = StateGraph(State)
        builder.add_node("one", one, cache_policy=POLICY)
        builder.add_node("left", lambda state: {"answer": "left"})
        builder.add_node("right", lambda state: {"answer": "right"})
        builder.add_edge(START, "one")
        builder.add_conditional_edges("one", lambda state: to, ["left", "right"])
        return builder.compile(cache=clew.NodeCache())

    with caching(None):
        answers = [routed(to).invoke({"question": "x"})["answer"] for to in ("left", "right", "left")]
    assert answers == ["left", "right", "left"]
    assert LIVE == {"node": 2}


def test_a_router_that_reads_more_than_its_node_is_asked_again(caching: Caching) -> None:
    class Narrow(TypedDict):
        question: str

    def one(state: Narrow) -> Any:
        live("node")
        return {"found": ["one"]}

    def route(state: State) -> str:
        return str(state["answer"])

    builder = StateGraph(State)
    builder.add_node("one", one, cache_policy=POLICY, input_schema=Narrow)
    builder.add_node("left", lambda state: {"found": ["left"]})
    builder.add_node("right", lambda state: {"found": ["right"]})
    builder.add_edge(START, "one")
    builder.add_conditional_edges("one", route, ["left", "right"])
    with caching(None):
        compiled = builder.compile(cache=clew.NodeCache())
        found = [compiled.invoke({"question": "x", "answer": to})["found"] for to in ("left", "right", "left")]
    assert found == [["one", "left"], ["one", "right"], ["one", "left"]]
    assert LIVE == {"node": 2}


def test_configuration_and_context_are_part_of_what_is_asked(caching: Caching) -> None:
    def configured(state: State, config: RunnableConfig) -> State:
        live("node")
        return {"answer": config["configurable"].get("language")}

    def contextual(state: State, runtime: Runtime[dict[str, str]]) -> State:
        live("node")
        return {"answer": runtime.context["language"]}

    with caching(None):
        for language in ("en", "de", "en"):
            config = {"configurable": {"language": language, "thread_id": str(live("thread"))}}
            assert graph(configured).invoke({"question": "x"}, config)["answer"] == language
            context = {"language": language}
            assert graph(contextual).invoke({"question": "x"}, context=context)["answer"] == language
    assert LIVE["node"] == 4


def meta(state: State) -> State:
    return {"answer": get_config()["metadata"].get("who")}


def meta_under_another_name(state: State) -> State:
    return {"answer": config_now()["metadata"].get("who")}


def meta_further_in(state: State) -> State:
    return {"answer": RunnableLambda(lambda _, config: config["metadata"].get("who")).invoke(0)}


def tags(state: State) -> State:
    return {"answer": get_config()["tags"][0]}


def thread(state: State, config: RunnableConfig) -> State:
    return {"answer": config["configurable"]["thread_id"]}


def limit(state: State, config: RunnableConfig) -> State:
    return {"answer": config["recursion_limit"]}


lambda_of_langchain = RunnableLambda(lambda _, config: {"answer": config["metadata"].get("who")})
LOOKING: dict[str, tuple[Any, list[Any]]] = {
    "metadata": (meta, [{"metadata": {"who": one}} for one in "ab"]),
    "metadata, under another name": (meta_under_another_name, [{"metadata": {"who": one}} for one in "ab"]),
    "metadata, further in": (meta_further_in, [{"metadata": {"who": one}} for one in "ab"]),
    "metadata, in a runnable": (lambda_of_langchain, [{"metadata": {"who": one}} for one in "ab"]),
    "tags": (tags, [{"tags": [one]} for one in "ab"]),
    "the thread": (thread, [{"configurable": {"thread_id": one}} for one in "ab"]),
    "the limit of steps": (limit, [{"recursion_limit": one} for one in (20, 30)]),
}


@pytest.mark.parametrize("case", LOOKING)
def test_what_a_node_looks_up_in_its_run_is_part_of_what_is_asked(caching: Caching, case: str) -> None:
    node, configs = LOOKING[case]
    builder = StateGraph(State)
    builder.add_node("node", node, cache_policy=POLICY)
    builder.add_edge(START, "node")
    plain = builder.compile()
    expected = [plain.invoke({"question": "x"}, config)["answer"] for config in configs]
    with caching(None):
        compiled = builder.compile(cache=clew.NodeCache())
        assert [compiled.invoke({"question": "x"}, config)["answer"] for config in configs] == expected
    assert len({*expected}) == 2


def test_what_a_router_looks_up_in_its_run_is_part_of_what_is_asked(caching: Caching) -> None:
    builder = StateGraph(State)
    builder.add_node("one", lambda state: {"found": ["one"]}, cache_policy=POLICY)
    builder.add_node("left", lambda state: {"found": ["left"]})
    builder.add_node("right", lambda state: {"found": ["right"]})
    builder.add_edge(START, "one")
    builder.add_conditional_edges("one", lambda state: get_config()["metadata"]["to"], ["left", "right"])
    with caching(None):
        compiled = builder.compile(cache=clew.NodeCache())
        found = [compiled.invoke({"question": "x"}, {"metadata": {"to": to}})["found"] for to in ("left", "right")]
    assert found == [["one", "left"], ["one", "right"]]


def test_a_node_that_looks_up_the_graphs_store_runs_each_time(caching: Caching) -> None:
    """It took the configuration only, and was answered with what stood in the store before."""

    def stored(state: State, config: RunnableConfig) -> State:
        held = get_store().get(("a",), "k")
        return {"answer": held and held.value["v"]}

    store = InMemoryStore()
    with caching(None):
        compiled = graph(stored, store=store)
        answers = []
        for value in (1, 2):
            store.put(("a",), "k", {"v": value})
            answers.append(compiled.invoke({"question": "x"})["answer"])
    assert answers == [1, 2]


def test_a_node_that_is_given_the_graphs_store_runs_each_time(
    caching: Caching, caplog: pytest.LogCaptureFixture
) -> None:
    def stored(state: State, runtime: Runtime[Any]) -> State:
        return {"answer": live("node")}

    with caching(None) as tracer, caplog.at_level("INFO", "clew"):
        for expected in (1, 2):
            assert graph(stored, store=InMemoryStore()).invoke({"question": "x"})["answer"] == expected
        reasons = {span.attributes["clew.cache.bypass"] for span in spans(tracer, "node")}
        cache = clew.NodeCache(versions={"stored": "1"})
        for _ in range(2):
            assert graph(stored, store=InMemoryStore(), cache=cache).invoke({"question": "x"})["answer"] == 3
    assert len(reasons) == 1
    assert "store" in reasons.pop()
    assert sum("not cached: node stored" in one.message for one in caplog.records) == 2  # once for each cache


# -- ids


def messages(number: int) -> list[AnyMessage]:
    return [
        HumanMessage("hello", id=f"human-{number:04}"),
        AIMessage("", id=f"run-{number:04}", tool_calls=[{"name": "add", "args": {"x": 1}, "id": f"call_{number:04}"}]),
    ]


def test_ids_of_messages_are_those_of_the_run_that_is_served(caching: Caching) -> None:
    """LangGraph: a message's uuid was in the key. A tool's answer must name the call of this run, not of the first."""

    @tool
    def add(x: int) -> str:
        """Add."""
        return str(x + live("add"))

    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode([add]), cache_policy=POLICY)
    builder.add_edge(START, "tools")
    made = builder.compile(cache=clew.NodeCache(versions={"tools": "1"}))
    with caching(None):
        answers = [made.invoke({"messages": messages(number)})["messages"][-1] for number in (1, 2)]
    assert [one.tool_call_id for one in answers] == ["call_0001", "call_0002"]
    assert [one.text for one in answers] == ["2", "2"]
    assert answers[0].id != answers[1].id
    assert LIVE == {"add": 1}


def test_a_message_that_is_served_twice_in_a_conversation_does_not_replace_itself(caching: Caching) -> None:
    class Chat(TypedDict):
        question: str
        messages: Annotated[list[AnyMessage], add_messages]

    class Narrow(TypedDict):
        question: str

    def chat(state: Narrow) -> Any:
        return {"messages": [AIMessage(f"answer {live('chat')}", id="chosen-by-the-model")]}

    builder = StateGraph(Chat)
    builder.add_node("chat", chat, cache_policy=POLICY, input_schema=Narrow)
    builder.add_edge(START, "chat")
    made = builder.compile(cache=clew.NodeCache(), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    with caching(None):
        for _ in range(3):
            found = made.invoke({"question": "again"}, config)["messages"]
    assert [one.text for one in found] == ["answer 1"] * 3
    assert len({one.id for one in found}) == 3
    assert LIVE == {"chat": 1}


def test_a_message_that_is_taken_away_or_changed_is_the_one_of_this_run(caching: Caching) -> None:
    def edit(state: MessagesState) -> Any:
        live("node")
        first, last = state["messages"]
        return {"messages": [RemoveMessage(id=str(last.id)), HumanMessage("edited", id=first.id)]}

    with caching(None):
        for number in (1, 2):
            found = graph(edit, state=MessagesState).invoke({"messages": messages(number)})["messages"]
            assert [(one.text, one.id) for one in found] == [("edited", f"human-{number:04}")]
    assert LIVE == {"node": 1}


def test_an_id_that_is_written_as_a_text_is_not_served_to_another_run(
    caching: Caching, caplog: pytest.LogCaptureFixture
) -> None:
    class Noting(MessagesState):
        last: str

    def note(state: Noting) -> Any:
        live("node")
        return {"last": f"it was {state['messages'][-1].id}"}

    with caching(None), caplog.at_level("INFO", "clew"):
        for number in (1, 2):
            found = graph(note, state=Noting).invoke({"messages": messages(number)})
            assert found["last"] == f"it was run-{number:04}"
    assert any("an id of its input" in one.message for one in caplog.records)
    assert LIVE == {"node": 2}


def test_what_a_node_may_read_of_a_message_is_part_of_its_input(caching: Caching) -> None:
    with caching(None):
        usage = [{"input_tokens": 1, "output_tokens": n, "total_tokens": 1 + n} for n in (1, 2)]
        assert len({clew.node_key([AIMessage("x", usage_metadata=one)]) for one in usage}) == 2
        answers = [ToolMessage("x", tool_call_id=f"call_{n:08}") for n in (1, 2)]
        assert len({clew.node_key([messages(1)[1], one]) for one in answers}) == 1
        own = messages(1)[1].tool_calls[0]["id"]  # type: ignore[union-attr]
        mine, other = ToolMessage("x", tool_call_id=own), ToolMessage("x", tool_call_id="call_other")
        assert clew.node_key([messages(1)[1], mine]) != clew.node_key([messages(1)[1], other])
