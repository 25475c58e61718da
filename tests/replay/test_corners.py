"""Replays of what is rare: given up, left early, retried, swallowed, hidden, or asked in a run of its own."""

from __future__ import annotations

import array
import asyncio
import collections
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

import clew
from clew.store.errors import OverBudget, ReplayMiss
from tests.replay.conftest import LIVE, Counted, Recorded, live


def graph(node: Any, *more: Any) -> Any:
    made: Any = StateGraph(MessagesState)
    names = [f"node{at}" for at in range(1 + len(more))]
    for name, body in zip(names, (node, *more), strict=True):
        made.add_node(name, body)
    for before, after in zip([START, *names], [*names, END], strict=True):
        made.add_edge(before, after)
    return made.compile()


def called(name: str, arguments: dict[str, Any]) -> list[AnyMessage]:
    return [AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": f"call_{uuid.uuid4().hex}"}])]


# -- what the program did not wait for


def test_a_stream_that_was_left_answers_for_no_more_than_was_taken(recorded: Recorded) -> None:
    def taken(count: int) -> list[str]:
        stream = Counted().stream("a b c")
        found = [next(stream).text for _ in range(count)]
        stream.close()  # type: ignore[attr-defined]
        return found

    with recorded():
        with clew.run("answer") as run:
            first = taken(2)
        with clew.replay(run) as again:
            assert taken(2) == first
        assert again.certificate.holds
        with pytest.raises(ReplayMiss, match="took no more of this stream"), clew.replay(run):
            taken(3)
        with pytest.raises(ReplayMiss, match="did not wait for its end"), clew.replay(run) as again:
            Counted().invoke("a b c")
        assert len(again.certificate.live) == 1
        assert LIVE == {"llm": 1}
        with clew.replay(run, mode="hybrid"):
            assert Counted().invoke("a b c").text == "answer 2 to a b c"


def test_a_whole_answer_is_found_where_a_stream_of_it_was_left(recorded: Recorded) -> None:
    def program(*, streams: bool) -> str:
        if streams:
            stream = Counted().stream("a b c")
            next(stream)
            stream.close()  # type: ignore[attr-defined]
        return Counted().invoke("a b c").text

    with recorded():
        with clew.run("answer") as run:
            first = program(streams=True)
        with clew.replay(run):
            assert program(streams=True) == first
        with clew.replay(run):
            assert program(streams=False) == first
    assert LIVE == {"llm": 2}


def test_a_call_that_was_given_up_is_given_up_again(recorded: Recorded) -> None:
    @tool
    async def slow(seconds: float) -> str:
        """Wait."""
        live("slow")
        await asyncio.sleep(seconds)
        return f"after {seconds}"

    async def race() -> str:
        tasks = [asyncio.ensure_future(slow.ainvoke({"seconds": one})) for one in (0.001, 60.0)]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for one in pending:
            one.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        return str(done.pop().result())

    async def late() -> str:
        try:
            return str(await asyncio.wait_for(slow.ainvoke({"seconds": 59.0}), 0.05))
        except TimeoutError:
            return "late"

    with recorded():
        for program in (race, late):
            with clew.run("answer") as run:
                first = asyncio.run(program())
            asked = dict(LIVE)
            with clew.replay(run) as again:
                assert asyncio.run(program()) == first
            assert again.certificate.error is None
            assert not again.certificate.live
            assert asked == LIVE


def test_a_call_that_was_given_up_has_no_answer(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clew.replay.playback.asked.PATIENCE_S", 0.01)

    @tool
    async def slow(seconds: float) -> str:
        """Wait."""
        await asyncio.sleep(seconds)
        return f"after {seconds}"

    async def waited(seconds: float) -> Any:
        return await asyncio.wait_for(slow.ainvoke({"seconds": 0.3}), seconds)

    with recorded():
        with pytest.raises(TimeoutError), clew.run("answer") as run:
            asyncio.run(waited(0.05))
        with pytest.raises(ReplayMiss, match="did not wait for its end"), clew.replay(run):
            asyncio.run(waited(30))
        with clew.replay(run, mode="hybrid"):
            assert asyncio.run(waited(30)) == "after 0.3"


def test_a_stream_of_nothing(recorded: Recorded) -> None:
    class Silent(Counted):
        def _stream(
            self, messages: list[Any], stop: Any = None, run_manager: Any = None, **options: Any
        ) -> Iterator[Any]:
            live("llm")
            return iter(())

    def said() -> str:
        with pytest.raises(ValueError, match="No generation") as raised:
            list(Silent().stream("x"))
        return str(raised.value)

    with recorded():
        with clew.run("answer") as run:
            first = said()
        with clew.replay(run):
            assert said() == first
    assert LIVE == {"llm": 1}


# -- runs in a run


def test_runs_in_a_run_have_each_its_own_sample(recorded: Recorded) -> None:
    votes = graph(lambda state: {"messages": [Counted(temperature=1.0).invoke(state["messages"])]})

    def ask() -> list[str]:
        return [votes.invoke({"messages": [HumanMessage("hi")]})["messages"][-1].text for _ in range(3)]

    with recorded():
        with clew.run("vote") as run:
            first = ask()
        with clew.replay(run) as again:
            assert ask() == first
    assert len(set(first)) == 3
    assert again.certificate.unasked == 0


# -- swallowed


def test_a_miss_that_a_tool_node_turns_into_a_message_is_raised_at_the_end(recorded: Recorded) -> None:
    @tool
    def look(x: int) -> str:
        """Look."""
        return f"seen {live('tool')}"

    tools = ToolNode([look], handle_tool_errors=True)
    agent = graph(tools, lambda state: {"messages": [Counted().invoke(state["messages"])]})

    def ask(x: int) -> str:
        return str(agent.invoke({"messages": called("look", {"x": x})})["messages"][-1].text)

    with recorded():
        with clew.run("answer") as run:
            ask(1)
        with pytest.raises(ReplayMiss, match=r"arguments\.x: 1 → 2"), clew.replay(run):
            ask(2)
        with clew.replay(run, mode="plan") as plan:
            ask(2)
        assert LIVE == {"tool": 1, "llm": 1}
        assert plan.plan[0].kind == "tool"


def test_a_budget_that_the_program_swallows_is_on_the_certificate(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            Counted().invoke("one")
        with clew.replay(run, mode="hybrid", max_calls=0) as again, pytest.raises(OverBudget):
            Counted().invoke("two")
    assert again.certificate.error is not None
    assert again.certificate.error.startswith("OverBudget")
    assert not again.certificate.holds
    assert LIVE == {"llm": 1}


def test_what_the_cache_answers_in_a_hybrid_replay_was_not_paid_for(recorded: Recorded) -> None:
    with recorded(cache=True):
        Counted().invoke("other")
        with clew.run("answer") as run:
            Counted().invoke("one")
        with pytest.raises(ReplayMiss), clew.replay(run):  # what the cache has is not what was recorded
            Counted().invoke("other")
        with clew.replay(run, mode="hybrid", prices={"counted": (1, 1)}) as again:
            Counted().invoke("other")
        assert [one.cached for one in again.certificate.live] == [True]
        assert again.certificate.money_spent == 0
        assert "from the cache" in str(again.certificate)
        with clew.replay(run, mode="hybrid", prices={"counted": (1, 1)}) as again:
            Counted().invoke("a third one")
        assert again.certificate.money_spent
    assert LIVE == {"llm": 3}


def test_what_an_exception_was_raised_from_comes_again(recorded: Recorded) -> None:
    @tool
    def fail() -> str:
        """Fail."""
        live("tool")
        try:
            return {}["key"]
        except KeyError as error:
            raise ValueError("no key") from error

    def cause() -> BaseException | None:
        with pytest.raises(ValueError, match="no key") as raised:
            fail.invoke({})
        return raised.value.__cause__

    with recorded():
        with clew.run("answer") as run:
            cause()
        with clew.replay(run):
            again = cause()
    assert type(again) is KeyError
    assert again.args == ("key",)
    assert LIVE == {"tool": 1}


class Limited(Exception):
    """As clients of models raise it: it holds the response, which nobody can keep."""

    def __init__(self, message: str, *, response: object, body: dict[str, Any]) -> None:
        super().__init__(message)
        self.response, self.body, self.status_code = response, body, 429


class Busy(Counted):
    """Every other call is one too many."""

    def _answer(self, messages: list[Any]) -> AIMessage:
        if live("busy") % 2:
            raise Limited("slow down", response=threading.Lock(), body={"retry": 1})
        return super()._answer(messages)


def test_a_failure_that_holds_what_cannot_be_kept_is_caught_as_it_was(recorded: Recorded) -> None:
    def retried() -> str:
        again = Busy().with_retry(retry_if_exception_type=(Limited,), wait_exponential_jitter=False)
        return again.invoke("one").text

    def beside() -> str:
        return Busy().with_fallbacks([Counted()], exceptions_to_handle=(Limited,)).invoke("two").text

    def told() -> str:
        with pytest.raises(Limited, match="slow down") as raised:
            Busy().invoke("three")
        return f"{raised.value.status_code} {raised.value.body}"

    with recorded():
        for body in (retried, beside, told):
            LIVE["busy"] = 0
            with clew.run("answer") as run:
                first = body()
            asked = dict(LIVE)
            with clew.replay(run) as again:
                assert body() == first
            assert again.certificate.holds
            assert asked == LIVE
            assert "without what could not be kept of it: response" in str(again.certificate)
    assert first == "429 {'retry': 1}"


# -- ids that are minted on the way


class Lengths(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        live("embedding")
        return [[float(len(text)), 1.0] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        live("query")
        return [float(len(text)), 1.0]


def test_searches_of_a_store_are_served_whatever_ids_it_gives(recorded: Recorded) -> None:
    def ask(*texts: str) -> list[Any]:
        store = InMemoryVectorStore(Lengths())
        store.add_documents([Document(text) for text in texts])
        found = [
            store.similarity_search("cc", k=1),
            [document for document, _ in store.similarity_search_with_score("cc", k=2)],
            asyncio.run(store.asimilarity_search("cc", 1)),
            store.as_retriever(search_kwargs={"k": 2}).invoke("cc"),
        ]
        for documents in found:
            assert [one.page_content for one in store.get_by_ids([one.id for one in documents])]  # they are its own
        return [[one.page_content for one in documents] for documents in found]

    with recorded():
        with clew.run("answer") as run:
            first = ask("aaa", "b")
        asked = dict(LIVE)
        with clew.replay(run) as again:
            assert ask("aaa", "b") == first
        assert again.certificate.holds, str(again.certificate)
        assert asked == LIVE
        with pytest.raises(ReplayMiss), clew.replay(run):
            ask("aaa", "bb")


def test_a_search_by_ids_is_another_one_with_other_ids(recorded: Recorded) -> None:
    """What is found by a filter may depend on the ids, so that they stay in the request."""

    def ask(*ids: str) -> list[str]:
        store = InMemoryVectorStore(Lengths())
        store.add_documents([Document(text, id=one) for text, one in zip(("aaa", "bbb"), ids, strict=True)])
        found = store.similarity_search("ccc", k=2, filter=lambda document: document.id == "x")
        return [one.page_content for one in found]

    with recorded():
        with clew.run("answer") as run:
            assert ask("x", "y") == ["aaa"]
        with pytest.raises(ReplayMiss), clew.replay(run):
            ask("y", "x")


def test_a_command_of_a_tool_answers_the_call_that_is_made(recorded: Recorded) -> None:
    @tool
    def note(text: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Note."""
        live("tool")
        return Command(update={"messages": [ToolMessage(f"noted {text}", tool_call_id=tool_call_id)]})

    agent = graph(ToolNode([note]))

    def ask() -> tuple[str, bool]:
        asked, answer = agent.invoke({"messages": called("note", {"text": "it"})})["messages"]
        return answer.text, answer.tool_call_id == asked.tool_calls[0]["id"]

    with recorded():
        with clew.run("answer") as run:
            assert ask() == ("noted it", True)
        with clew.replay(run) as again:
            assert ask() == ("noted it", True)
    assert again.certificate.holds
    assert LIVE == {"tool": 1}


# -- what can be seen of arguments that have no exact form


class Words(dict[str, Any]):
    pass


class Items(list[Any]):
    pass


class Name(str):
    __slots__ = ()


def _deep(value: Any) -> Any:
    for _ in range(20):
        value = {"in": value}
    return value


@pytest.mark.parametrize(
    "make",
    [
        lambda n: iter([n]),
        lambda n: {object(), n},
        lambda n: [object(), array.array("i", [n])],
        lambda n: [object(), collections.deque([n])],
        lambda n: [object(), Words(a=n)],
        lambda n: [object(), Items([n])],
        lambda n: [object(), Name(str(n))],
        lambda n: [object(), ValueError(n)],
        lambda n: [object(), list(range(21_000)), n],
        lambda n: _deep([object(), n]),
    ],
    ids=["iterator", "set", "array", "deque", "dict", "list", "text", "exception", "much", "deep"],
)
def test_arguments_that_look_alike_are_looked_into(recorded: Recorded, make: Callable[[int], Any]) -> None:
    @tool
    def use(what: Any) -> str:
        """Use."""
        return f"used {live('tool')}"

    with recorded():
        with clew.run("answer") as run:
            use.invoke({"what": make(1)})
        with clew.replay(run) as again:
            assert use.invoke({"what": make(1)}) == "used 1"
        assert again.certificate.notes[0].startswith("tool use was found by what can be seen of it")
        with pytest.raises(ReplayMiss), clew.replay(run):
            use.invoke({"what": make(2)})
    assert LIVE == {"tool": 1}
