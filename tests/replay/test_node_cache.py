"""LangGraph's nodes: what one wrote is used again for an equal input and the same code, and it shows that it was."""

from __future__ import annotations

import asyncio
import gc
import operator
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy, Command, RetryPolicy, Send
from pydantic import BaseModel

import clew
from clew.lineage import index
from clew.lineage.view import SpanView
from clew.tracer.init import Tracer
from tests.lineage.lineage_bed import Given, documents, rows, used
from tests.replay.conftest import LIVE, Caching, Counted, live

POLICY = CachePolicy(key_func=clew.node_key)


class State(TypedDict, total=False):
    question: str
    found: Annotated[list[Any], operator.add]
    answer: Any


def graph(*nodes: Any, state: Any = State, policy: Any = POLICY, cache: Any = None, **compiled: Any) -> Any:
    """A chain of cached nodes, named by their functions."""
    builder = StateGraph(state)
    for node in nodes:
        builder.add_node(node.__name__, node, cache_policy=policy)
    for one, other in zip([START, *(node.__name__ for node in nodes)], [node.__name__ for node in nodes], strict=False):
        builder.add_edge(one, other)
    return builder.compile(cache=cache or clew.NodeCache(), **compiled)


def invoked(graph: Any, given: Any, config: Any = None, **more: Any) -> Any:
    return graph.invoke(given, config, **more)


def awaited(graph: Any, given: Any, config: Any = None, **more: Any) -> Any:
    return asyncio.run(graph.ainvoke(given, config, **more))


def streamed(graph: Any, given: Any, config: Any = None, **more: Any) -> Any:
    return list(graph.stream(given, config, stream_mode="values", **more))[-1]


ways = pytest.mark.parametrize("way", [invoked, awaited, streamed], ids=lambda way: way.__name__)


def answering(state: State) -> State:
    return {"answer": f"answer {live('node')} to {state['question']}", "found": [1]}


def spans(tracer: Tracer, kind: str = "node") -> list[SpanView]:
    clew.flush()
    with clew.open(tracer.folder.path) as reader:
        return [span for span in reader.spans() if span.kind == kind]


# -- what is served


@ways
def test_a_node_is_answered_with_what_it_wrote(caching: Caching, way: Any) -> None:
    with caching(None):
        first = way(graph(answering), {"question": "why", "found": [0]})
    with caching(None):
        assert way(graph(answering), {"question": "why", "found": [0]}) == first
        assert way(graph(answering), {"question": "who", "found": [0]})["answer"] == "answer 2 to who"
    assert first == {"question": "why", "found": [0, 1], "answer": "answer 1 to why"}
    assert LIVE == {"node": 2}


def test_a_graph_says_which_updates_were_cached(caching: Caching) -> None:
    with caching(None):
        updates = [list(graph(answering).stream({"question": "why"}, stream_mode="updates")) for _ in range(2)]
    assert "__metadata__" not in updates[0][0]
    assert updates[1][0]["__metadata__"] == {"cached": True}


def test_what_the_program_changes_is_not_changed_for_the_next_run(caching: Caching) -> None:
    def listing(state: State) -> State:
        live("node")
        return {"answer": ["a"]}

    with caching(None):
        for _ in range(3):
            found = graph(listing).invoke({"question": "x"})["answer"]
            assert found == ["a"]
            found.append("b")
    assert LIVE == {"node": 1}


def test_equal_inputs_have_one_key_whether_their_parts_are_shared_or_not(caching: Caching) -> None:
    """LangGraph's default: shared and separate objects have different pickles, and sets differ by process."""
    shared = ["x" * 50]
    with caching(None):
        for found in ([shared, shared], [["x" * 50], ["x" * 25 + "x" * 25]]):
            graph(answering).invoke({"question": "why", "found": found})
        assert clew.node_key({"a": 1, "b": {"x", "y"}}) == clew.node_key({"b": {"y", "x"}, "a": 1})
        others = [[1], (1,), {"a": 1}, [("a", 1)], 1, 1.0, True, "1", b"1", None, {1}, [[1]]]
        assert len({clew.node_key(one) for one in others}) == len(others)
    assert LIVE == {"node": 1}


