"""What LangGraph can do, replayed: fan-outs, retries, caches, streams, durabilities, and the functional API."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy, Command, RetryPolicy, Send, interrupt

import clew
from tests.replay.conftest import LIVE, Counted, Recorded, live

CONFIG: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict):
    said: Annotated[list[str], operator.add]


class Flaky(Counted):
    """Fails twice, and then answers."""

    def _answer(self, messages: list[Any]) -> AIMessage:
        if live("flaky") < 3:
            raise ConnectionResetError(104, "gone")
        return super()._answer(messages)


def ask(text: str, **options: Any) -> str:
    return Counted(**options).invoke(text).text


def test_attempts_that_failed_fail_again(recorded: Recorded) -> None:
    def node(state: State) -> Any:
        return {"said": [Flaky().invoke("say").text]}

    built: Any = StateGraph(State)
    built.add_node("node", node, retry_policy=RetryPolicy(initial_interval=0.01, max_attempts=3))
    built.add_edge(START, "node")
    agent = built.compile()
    with recorded():
        with clew.run("talk") as run:
            first = agent.invoke({"said": []})
        assert LIVE == {"flaky": 3, "llm": 1}
        with clew.replay(run) as again:
            assert agent.invoke({"said": []}) == first
        assert again.certificate.holds
        assert again.certificate.served == {"llm": 3}
    assert LIVE == {"flaky": 3, "llm": 1}


def fanned(**options: Any) -> Any:
    """Topics fanned out to a subgraph each, which samples and uses a tool, and a last word."""

    @tool
    def look(topic: str) -> str:
        """Look something up."""
        return f"look-up {live('tool')} of {topic}"

    def speak(state: Any) -> Any:
        get_stream_writer()({"about": state["topic"]})
        return {"said": [ask(f"say {state['topic'][0]}", temperature=1.0), look.invoke({"topic": state["topic"]})]}

    class Topic(TypedDict):
        topic: str
        said: Annotated[list[str], operator.add]

    inner: Any = StateGraph(Topic)
    inner.add_node("speak", speak)
    inner.add_edge(START, "speak")
    built: Any = StateGraph(State)
    built.add_node("branch", inner.compile())
    built.add_node("last", lambda state: {"said": [ask(" ".join(state["said"]))]})
    built.add_conditional_edges(START, lambda _: [Send("branch", {"topic": one}) for one in ("tea", "toe", "rum")])
    built.add_edge("branch", "last")
    return built.compile(**options)


@pytest.mark.parametrize("mode", ["values", "updates", "custom", "messages", "debug"])
@pytest.mark.parametrize("subgraphs", [False, True])
def test_every_way_to_stream(recorded: Recorded, mode: Any, subgraphs: bool) -> None:
    agent = fanned()

    def said() -> Any:
        parts = [*agent.stream({"said": []}, stream_mode=[mode, "values"], subgraphs=subgraphs)]
        return parts[-1][-1]["said"], len(parts), sorted(str(part[-1]) for part in parts if part[-2] == "custom")

    with recorded():
        with clew.run("talk") as run:
            first = said()
        live_before = dict(LIVE)
        with clew.replay(run) as again:
            assert said() == first
        assert again.certificate.holds
        assert again.certificate.served == {"llm": 4, "tool": 3}
    assert live_before == LIVE


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_every_durability(recorded: Recorded, durability: Any) -> None:
    agent = fanned(checkpointer=InMemorySaver())

    async def said(text: str) -> Any:
        return await agent.ainvoke({"said": [text]}, CONFIG, durability=durability)

    with recorded() as tracer:
        first = [asyncio.run(said(text)) for text in ("one", "two")]
        live_before = dict(LIVE)
        clew.flush()
        with clew.open(tracer.folder.path) as reader:
            runs = [run.run_id for run in reader.runs() if run.name == "LangGraph"][::-1]
        for run, text, told in zip(runs, ("one", "two"), first, strict=True):
            with clew.replay(run) as again:
                assert asyncio.run(said(text)) == told
            assert again.certificate.holds
    assert live_before == LIVE


def test_a_node_that_was_served_from_a_cache(recorded: Recorded) -> None:
    def node(state: State) -> Any:
        return {"said": [ask("say", temperature=1.0)]}

    built: Any = StateGraph(State)
    built.add_node("node", node, cache_policy=CachePolicy(key_func=lambda _: "k"))
    built.add_edge(START, "node")
    agent = built.compile(cache=InMemoryCache())
    with recorded():
        with clew.run("talk") as run:
            first = [agent.invoke({"said": []}) for _ in range(2)]
        assert LIVE == {"llm": 1}
        with clew.replay(run) as again:
            assert [agent.invoke({"said": []}) for _ in range(2)] == first
        assert again.certificate.holds
        agent.clear_cache()
        with clew.replay(run) as again:
            assert [agent.invoke({"said": []}) for _ in range(2)] == first
        assert again.certificate.holds
        assert again.certificate.served == {"llm": 1}
    assert LIVE == {"llm": 1}


def test_a_replay_with_a_patch_has_a_cache_of_nodes_of_its_own(recorded: Recorded) -> None:
    def node(state: State) -> Any:
        return {"said": [ask("say")]}

    built: Any = StateGraph(State)
    built.add_node("node", node, cache_policy=CachePolicy(key_func=lambda _: "k"))
    built.add_edge(START, "node")
    agent = built.compile(cache=InMemoryCache())
    with recorded():
        with clew.run("talk") as run:
            first = [agent.invoke({"said": []}) for _ in range(2)]
        with clew.replay(run, mode="hybrid", patch=clew.Model("Counted", says="other")) as again:
            assert [agent.invoke({"said": []})["said"] for _ in range(2)] == [["other"], ["other"]]
        assert len(again.certificate.live) == 1
        assert [agent.invoke({"said": []}) for _ in range(2)] == first
        agent.clear_cache()
        with clew.replay(run, mode="hybrid", patch=clew.Model("Counted", says="other")):
            agent.invoke({"said": []})
        assert agent.invoke({"said": []})["said"] != ["other"]


def test_the_functional_api(recorded: Recorded) -> None:
    @task
    def draft(topic: str) -> str:
        return ask(f"draft {topic}", temperature=1.0)

    @entrypoint(checkpointer=InMemorySaver())
    def write(topic: str, *, previous: Any = None) -> Any:
        drafts = [draft(topic) for _ in range(2)]
        texts = [one.result() for one in drafts]
        verdict = interrupt(texts)
        return entrypoint.final(value=[*texts, verdict, previous], save=[*(previous or []), verdict])

    def talk(says: str, config: Any) -> Any:
        found = []
        for topic in ("tea", "rum"):
            write.invoke(topic, config)
            found.append(write.invoke(Command(resume=f"{says} {topic}"), config))
        return found

    with recorded() as tracer:
        with clew.run("talk") as run:
            first = talk("yes", CONFIG)
        assert first[1][-1] == ["yes tea"]
        assert LIVE == {"llm": 4}
        with clew.replay(run) as again:
            assert talk("no", CONFIG) == first
        assert again.certificate.holds
        other: Any = {"configurable": {"thread_id": "other"}}
        first = talk("yes", other)
        clew.flush()
        with clew.open(tracer.folder.path) as reader:
            newest = next(iter(reader.runs()))
        with clew.replay(newest.run_id) as again:  # the drafts were made before the run began
            assert write.invoke(Command(resume="no"), other) == first[1]
        assert again.certificate.holds
        assert again.certificate.notes == ["LangGraph was resumed with the recorded answer in place of another one"]
    assert LIVE == {"llm": 8}


def test_a_store_is_not_part_of_the_recording_and_the_certificate_says_so(recorded: Recorded) -> None:
    def node(state: State, *, store: BaseStore) -> Any:
        store.put(("notes",), f"note {len(store.search(('notes',)))}", {"text": "x"})
        return {"said": [ask("say"), str(len(store.search(("notes",))))]}

    built: Any = StateGraph(State)
    built.add_node("node", node)
    built.add_edge(START, "node")

    def said(agent: Any) -> list[str]:
        return agent.invoke({"said": []})["said"]

    with recorded():
        agent = built.compile(store=InMemoryStore())
        with clew.run("talk") as run:
            first = said(agent)
        for other, same in ((agent, False), (built.compile(store=InMemoryStore()), True)):
            with clew.replay(run) as again:
                assert (said(other) == first) is same
            assert again.certificate.holds is same
            assert again.certificate.notes == [
                "LangGraph has a store: it is as it is now, and what is written to it stays"
            ]
    assert LIVE == {"llm": 1}


def test_ids_of_messages_are_the_same_in_two_replays(recorded: Recorded) -> None:
    from langgraph.graph.message import MessagesState

    def node(state: MessagesState) -> Any:
        return {"messages": [Counted().invoke(state["messages"])]}

    built = StateGraph(MessagesState)
    built.add_node("node", node)
    built.add_edge(START, "node")
    agent = built.compile(checkpointer=InMemorySaver())

    def said() -> Any:
        given: Any = {"messages": ["more"]}
        found = agent.invoke(given, CONFIG)["messages"]
        return [
            (one.id if one.type == "human" else None, one.text) for one in found
        ]  # LangChain numbers its answers by time

    with recorded():
        said()
        with clew.run("talk") as run:
            first = said()
        replays = []
        for _ in range(2):
            with clew.replay(run) as again:
                replays.append(said())
            assert again.certificate.holds
        assert replays[0] == replays[1]
        assert replays[0][:2] == first[:2]  # those of the thread, to which nothing was added
        assert [text for _, text in replays[0]] == [text for _, text in first]
