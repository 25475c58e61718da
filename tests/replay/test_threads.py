"""Checkpointed threads: a replay goes on from where the recorded run did, on a copy, whatever the thread has become."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

import clew
from clew.tracer.init import Tracer
from tests.replay.conftest import LIVE, Counted, Recorded


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


CONFIG: Any = {"configurable": {"thread_id": "t"}}


def talk(state: Chat) -> Any:
    return {"messages": [Counted().invoke(state["messages"])]}


async def talk_async(state: Chat) -> Any:
    return {"messages": [await Counted().ainvoke(state["messages"])]}


def agent(saver: Any, node: Any = talk) -> Any:
    built = StateGraph(Chat)
    built.add_node("talk", node)
    built.add_edge(START, "talk")
    return built.compile(checkpointer=saver)


def turn(graph: Any, text: str, config: Any = CONFIG) -> list[str]:
    """What all messages say after another turn."""
    return [one.text for one in graph.invoke({"messages": [HumanMessage(text)]}, config)["messages"]]


def contents(saver: Any) -> Any:
    """All that a saver holds of the thread."""
    return copy.deepcopy([tuple(one) for one in saver.list(CONFIG)])


def runs(tracer: Tracer) -> list[str]:
    """The runs of the store, oldest first."""
    clew.flush()
    with clew.open(tracer.folder.path) as reader:
        return [run.run_id for run in reader.runs()][::-1]


@contextlib.contextmanager
def in_memory(path: Path) -> Iterator[Any]:
    yield InMemorySaver()


@contextlib.contextmanager
def in_sqlite(path: Path) -> Iterator[Any]:
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite", reason="langgraph-checkpoint-sqlite is not installed")
    with sqlite.SqliteSaver.from_conn_string(str(path / "threads.db")) as saver:
        yield saver


SAVERS = [in_memory, in_sqlite]


@pytest.mark.parametrize("kept", SAVERS, ids=lambda one: one.__name__)
def test_each_turn_is_replayed_from_its_own_beginning_and_the_thread_stays(
    recorded: Recorded, tmp_path: Path, kept: Any
) -> None:
    with recorded() as tracer, kept(tmp_path) as saver:
        graph = agent(saver)
        said = [turn(graph, text) for text in ("one", "two", "three")]
        before = contents(saver)
        for run, text, first in zip(runs(tracer), ("one", "two", "three"), said, strict=True):
            with clew.replay(run) as again:
                assert turn(graph, text) == first
                state = graph.get_state(CONFIG)
                assert [one.text for one in state.values["messages"]] == first
                assert len([*graph.get_state_history(CONFIG)]) == 3 * len(first) // 2
            assert again.certificate.holds
            assert again.certificate.served == {"llm": 1}
        assert contents(saver) == before
    assert LIVE == {"llm": 3}


def test_an_awaited_turn_is_replayed_from_its_own_beginning(recorded: Recorded) -> None:
    async def said(graph: Any, text: str) -> list[str]:
        state = await graph.ainvoke({"messages": [HumanMessage(text)]}, CONFIG)
        return [one.text for one in state["messages"]]

    async def all_of_it() -> None:
        graph = agent(saver, talk_async)
        first = [await said(graph, text) for text in ("one", "two")]
        before = contents(saver)
        for run, text, told in zip(runs(tracer), ("one", "two"), first, strict=True):
            async with clew.replay(run) as again:
                assert await said(graph, text) == told
                assert len((await graph.aget_state(CONFIG)).values["messages"]) == len(told)
            assert again.certificate.holds
        assert contents(saver) == before

    saver = InMemorySaver()
    with recorded() as tracer:
        asyncio.run(all_of_it())
    assert LIVE == {"llm": 2}


def test_an_awaited_turn_on_a_saver_that_can_only_be_awaited(recorded: Recorded, tmp_path: Path) -> None:
    aio = pytest.importorskip("langgraph.checkpoint.sqlite.aio", reason="langgraph-checkpoint-sqlite is not installed")

    async def all_of_it() -> None:
        async with aio.AsyncSqliteSaver.from_conn_string(str(tmp_path / "threads.db")) as saver:
            graph = agent(saver, talk_async)
            for text in ("one", "two"):
                await graph.ainvoke({"messages": [HumanMessage(text)]}, CONFIG)
            before = [tuple(one) async for one in saver.alist(CONFIG)]
            async with clew.replay(runs(tracer)[0]) as again:
                state = await graph.ainvoke({"messages": [HumanMessage("one")]}, CONFIG)
            assert len(state["messages"]) == 2
            assert again.certificate.holds
            assert [tuple(one) async for one in saver.alist(CONFIG)] == before

    with recorded() as tracer:
        asyncio.run(all_of_it())


def test_a_replay_of_a_replay_begins_where_the_first_run_did(recorded: Recorded) -> None:
    with recorded() as tracer:
        graph = agent(InMemorySaver())
        turn(graph, "one")
        second = turn(graph, "two")
        turn(graph, "three")
        with clew.replay(runs(tracer)[1]) as again:
            turn(graph, "two")
        with clew.replay(again.id) as third:
            assert turn(graph, "two") == second
        assert third.certificate.holds


def test_what_the_program_wrote_itself_is_written_once(recorded: Recorded) -> None:
    def corrected(graph: Any) -> list[str]:
        graph.update_state(CONFIG, {"messages": [HumanMessage("by the way")]})
        return turn(graph, "two")

    with recorded():
        saver = InMemorySaver()
        graph = agent(saver)
        turn(graph, "one")
        with clew.run("correction") as run:
            first = corrected(graph)
        assert first[2] == "by the way"
        turn(graph, "three")
        before = contents(saver)
        with clew.replay(run) as again:
            assert corrected(graph) == first
        assert again.certificate.holds
        assert contents(saver) == before
        with clew.run("correction of nothing") as run:
            first = corrected(agent(InMemorySaver()))
        with clew.replay(run) as again:
            assert corrected(agent(InMemorySaver())) == first
        assert again.certificate.holds
        assert not again.certificate.notes  # what the run itself wrote is not missed


def test_a_fork_from_an_earlier_checkpoint(recorded: Recorded) -> None:
    with recorded() as tracer:
        saver = InMemorySaver()
        graph = agent(saver)
        one = turn(graph, "one")
        there = graph.get_state(CONFIG).config
        turn(graph, "two")
        forked = turn(graph, "or else", there)
        assert forked[:2] == one
        turn(graph, "three")
        before = contents(saver)
        with clew.replay(runs(tracer)[2]) as again:
            assert turn(graph, "or else", there) == forked
        assert again.certificate.holds
        assert contents(saver) == before


def test_a_thread_that_was_deleted_is_told(recorded: Recorded) -> None:
    with recorded() as tracer:
        saver = InMemorySaver()
        graph = agent(saver)
        turn(graph, "one")
        turn(graph, "two")
        saver.delete_thread("t")
        with clew.replay(runs(tracer)[1], mode="hybrid") as again:
            turn(graph, "two")
        assert any(
            "of thread t, from which the recorded run went on, is not there" in one for one in again.certificate.notes
        )
        with clew.replay(runs(tracer)[0]) as again:  # it began with nothing
            turn(graph, "one")
        assert again.certificate.holds
        assert not again.certificate.notes


def test_subgraphs_go_on_from_their_own_state(recorded: Recorded) -> None:
    """One that forgets, as a node, and one that remembers the thread, called in a node; both ask a person."""

    def inner(name: str) -> Any:
        def speak(state: Chat) -> Any:
            return {"messages": [Counted().invoke([HumanMessage(name), *state["messages"]])]}

        def check(state: Chat) -> Any:
            return {"messages": [HumanMessage(str(interrupt(f"{name} with {len(state['messages'])} messages?")))]}

        built = StateGraph(Chat)
        built.add_node("speak", speak)
        built.add_node("check", check)
        built.add_edge(START, "speak")
        built.add_edge("speak", "check")
        return built

    remembering = inner("remembering").compile(checkpointer=True)

    def call(state: Chat) -> Any:
        made = remembering.invoke({"messages": [HumanMessage("inside")]})["messages"]
        return {"messages": [HumanMessage(f"{len(made)} messages, last {made[-1].text}")]}

    built: Any = StateGraph(Chat)
    built.add_node("forgetting", inner("forgetting").compile())
    built.add_node("call", call)
    built.add_edge(START, "forgetting")
    built.add_edge("forgetting", "call")
    steps: list[Any] = [text for _ in range(2) for text in ("go", Command(resume="yes"), Command(resume="no"))]

    def step(graph: Any, given: Any) -> Any:
        given = {"messages": [HumanMessage(given)]} if isinstance(given, str) else given
        state = graph.invoke(given, CONFIG)
        asked = [one.value for one in state.get("__interrupt__", ())]
        return [one.text for one in state["messages"]], asked

    with recorded() as tracer:
        saver = InMemorySaver()
        graph = built.compile(checkpointer=saver)
        first = [step(graph, one) for one in steps]
        assert [told[1] for told in first] == [
            ["forgetting with 2 messages?"], ["remembering with 2 messages?"], [],
            ["forgetting with 6 messages?"], ["remembering with 5 messages?"], [],
        ]  # fmt: skip
        live, before = dict(LIVE), contents(saver)
        for run, given, told in zip(runs(tracer), steps, first, strict=True):
            with clew.replay(run) as again:
                assert step(graph, given) == told
            assert again.certificate.holds
        assert contents(saver) == before
    assert live == LIVE
