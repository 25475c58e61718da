"""What the certificate of a replay says of how it came out, where the run does not say what its answer is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

import clew
from clew.replay.playback.certificate import Certificate
from tests.replay.conftest import LIVE, Counted, Recorded


def chain(function: Callable[[Any], Any]) -> Any:
    return RunnableLambda(function, name="chain")


def ask(text: str, **options: Any) -> str:
    return Counted(**options).invoke(text).text


def replayed(run: Any, program: Callable[[], Any]) -> tuple[Any, Certificate]:
    before = dict(LIVE)
    with clew.replay(run) as again:
        given = program()
    assert before == LIVE
    return given, again.certificate


def test_a_run_that_failed_and_does_not_in_the_replay(recorded: Recorded) -> None:
    fails = [True]

    def body(text: str) -> str:
        answer = ask(text)
        if fails:
            raise ValueError("no")
        return answer

    with recorded():
        with pytest.raises(ValueError, match="no"), clew.run("answer") as run:
            chain(body).invoke("a")
        fails.clear()
        _, certificate = replayed(run, lambda: chain(body).invoke("a"))
    assert not certificate.holds
    assert "the recorded run failed, and its replay did not" in certificate.notes


@pytest.mark.parametrize("which", ["recorded", "replayed"])
def test_a_failure_that_the_program_swallows(recorded: Recorded, which: str) -> None:
    fails = [which == "recorded"]

    def body(text: str) -> str:
        answer = ask(text)
        if fails[0]:
            raise ValueError("no")
        return answer

    def program() -> str:
        try:
            return str(chain(body).invoke("a"))
        except ValueError:
            return "swallowed"

    with recorded():
        with clew.run("answer") as run:
            first = program()
        again, certificate = replayed(run, program)
        assert first == again
        assert certificate.holds
        fails[0] = not fails[0]
        again, certificate = replayed(run, program)
        assert first != again
        assert not certificate.holds


def test_a_replay_that_does_nothing(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            ask("a")
        _, certificate = replayed(run, lambda: None)
    assert certificate.unasked == 1
    assert not certificate.holds


def test_what_came_before_the_last_counts(recorded: Recorded) -> None:
    says = ["one"]

    def program() -> list[str]:
        return [chain(lambda text: text + says[-1]).invoke("a"), ask("b")]

    with recorded():
        with clew.run("answer") as run:
            first = program()
        assert replayed(run, program)[1].holds
        says.append("two")
        again, certificate = replayed(run, program)
    assert first != again
    assert certificate.equal is False


def side_by_side(turns: list[int]) -> Any:
    """A chain for each number, in threads, that end in this order."""
    ended = {number: threading.Event() for number in turns}
    given: dict[int, str] = {}

    def body(number: int) -> str:
        answer = ask(f"say {number}")
        for before in turns[: turns.index(number)]:
            assert ended[before].wait(10)
        return answer

    def one(number: int) -> None:
        given[number] = chain(body).invoke(number)
        ended[number].set()

    threads = [threading.Thread(target=one, args=(number,)) for number in turns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [given[number] for number in sorted(given)]


def test_what_ends_last_of_what_runs_side_by_side_does_not_count(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            first = side_by_side([1, 2])
        again, certificate = replayed(run, lambda: side_by_side([2, 1]))
    assert first == again
    assert certificate.holds


def test_threads_that_ask_in_another_order_have_their_own_answers(recorded: Recorded) -> None:
    def program(order: list[int]) -> list[str]:
        """Two chains that are given the same begin in one order, and ask in this one."""
        asked = [threading.Event() for _ in order]
        inside = [threading.Event() for _ in order]
        given: dict[int, str] = {}

        def one(number: int) -> None:
            def body(_: str) -> str:
                inside[number].set()
                for before in order[: order.index(number)]:
                    assert asked[before].wait(10)
                answer = ask("say", temperature=1.0)
                asked[number].set()
                return answer

            given[number] = chain(body).invoke("go")

        threads = [threading.Thread(target=one, args=(number,)) for number in (0, 1)]
        for number, thread in enumerate(threads):
            thread.start()
            assert inside[number].wait(10)
        for thread in threads:
            thread.join()
        return [given[0], given[1]]

    with recorded():
        with clew.run("answer") as run:
            first = program([0, 1])
        for order in ([0, 1], [1, 0]):
            again, certificate = replayed(run, lambda order=order: program(order))
            assert again == first
            assert certificate.holds


def test_tasks_that_are_given_the_answers_of_each_other(recorded: Recorded) -> None:
    async def program(order: list[int]) -> list[str]:
        """As above, in tasks: which of them asks first is not known of these."""
        asked = [asyncio.Event() for _ in order]
        inside = [asyncio.Event() for _ in order]

        async def one(number: int) -> str:
            async def body(_: str) -> str:
                inside[number].set()
                for before in order[: order.index(number)]:
                    await asked[before].wait()
                answer = ask("say", temperature=1.0)
                asked[number].set()
                return answer

            given: str = await chain(body).ainvoke("go")
            return given

        tasks = []
        for number in (0, 1):
            tasks.append(asyncio.create_task(one(number)))
            await inside[number].wait()
        return list(await asyncio.wait_for(asyncio.gather(*tasks), 10))

    with recorded():
        with clew.run("answer") as run:
            first = asyncio.run(program([0, 1]))
        assert replayed(run, lambda: asyncio.run(program([0, 1])))[1].holds
        again, certificate = replayed(run, lambda: asyncio.run(program([1, 0])))
    assert again == first[::-1]
    assert not certificate.holds