@pytest.mark.parametrize("kind", ["send", "task"])
def test_sends_and_tasks_are_answered_one_by_one(caching: Caching, kind: str) -> None:
    if kind == "send":

        class Summed(TypedDict):
            question: str
            found: Annotated[list[Any], operator.add]

        builder = StateGraph(Summed)
        builder.add_node("one", lambda state: {"found": [live(state["question"])]}, cache_policy=POLICY)
        builder.add_conditional_edges(
            START, lambda state: [Send("one", {"question": letter}) for letter in state["question"]], ["one"]
        )
        made: Any = builder.compile(cache=clew.NodeCache())

        def ask(letters: str) -> Any:
            return made.invoke({"question": letters})["found"]
    else:

        @task(cache_policy=POLICY)
        def one(letter: str) -> int:
            return live(letter)

        @entrypoint(cache=clew.NodeCache())
        def ask_all(letters: str) -> list[int]:
            return [one(letter).result() for letter in letters]

        def ask(letters: str) -> Any:
            return ask_all.invoke(letters)

    with caching(None):
        assert ask("abc") == [1, 1, 1]
        assert ask("cbad") == [1, 1, 1, 1]
    assert dict.fromkeys("abcd", 1) == LIVE


def test_where_it_goes_next_is_served_too(caching: Caching) -> None:
    def route(state: State) -> Any:
        live("node")
        return Command(update={"answer": "routed"}, goto="end")

    def fan(state: State) -> State:
        live("node")
        return {"found": [1]}

    def end(state: State) -> State:
        return {"found": [live("end")]}

    builder = StateGraph(State)
    builder.add_node("route", route, cache_policy=POLICY, destinations=("end",))
    builder.add_node("fan", fan, cache_policy=POLICY)
    builder.add_node("end", end)
    builder.add_edge(START, "route")
    builder.add_edge(START, "fan")
    builder.add_conditional_edges("fan", lambda state: Send("end", {"question": "sent"}), ["end"])
    with caching(None):
        found = [builder.compile(cache=clew.NodeCache()).invoke({"question": "x"}) for _ in range(2)]
    assert [sorted(one["found"]) for one in found] == [[1, 1, 2], [1, 3, 4]]
    assert LIVE == {"node": 2, "end": 4}


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


def test_a_node_that_is_given_the_graphs_store_runs_each_time(
    caching: Caching, caplog: pytest.LogCaptureFixture
) -> None:
    def stored(state: State, runtime: Runtime[Any]) -> State:
        return {"answer": live("node")}

    with caching(None) as tracer, caplog.at_level("INFO", "clew"):
        for expected in (1, 2):
            assert graph(stored, store=InMemoryStore()).invoke({"question": "x"})["answer"] == expected
        reasons = {span.attributes["clew.cache.bypass"] for span in spans(tracer)}
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


# -- what is not kept


class Opaque:
    """No class that may stand in an answer."""


def test_what_cannot_be_kept_runs_each_time_and_is_said_once(
    caching: Caching, caplog: pytest.LogCaptureFixture
) -> None:
    def opaque(state: State) -> State:
        live("node")
        return {"answer": Opaque()}

    cache = clew.NodeCache()
    with caching(None), caplog.at_level("INFO", "clew"):
        for _ in range(3):
            assert type(graph(opaque, cache=cache).invoke({"question": "x"})["answer"]) is Opaque
    assert sum("not cached: node opaque" in one.message for one in caplog.records) == 1
    assert LIVE == {"node": 3}


def test_an_input_that_has_no_form_runs_each_time(caching: Caching) -> None:
    with caching(None) as tracer:
        for _ in range(2):
            graph(answering).invoke({"question": "x", "found": [iter([])]})
        assert all("iterator" in span.attributes["clew.cache.bypass"] for span in spans(tracer))
    assert LIVE == {"node": 2}


def test_an_error_is_not_kept(caching: Caching) -> None:
    def failing(state: State) -> State:
        if live("node") == 1:
            raise ConnectionError("down")
        return {"answer": "up"}

    with caching(None):
        with pytest.raises(ConnectionError):
            graph(failing).invoke({"question": "x"})
        for _ in range(2):
            assert graph(failing).invoke({"question": "x"})["answer"] == "up"
    assert LIVE == {"node": 2}


