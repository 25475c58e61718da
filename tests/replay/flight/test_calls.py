"""Calls: of many that want one key at once, one computes; nobody waits for ever and nobody gets a wrong value."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from clew.replay.flight import Flights
from clew.replay.flight import flights as flight_module
from tests.replay.flight.bed import BACKSTOP, KEY, Thread, Work, following, nothing
from tests.replay.flight.programs import key_of

# calls


def test_a_call_alone_computes_and_gets_its_value(flights: Flights) -> None:
    assert flights.call(KEY, nothing, lambda: 5) == (5, True)


def test_what_the_cache_has_by_now_is_not_computed(flights: Flights) -> None:
    assert flights.call(KEY, lambda: "found", lambda: pytest.fail("computed")) == ("found", False)


def test_none_is_a_value(flights: Flights) -> None:
    assert flights.call(KEY, lambda: None, lambda: pytest.fail("computed")) == (None, False)
    assert flights.call(KEY, nothing, lambda: None) == (None, True)


def test_threads_share_one_computation_and_its_very_object(flights: Flights) -> None:
    work = Work(object())
    leader = Thread(lambda: flights.call(KEY, nothing, work))
    assert work.begun.wait(BACKSTOP)
    followers = [Thread(lambda: flights.call(KEY, nothing, work)) for _ in range(8)]
    following(flights, 8)
    work.may_end.set()
    assert leader.result() == (work.value, True)
    assert [follower.result() for follower in followers] == [(work.value, False)] * 8
    assert work.count == 1


def test_a_follower_gets_a_copy_where_it_asks_for_one(flights: Flights) -> None:
    work = Work([1])
    leader = Thread(lambda: flights.call(KEY, nothing, work, copy=list))
    assert work.begun.wait(BACKSTOP)
    follower = Thread(lambda: flights.call(KEY, nothing, work, copy=list))
    following(flights, 1)
    work.may_end.set()
    assert leader.result()[0] is work.value
    copied, computed = follower.result()
    assert (copied, computed) == ([1], False)
    assert copied is not work.value


def test_another_key_is_another_flight_also_on_the_same_stripe(flights: Flights) -> None:
    work = Work()
    leader = Thread(lambda: flights.call(key_of(1, stripe=7), nothing, work))
    assert work.begun.wait(BACKSTOP)
    assert flights.call(key_of(2, stripe=7), nothing, lambda: "other") == ("other", True)
    work.may_end.set()
    leader.result()


async def test_tasks_share_one_computation(flights: Flights) -> None:
    work = Work()

    async def one() -> tuple[object, bool]:
        return await flights.call_async(KEY, nothing, work.in_a_task)

    tasks = [asyncio.create_task(one()) for _ in range(10)]
    assert await asyncio.to_thread(work.begun.wait, BACKSTOP)
    work.may_end.set()
    results = await asyncio.gather(*tasks)
    assert sorted(computed for _, computed in results) == [False] * 9 + [True]
    assert work.count == 1


@pytest.mark.parametrize("leads", ["thread", "task"])
def test_threads_and_tasks_of_several_loops_share_one_computation(flights: Flights, leads: str) -> None:
    work = Work()

    async def tasks() -> list[tuple[object, bool]]:
        return list(await asyncio.gather(*(flights.call_async(KEY, nothing, work.in_a_task) for _ in range(3))))

    def in_a_loop() -> list[tuple[object, bool]]:
        return asyncio.run(tasks())

    def in_a_thread() -> list[tuple[object, bool]]:
        return [flights.call(KEY, nothing, work)]

    first = Thread(in_a_thread if leads == "thread" else in_a_loop)
    assert work.begun.wait(BACKSTOP)
    others = [Thread(in_a_loop), Thread(in_a_loop), Thread(in_a_thread), Thread(in_a_thread)]
    following(flights, 8 + (2 if leads == "task" else 0))
    work.may_end.set()
    results = [result for thread in [first, *others] for result in thread.result()]
    assert work.count == 1
    assert sum(computed for _, computed in results) == 1
    assert {value for value, _ in results} == {"value"}


# errors and cancellation


def test_an_error_stays_with_the_leader_and_the_next_one_leads(flights: Flights) -> None:
    failing, work = Work(OSError("reset")), Work()
    work.may_end.set()
    leader = Thread(lambda: flights.call(KEY, nothing, failing))
    assert failing.begun.wait(BACKSTOP)
    followers = [Thread(lambda: flights.call(KEY, nothing, work)) for _ in range(3)]
    following(flights, 3)
    failing.may_end.set()
    with pytest.raises(OSError, match="reset"):
        leader.result()
    assert {follower.result()[0] for follower in followers} == {"value"}


def test_each_caller_computes_at_most_once_where_all_fail(flights: Flights) -> None:
    failing = Work(OSError("down"))
    threads = [Thread(lambda: flights.call(KEY, nothing, failing)) for _ in range(5)]
    following(flights, 4)
    failing.may_end.set()
    for thread in threads:
        with pytest.raises(OSError, match="down"):
            thread.result()
    assert failing.count == 5


def test_a_deterministic_error_is_for_all(tmp_path: Path) -> None:
    flights = Flights(tmp_path / "lock", deterministic=lambda error: isinstance(error, ValueError))
    failing = Work(ValueError("400"))
    threads = [Thread(lambda: flights.call(KEY, nothing, failing)) for _ in range(5)]
    following(flights, 4)
    failing.may_end.set()
    for thread in threads:
        with pytest.raises(ValueError, match="400"):
            thread.result()
    assert failing.count == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_what_is_meant_for_the_leader_alone_is_never_handed_on(tmp_path: Path, error: type[BaseException]) -> None:
    flights = Flights(tmp_path / "lock", deterministic=lambda error: True)
    failing, work = Work(error()), Work()
    work.may_end.set()
    leader = Thread(lambda: flights.call(KEY, nothing, failing))
    assert failing.begun.wait(BACKSTOP)
    follower = Thread(lambda: flights.call(KEY, nothing, work))
    following(flights, 1)
    failing.may_end.set()
    with pytest.raises(error):
        leader.result()
    assert follower.result() == ("value", True)


async def test_a_cancelled_leader_hands_over_to_a_follower(flights: Flights) -> None:
    begun = asyncio.Event()

    async def for_ever() -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    async def short() -> str:
        return "value"

    leader = asyncio.create_task(flights.call_async(KEY, nothing, for_ever))
    await begun.wait()
    follower = asyncio.create_task(flights.call_async(KEY, nothing, short))
    thread = Thread(lambda: flights.call(KEY, nothing, lambda: "value"))
    await asyncio.to_thread(following, flights, 2)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert (await asyncio.wait_for(follower, BACKSTOP))[0] == "value"
    assert (await asyncio.to_thread(thread.result))[0] == "value"


async def test_a_cancelled_follower_harms_nobody(flights: Flights) -> None:
    work = Work()
    leader = asyncio.create_task(flights.call_async(KEY, nothing, work.in_a_task))
    assert await asyncio.to_thread(work.begun.wait, BACKSTOP)
    followers = [asyncio.create_task(flights.call_async(KEY, nothing, work.in_a_task)) for _ in range(3)]
    await asyncio.to_thread(following, flights, 3)
    followers[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await followers[0]
    work.may_end.set()
    assert await leader == ("value", True)
    assert await asyncio.gather(*followers[1:]) == [("value", False)] * 2
    assert work.count == 1


def test_a_leader_whose_event_loop_stopped_leads_no_more(flights: Flights) -> None:
    begun = threading.Event()

    async def for_ever() -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    loop = asyncio.new_event_loop()
    leader = loop.create_task(flights.call_async(KEY, nothing, for_ever))
    loop.call_soon(lambda: None)
    while not begun.is_set():
        loop.run_until_complete(asyncio.sleep(0))
    follower = Thread(lambda: flights.call(KEY, nothing, lambda: "value"))
    assert follower.result() == ("value", True)
    leader.cancel()
    loop.run_until_complete(asyncio.gather(leader, return_exceptions=True))
    loop.close()


def test_a_leader_whose_frame_was_dropped_leads_no_more(flights: Flights) -> None:
    """As by an interrupt that hits between two lines."""
    turn: Any = flight_module._Turn(flights, KEY, nothing)
    turn._lead(alone=False)
    follower = Thread(lambda: flights.call(KEY, nothing, lambda: "value"))
    following(flights, 1)
    del turn
    assert follower.result() == ("value", True)
