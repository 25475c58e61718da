"""Branches that ask the very same side by side: each is answered as it was, whichever comes first."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from langgraph.graph.message import MessagesState
from langgraph.prebuilt import ToolNode

import clew
from clew.store.errors import ReplayMiss
from clew.tracer import branch
from tests.replay.conftest import LIVE, Counted, Recorded, live

ORDERS = list(itertools.permutations(range(3)))


class Turns:
    """Branches go on one after the other, in an order that the test says."""

    def __init__(self) -> None:
        self.order: tuple[int, ...] = ()
        self.over: list[threading.Event] = []

    def to_be(self, order: Iterable[int]) -> None:
        self.order = tuple(order)
        self.over = [threading.Event() for _ in self.order]

    def run(self, which: int, body: Callable[[], Any]) -> Any:
        at = self.order.index(which)
        if at:
            assert self.over[at - 1].wait(60)
        try:
            return body()
        finally:
            self.over[at].set()


@pytest.fixture
def turns() -> Turns:
    return Turns()


def sample() -> str:
    return Counted(temperature=1.0).invoke("say").text


def in_threads(turns: Turns) -> list[str]:
    found: dict[int, str] = {}

    def work(which: int) -> None:
        found[which] = turns.run(which, sample)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(len(turns.order))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[which] for which in sorted(found)]


def in_an_executor(turns: Turns) -> list[str]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda which: turns.run(which, sample), range(len(turns.order))))


def in_executors_of_branches(turns: Turns) -> list[str]:
    """Branches that each have one of their own, under spans of one name."""

    @clew.trace("part")
    def part(which: int) -> str:
        with ThreadPoolExecutor(1) as pool:
            return str(pool.submit(turns.run, which, sample).result())

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(part, range(len(turns.order))))


def in_a_batch(turns: Turns) -> list[str]:
    asking = RunnableLambda(lambda which: turns.run(which, sample))
    return asking.batch(list(range(len(turns.order))), {"max_concurrency": 8})


def in_a_node_of_tools(turns: Turns) -> list[str]:
    @tool
    def throw(sides: int) -> str:
        """Throw a die."""
        return f"throw {live('tool')}"

    calls = [{"name": "throw", "args": {"sides": 6}, "id": f"call_{n}"} for n in range(len(turns.order))]

    def paced(request: Any, handler: Any) -> Any:
        return turns.run(int(request.tool_call["id"][5:]), lambda: handler(request))

    built: Any = StateGraph(MessagesState)
    built.add_node("call", lambda _: {"messages": [AIMessage("", tool_calls=calls)]})
    built.add_node("tools", ToolNode([throw], wrap_tool_call=paced))
    built.add_edge(START, "call")
    built.add_edge("call", "tools")
    state = built.compile().invoke({"messages": [HumanMessage("go")]}, {"max_concurrency": 8})
    return [message.text for message in state["messages"][2:]]


WAYS = [in_threads, in_an_executor, in_executors_of_branches, in_a_batch, in_a_node_of_tools]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_each_is_answered_as_it_was_whichever_asks_first(
    recorded: Recorded, turns: Turns, way: Callable[[Turns], list[str]]
) -> None:
    with recorded():
        turns.to_be((1, 0, 2))
        with clew.run("vote") as run:
            run.output(first := way(turns))
        assert len(set(first)) == 3
        before = dict(LIVE)
        for order in ORDERS:
            turns.to_be(order)
            with clew.replay(run) as again:
                again.output(found := way(turns))
            assert found == first
            assert again.certificate.holds
        assert before == LIVE


@pytest.mark.parametrize("order", ORDERS)
def test_each_reads_its_own_times_again(recorded: Recorded, turns: Turns, order: tuple[int, ...]) -> None:
    def read() -> list[int]:
        def twice(which: int) -> list[int]:
            return [turns.run(which, clew.time_ns), clew.time_ns()]

        with ThreadPoolExecutor(8) as pool:
            return [time for times in pool.map(twice, range(3)) for time in times]

    with recorded():
        turns.to_be((1, 0, 2))
        with clew.run("vote") as run:
            first = read()
        turns.to_be(order)
        with clew.replay(run):
            assert read() == first


@pytest.mark.parametrize("order", ORDERS)
def test_each_draws_its_own_random_values_again(recorded: Recorded, turns: Turns, order: tuple[int, ...]) -> None:
    def draw() -> list[float]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda which: turns.run(which, random.random), range(3)))

    with recorded():
        turns.to_be((1, 0, 2))
        with clew.run("vote", seed=7) as run:
            first = draw()
            Counted().invoke("say")
        assert len(set(first)) == 3
        turns.to_be(order)
        with clew.replay(run):
            assert draw() == first
            Counted().invoke("say")


@pytest.mark.parametrize("order", ORDERS)
def test_a_plan_answers_each_as_it_was(recorded: Recorded, turns: Turns, order: tuple[int, ...]) -> None:
    def ask(about: str) -> list[str]:
        def one(which: int) -> str:
            return turns.run(which, lambda: Counted(says=f"{which}").invoke(f"{which} {about}").text)

        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(one, range(3)))

    with recorded():
        turns.to_be((1, 0, 2))
        with clew.run("vote") as run:
            assert ask("tea") == ["0", "1", "2"]
        turns.to_be(order)
        with clew.replay(run, mode="plan") as plan:
            assert ask("rum") == ["0", "1", "2"]
        assert len(plan.certificate.live) == 3
        assert all("tea" in one.why and "rum" in one.why for one in plan.certificate.live)


def test_a_replay_of_a_replay_has_the_same_branches(recorded: Recorded, turns: Turns) -> None:
    with recorded():
        turns.to_be((0, 1, 2))
        with clew.run("vote") as run:
            first = in_an_executor(turns)
        turns.to_be((2, 1, 0))
        with clew.replay(run) as again:
            in_an_executor(turns)
        turns.to_be((1, 2, 0))
        with clew.replay(again.id):
            assert in_an_executor(turns) == first


@pytest.mark.parametrize("order", ORDERS)
def test_one_more_branch_is_no_copy_of_another(recorded: Recorded, turns: Turns, order: tuple[int, ...]) -> None:
    with recorded():
        turns.to_be(range(2))
        with clew.run("vote") as run:
            first = in_an_executor(turns)
        turns.to_be(order)
        with clew.replay(run, mode="hybrid") as again:
            found = in_an_executor(turns)
        assert len(set(found)) == 3
        assert set(first) < set(found)
        assert len(again.certificate.live) == 1
        turns.to_be(order)
        with pytest.raises(ReplayMiss), clew.replay(run):
            in_an_executor(turns)


def test_another_branch_may_ask_what_one_that_is_gone_asked(recorded: Recorded, turns: Turns) -> None:
    """What was sampled is not drawn anew because the branches around it became fewer."""

    def ask(texts: str) -> list[str]:
        with ThreadPoolExecutor(8) as pool:
            return [one.text for one in pool.map(Counted(temperature=1.0).invoke, texts)]

    with recorded():
        with clew.run("vote") as run:
            first = dict(zip("abc", ask("abc"), strict=True))
        with clew.replay(run):
            assert ask("cb") == [first["c"], first["b"]]


def test_a_recording_that_knows_no_branches_is_served_in_its_order(
    recorded: Recorded, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded():
        turns.to_be((0, 1, 2))
        with monkeypatch.context() as before, clew.run("vote") as run:
            before.setattr(branch, "here", lambda path: ())
            first = in_an_executor(turns)
        turns.to_be((0, 1, 2))
        with clew.replay(run):
            assert in_an_executor(turns) == first


def test_what_is_around_a_run_is_no_branch_of_its_own(recorded: Recorded, turns: Turns) -> None:
    found = {}

    def vote(which: int) -> None:
        with clew.run(f"vote {which}") as run:
            found[which] = run, in_an_executor(turns)

    with recorded():
        with clew.run("votes"), ThreadPoolExecutor(2) as pool:
            for which in range(2):
                turns.to_be((0, 1, 2))
                pool.submit(vote, which).result()
        for run, first in found.values():
            turns.to_be((2, 0, 1))
            with clew.replay(run):
                assert in_an_executor(turns) == first