def test_what_a_failed_attempt_wrote_is_not_kept(caching: Caching) -> None:
    def flaky(state: State) -> State:
        if live("node") == 1:
            raise ConnectionError("down")
        return {"answer": "up"}

    builder = StateGraph(State)
    retry = RetryPolicy(max_attempts=2, initial_interval=0.01)
    builder.add_node("flaky", flaky, cache_policy=POLICY, retry_policy=retry)
    builder.add_edge(START, "flaky")
    with caching(None):
        for _ in range(2):
            assert builder.compile(cache=clew.NodeCache()).invoke({"question": "x"})["answer"] == "up"
    assert LIVE == {"node": 2}


def test_an_answer_with_a_credential_is_not_kept(caching: Caching) -> None:
    key = "sk-proj-" + "aB3dE6gH9jK2" * 4

    def telling(state: State) -> State:
        live("node")
        return {"answer": f"the key is {key}"}

    with caching(None):
        for _ in range(2):
            assert graph(telling).invoke({"question": "x"})["answer"].endswith(key)
    assert LIVE == {"node": 2}


# -- time, clearing, switches


def test_an_answer_that_is_too_old_is_not_used(caching: Caching, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, now = CachePolicy(key_func=clew.node_key, ttl=60), time.time_ns
    with caching(None):
        made = graph(answering, policy=policy)
        for later, answer in ((0, 1), (59, 1), (61, 2)):
            monkeypatch.setattr(time, "time_ns", lambda later=later: now() + later * 10**9)
            assert made.invoke({"question": "x"})["answer"] == f"answer {answer} to x"
        monkeypatch.setattr(time, "time_ns", lambda: now() + 80 * 10**9)
        shorter = graph(answering, policy=CachePolicy(key_func=clew.node_key, ttl=10))
        assert shorter.invoke({"question": "x"})["answer"] == "answer 3 to x"


@pytest.mark.parametrize("is_async", [False, True])
def test_what_is_cleared_runs_again_here_and_in_other_processes(caching: Caching, is_async: bool) -> None:
    def other(state: State) -> State:
        return {"found": [live("other")]}

    def clear(made: Any, nodes: Any) -> None:
        asyncio.run(made.aclear_cache(nodes)) if is_async else made.clear_cache(nodes)

    def ask() -> dict[str, int]:
        made.invoke({"question": "x"})
        return dict(LIVE)

    with caching(None):
        made = graph(answering, other)
        assert [ask(), ask()] == [{"node": 1, "other": 1}] * 2
        clear(made, ["other"])
        assert [ask(), ask()] == [{"node": 1, "other": 2}] * 2
    with caching(None):
        assert ask() == {"node": 1, "other": 2}
        clew.NodeCache().clear()
        assert [ask(), ask()] == [{"node": 2, "other": 3}] * 2


def test_inside_a_block_that_says_so_nothing_is_cached(caching: Caching) -> None:
    with caching(None):
        graph(answering).invoke({"question": "x"})
        with clew.caching(False):
            graph(answering).invoke({"question": "x"})
    assert LIVE == {"node": 2}


def test_recorded_runs_are_whole_and_replays_see_what_is_patched(clean_tracing: None, tmp_path: Path) -> None:
    """A node that is not run in a recorded run would be missing in its recording."""
    made = graph(answering)
    tracer = clew.init("tests", store=tmp_path / "store", record=True)
    assert tracer is not None
    clew.instrument()
    for expected in (1, 2):
        assert made.invoke({"question": "x"})["answer"] == f"answer {expected} to x"
    with clew.open(tracer.folder.path) as reader:
        recorded = next(iter(reader.runs())).run_id
    with clew.replay(recorded):
        assert made.invoke({"question": "x"})["answer"] == "answer 3 to x"
    clew.shutdown()
    index.forget(tracer.folder)
    tracer = clew.init("tests", store=tmp_path / "store")
    assert tracer is not None
    assert made.invoke({"question": "x"})["answer"] == "answer 2 to x"
    index.forget(tracer.folder)


def test_without_a_tracer_the_graph_runs(clean_tracing: None) -> None:
    for _ in range(2):
        graph(answering).invoke({"question": "x"})
    assert LIVE == {"node": 2}


def test_a_store_that_fails_does_not_stop_the_graph(
    caching: Caching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from clew.store.action import Actions

    def fail(*args: Any) -> Any:
        raise OSError("gone")

    with caching(None):
        monkeypatch.setattr(Actions, "look", fail)
        monkeypatch.setattr(Actions, "publish", fail)
        for _ in range(2):
            graph(answering).invoke({"question": "x"})
    assert [one.message.split(" failed")[0] for one in caplog.records] == ["clew: node cache"]
    assert LIVE == {"node": 2}


@pytest.mark.parametrize("state", ["pydantic", "default key"])
def test_other_states_and_keys_work_too(caching: Caching, state: str) -> None:
    class Model(BaseModel):
        question: str
        answer: str = ""

    def node(state: Model) -> Any:
        return {"answer": f"{live('node')} {state.question}"}

    def plain(state: State) -> State:
        return {"answer": f"{live('node')} {state['question']}"}

    with caching(None):
        for _ in range(2):
            if state == "pydantic":
                found = graph(node, state=Model).invoke({"question": "x"})
            else:
                found = graph(plain, policy=CachePolicy()).invoke({"question": "x"})
            assert found["answer"] == "1 x"


PROGRAM = textwrap.dedent(
    """
    import sys, clew
    from typing import TypedDict
    from langgraph.graph import START, StateGraph
    from langgraph.types import CachePolicy

    class State(TypedDict):
        question: str
        answer: set

    def helper(x):
        return x + EXTRA

    EXTRA = "!"

    def slow(state):
        print("ran", flush=True)
        return {"answer": helper(state["question"])}

    clew.init("tests", store=sys.argv[1])
    clew.instrument()
    builder = StateGraph(State)
    builder.add_node("slow", slow, cache_policy=CachePolicy(key_func=clew.node_key))
    builder.add_edge(START, "slow")
    graph = builder.compile(cache=clew.NodeCache())
    print(graph.invoke({"question": "x", "answer": {"a", "b", "c"}})["answer"], flush=True)
    """
)


def test_processes_share_it_until_the_code_changes(tmp_path: Path) -> None:
    def run(text: str) -> list[str]:
        program = tmp_path / "program.py"
        program.write_text(text)
        done = subprocess.run(
            [sys.executable, str(program), str(tmp_path / "store")],
            capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1]

    assert run(PROGRAM) == ["ran", "x!"]
    assert run(PROGRAM) == ["x!"]
    assert run(PROGRAM.replace('"!"', '"?"')) == ["ran", "x?"]
    assert run(PROGRAM) == ["x!"]


# -- how it shows


def test_a_served_node_is_a_span_with_what_it_read_and_wrote(caching: Caching) -> None:
    def after(state: State) -> State:
        return {"found": [live("after")]}

    builder = StateGraph(State)
    builder.add_node("answering", answering, cache_policy=POLICY)
    builder.add_node("after", after)
    builder.add_edge(START, "answering")
    builder.add_edge("answering", "after")
    with caching(None) as tracer:
        for _ in range(2):
            builder.compile(cache=clew.NodeCache(), name="G").invoke({"question": "why"})
        first, then, second, last = sorted(spans(tracer), key=lambda span: span.start_ns)
        stats = {(row.kind, row.hits, row.misses) for row in _stats(tracer)}
    assert [span.name for span in (first, then, second, last)] == ["answering", "after"] * 2
    assert first.attributes["clew.cache.hit"] is False
    assert second.attributes["clew.cache.hit"] is True
    assert first.attributes["clew.cache.key"] == second.attributes["clew.cache.key"]
    assert (first.span_id, "served_from") in [link[1:] for link in second.links]
    assert second.attributes["langgraph.step"] == 1
    assert [(slot.role, slot.value) for slot in second.used] == [(slot.role, slot.value) for slot in first.used]
    assert [(slot.role, slot.value) for slot in second.generated] == [("answer", "answer 1 to why"), ("found", [1])]
    assert (second.span_id, "triggered_by") in [link[1:] for link in last.links]
    assert stats == {("node", 1, 1)}


def _stats(tracer: Tracer) -> Any:
    from clew.replay.stats import stats

    with clew.open(tracer.folder.path) as reader, reader.store.read() as connection:
        return stats(connection)


@pytest.mark.parametrize("as_messages", [False, True])
def test_why_goes_through_a_cached_node_to_what_the_node_that_ran_used(caching: Caching, as_messages: bool) -> None:
    """The node retrieves a row and has a model say it in other words: the second run only gets the words."""
    says = "Go upstairs in the morning and ask for the colleague who looks after families."
    shelf = Given(found=documents(rows()[:1]))

    def ask(state: Any) -> Any:
        [found] = shelf.invoke("leave")
        answer = Counted(says=says).invoke(f"Context:\n{found.page_content}\n\nWhich floor?")
        return {"messages": [answer]} if as_messages else {"answer": answer.text}

    given = {"messages": [HumanMessage("Where do I go?", id="human-1")]} if as_messages else {"question": "Where?"}
    for hit in (False, True):
        with caching(None) as tracer:
            if not hit:
                clew.dataset("handbook", rows(), key="id")
            made = graph(
                ask, state=MessagesState if as_messages else State, cache=clew.NodeCache(versions={"ask": "1"})
            )
            made.invoke(given)
            assert spans(tracer)[-1].attributes["clew.cache.hit"] is hit
            with clew.open(tracer.folder.path) as reader:
                last = next(iter(reader.runs()))
            assert used(clew.why(last.run_id)) == ["h0"]
    assert LIVE == {"llm": 1}


def test_documents_that_a_cached_node_wrote_are_those_of_the_dataset(caching: Caching) -> None:
    def retrieve(state: State) -> State:
        live("node")
        return {"found": documents(rows()[:2])}

    with caching(None):
        for _ in range(2):
            found = graph(retrieve, cache=clew.NodeCache(versions={"retrieve": "1"})).invoke({"question": "x"})["found"]
            assert [type(one) for one in found] == [Document, Document]
            assert [one.page_content for one in found] == [one.page_content for one in documents(rows()[:2])]
    assert LIVE == {"node": 1}


def test_a_node_in_a_subgraph_is_served_where_its_graph_runs(caching: Caching) -> None:
    inner = StateGraph(State)
    inner.add_node("answering", answering, cache_policy=POLICY)
    inner.add_edge(START, "answering")
    inner.add_edge("answering", END)
    outer = StateGraph(State)
    outer.add_node("inner", inner.compile(cache=clew.NodeCache()))
    outer.add_edge(START, "inner")
    made = outer.compile()
    with caching(None) as tracer:
        first, second = (made.invoke({"question": "x"}) for _ in range(2))
        paths = [span.path for span in spans(tracer) if span.name == "answering"]
    assert first == second
    assert len(paths) == 2
    assert len(set(paths)) == 1
    assert LIVE == {"node": 1}


def test_a_node_of_which_nothing_came_is_not_remembered(caching: Caching) -> None:
    def failing(state: State) -> State:
        raise ConnectionError("down")

    cache = clew.NodeCache()
    with caching(None):
        for _ in range(3):
            with pytest.raises(ConnectionError):
                graph(failing, cache=cache).invoke({"question": "x"})
        gc.collect()
        assert not cache._asked


def test_several_messages_that_are_served_lead_to_what_any_of_them_may_be_of(caching: Caching) -> None:
    says = "Go upstairs in the morning and ask for the colleague who looks after families."
    shelf = Given(found=documents(rows()[:1]))

    def ask(state: Any) -> Any:
        [found] = shelf.invoke("leave")
        answer = Counted(says=says).invoke(f"Context:\n{found.page_content}\n\nWhich floor?")
        return {"messages": [AIMessage("Let me look it up in the handbook."), answer]}

    for hit in (False, True):
        with caching(None) as tracer:
            if not hit:
                clew.dataset("handbook", rows(), key="id")
            made = graph(ask, state=MessagesState, cache=clew.NodeCache(versions={"ask": "1"}))
            made.invoke({"messages": [HumanMessage("Where do I go?", id="human-1")]})
            with clew.open(tracer.folder.path) as reader:
                why = clew.why(next(iter(reader.runs())).run_id)
            assert used(why) == ([] if hit else ["h0"])
            assert bool(why.possible) is hit
    assert LIVE == {"llm": 1}


def test_without_langgraph_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from clew import integrations

    monkeypatch.setitem(sys.modules, "langgraph.callbacks", None)
    with pytest.raises(ImportError, match=r"clew\[langgraph\]"):
        integrations.NodeCache  # noqa: B018
