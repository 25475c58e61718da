"""What a replay serves: samples, streams, errors, tools, vectors and documents as they were recorded, and what it refuses."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import InjectedState

import clew
from clew.store.errors import ReplayMiss
from tests.replay.conftest import LIVE, Counted, Recorded, live


def test_what_follows_a_miss_is_refused_although_the_program_goes_on(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            Counted().invoke("one")
        with pytest.raises(ReplayMiss, match="differs from the recorded call in messages"), clew.replay(run) as again:
            for question in ("two", "one"):
                try:
                    Counted().invoke(question)
                except ReplayMiss:
                    continue
    assert LIVE["llm"] == 1
    assert again.certificate.error is not None


def test_a_miss_tells_each_thing_that_was_asked_otherwise(recorded: Recorded) -> None:
    talk = [HumanMessage(f"message {number}") for number in range(6)]
    calls = {
        'messages: messages[1]: nothing → {"content": "new", "role": "user"}': (
            Counted(temperature=0.0),
            [talk[0], HumanMessage("new"), *talk[1:]],
            ["a", "b"],
        ),
        'messages: messages[3]: {"content": "message 3", "role": "user"} → nothing; messages[4]': (
            Counted(temperature=0.0),
            talk[:3],
            ["a", "b"],
        ),
        "model: parameters.temperature: 0.0 → 0.1": (Counted(temperature=0.1), talk, ["a", "b"]),
        "options: order of tools: “a, b” → “b, a”": (Counted(temperature=0.0), talk, ["b", "a"]),
        'options: tools.a: {"function": {"name": "a"}, "type": "function"} → nothing; order': (
            Counted(temperature=0.0),
            talk,
            ["b"],
        ),
    }

    def call(model: Counted, messages: list[Any], names: list[str]) -> None:
        model.invoke(messages, tools=[{"type": "function", "function": {"name": name}} for name in names])

    with recorded():
        with clew.run("answer") as run:
            call(Counted(temperature=0.0), talk, ["a", "b"])
        for told, given in calls.items():
            with pytest.raises(ReplayMiss, match=re.escape(f"differs from the recorded call in {told}")):  # noqa: SIM117
                with clew.replay(run):
                    call(*given)
        with pytest.raises(ReplayMiss, match=r"; and 3 more$"), clew.replay(run):
            call(Counted(temperature=0.0), [HumanMessage(one.text.upper()) for one in talk], ["a", "b"])


def test_samples_stay_apart_and_more_of_them_are_a_miss(recorded: Recorded) -> None:
    model = Counted(temperature=1.0)
    with recorded():
        with clew.run("answer") as run:
            first = [model.invoke("say").text for _ in range(3)]
        assert len(set(first)) == 3
        with clew.replay(run):
            assert [model.invoke("say").text for _ in range(3)] == first
        with pytest.raises(ReplayMiss, match="asked here 4 times, recorded 3"), clew.replay(run):
            for _ in range(4):
                model.invoke("say")
    assert LIVE["llm"] == 3


def test_what_is_no_sample_may_be_asked_more_often(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            first = Counted().invoke("say").text
        with clew.replay(run):
            assert [Counted().invoke("say").text for _ in range(3)] == [first] * 3
    assert LIVE["llm"] == 1


def test_a_stream_comes_again_in_its_chunks(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            chunks = [chunk.text for chunk in Counted().stream("a b c")]
        with clew.replay(run):
            assert [chunk.text for chunk in Counted().stream("a b c")] == chunks
        with clew.replay(run):
            assert Counted().invoke("a b c").text == "".join(chunks)
        with clew.replay(run):
            assert asyncio.run(_astreamed("a b c")) == chunks
    assert LIVE["llm"] == 1


async def _astreamed(text: str) -> list[str]:
    return [chunk.text async for chunk in Counted().astream(text)]


class Failing(Counted):
    """Fails each time."""

    def _answer(self, messages: list[Any]) -> AIMessage:
        live("llm")
        raise ConnectionResetError(104, "gone")


class Odd(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, first: str, second: Any) -> None:
        super().__init__(first)
        self.second = second


def test_what_was_raised_is_raised_again(recorded: Recorded) -> None:
    @tool
    def odd(x: int) -> int:
        """Fail oddly."""
        live("tool")
        raise Odd("so", x)

    with recorded():
        with clew.run("answer") as run:
            with pytest.raises(ConnectionResetError):
                Failing().invoke("say")
            with pytest.raises(Odd):
                odd.invoke({"x": 7})
        with clew.replay(run) as again:
            with pytest.raises(ConnectionResetError, match="gone") as raised:
                Failing().invoke("say")
            with pytest.raises(Odd) as other:
                odd.invoke({"x": 7})
    assert raised.value.errno == 104
    assert other.value.second == 7
    assert LIVE == {"llm": 1, "tool": 1}
    assert again.certificate.holds


def test_tools_that_say_nothing_are_served_each_for_its_time(recorded: Recorded) -> None:
    balance = iter([100, 50])

    @tool
    def look(account: str) -> int:
        """The balance."""
        return next(balance)

    with recorded():
        with clew.run("answer") as run:
            first = [look.invoke({"account": "a"}) for _ in range(2)]
        with clew.replay(run):
            assert [look.invoke({"account": "a"}) for _ in range(2)] == first == [100, 50]
        with pytest.raises(ReplayMiss), clew.replay(run):
            look.invoke({"account": "b"})


def test_a_tool_that_sees_the_state_is_served(recorded: Recorded) -> None:
    class State(TypedDict):
        question: str
        messages: list[Any]

    @tool
    def count(word: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
        """Count."""
        return f"{live('tool')} {word} {state['question']}"

    def call(state: State) -> dict[str, Any]:
        answer = Counted(tool="count").invoke([HumanMessage(state["question"])])
        made = count.invoke(
            {
                "type": "tool_call",
                "name": "count",
                "id": answer.tool_calls[0]["id"],
                "args": {"word": "w", "state": {**state, "messages": [answer]}},
            }
        )
        return {"messages": [made]}

    graph = StateGraph(State)
    graph.add_node("call", call)
    graph.add_edge(START, "call")
    graph.add_edge("call", END)
    agent = graph.compile()
    with recorded():
        with clew.run("answer") as run:
            first = agent.invoke({"question": "Q", "messages": []})["messages"][0].text
        with clew.replay(run) as again:
            assert agent.invoke({"question": "Q", "messages": []})["messages"][0].text == first
        assert any("found by what can be seen" in note for note in again.certificate.notes)
        with pytest.raises(ReplayMiss), clew.replay(run):
            agent.invoke({"question": "other", "messages": []})
    assert LIVE["tool"] == 1


class Vectors(Embeddings):
    """One number for each text: which call it was."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(live("embedding"))] for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(live("embedding"))]


def test_vectors_are_served_text_by_text(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            one, two = Vectors().embed_documents(["one", "two"])
        with clew.replay(run):
            assert Vectors().embed_documents(["two", "one"]) == [two, one]
        with pytest.raises(ReplayMiss), clew.replay(run):
            Vectors().embed_documents(["one", "three"])
        with clew.replay(run, mode="hybrid"):
            assert len(Vectors().embed_documents(["one", "three"])) == 2


class Shelf(BaseRetriever):
    """Finds what it holds."""

    holds: str

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(f"{self.holds} {live('retriever')}", id="d1", metadata={"n": 1})]


def test_a_retriever_with_other_contents_goes_live(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            first = Shelf(holds="a").invoke("q")
        with clew.replay(run):
            assert Shelf(holds="a").invoke("q") == first
        with clew.replay(run, mode="hybrid") as again:
            assert Shelf(holds="b").invoke("q") != first
    assert [one.kind for one in again.certificate.live] == ["retriever"]


def test_what_was_redacted_is_served_so_and_told(recorded: Recorded) -> None:
    secret = "sk-proj-" + "a1B2c3D4" * 6
    with recorded():
        with clew.run("answer") as run:
            assert secret in Counted(says=f"the key is {secret}").invoke("q").text
        with clew.replay(run) as again:
            assert secret not in Counted(says=f"the key is {secret}").invoke("q").text
    assert any("credential" in note for note in again.certificate.notes)


happened: dict[str, threading.Event] = {}


def take_turns(text: str) -> None:
    """The slow call is open until the quick one has ended, which begins no earlier than that."""
    if text == "slow":
        happened["slow began"].set()
        assert happened["quick ended"].wait(60)
    elif text == "quick":
        assert happened["slow began"].wait(60)


def test_parallel_calls_end_in_the_recorded_order(recorded: Recorded) -> None:
    """Which of two branches is through first may decide what is asked next."""

    class Slow(Counted):
        def _answer(self, messages: list[Any]) -> AIMessage:
            take_turns(messages[-1].text)
            return AIMessage(messages[-1].text)

    def ask(text: str) -> None:
        Slow().invoke(text)
        happened[f"{text} ended"].set()

    def race() -> None:
        happened.update({name: threading.Event() for name in ("slow began", "slow ended", "quick ended")})
        threads = [threading.Thread(target=ask, args=(text,)) for text in ("slow", "quick")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def ends(run: Any) -> list[str]:
        clew.flush()
        with clew.open(tracer.folder.path) as reader:
            spans = sorted((one for one in reader.spans(run) if one.kind == "llm"), key=lambda one: one.end_ns or 0)
            return [one.used[0].value[-1]["content"] for one in spans]

    with recorded() as tracer:
        Slow().invoke("first")  # its code is known then, and neither call waits for that
        with clew.run("answer") as run:
            race()
        assert ends(run) == ["quick", "slow"]
        with clew.replay(run, ordered=True) as again:
            race()
        assert ends(again.id) == ["quick", "slow"]


def test_what_is_served_is_an_object_of_its_own(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            Counted().invoke("one")
        with clew.replay(run):
            one, other = Counted().invoke("one"), Counted().invoke("one")
    assert one is not other
    assert one.text == other.text
