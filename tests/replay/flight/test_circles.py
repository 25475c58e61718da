"""Circles: who would wait for what waits for itself computes instead."""

from __future__ import annotations

import asyncio
import threading

import pytest

from clew.replay.flight import Flights
from tests.replay.flight.bed import BACKSTOP, KEY, Thread, Work, following, nothing
from tests.replay.flight.programs import key_of


def test_a_computation_may_call_its_own_key(flights: Flights) -> None:
    def again(depth: int) -> int:
        return depth if depth == 3 else flights.call(KEY, nothing, lambda: again(depth + 1))[0]

    assert again(0) == 3


async def test_a_task_may_call_its_own_key_also_through_a_child_task(flights: Flights) -> None:
    async def inner() -> int:
        return 5

    async def outer() -> int:
        value, _ = await asyncio.create_task(flights.call_async(KEY, nothing, inner))
        return value

    assert await asyncio.wait_for(flights.call_async(KEY, nothing, outer), BACKSTOP) == (5, True)


def test_nested_keys_on_one_stripe_do_not_wait_for_each_other(flights: Flights) -> None:
    one, other = key_of(1, stripe=7), key_of(2, stripe=7)
    value, _ = flights.call(one, nothing, lambda: flights.call(other, nothing, lambda: 5)[0] + 1)
    assert value == 6


def test_a_nested_call_follows_where_no_circle_is(flights: Flights) -> None:
    work = Work()
    leader = Thread(lambda: flights.call(key_of(2), nothing, work))
    assert work.begun.wait(BACKSTOP)
    outer = Thread(lambda: flights.call(key_of(1), nothing, lambda: flights.call(key_of(2), nothing, work)))
    following(flights, 1, key_of(2))
    work.may_end.set()
    leader.result()
    assert outer.result() == (("value", False), True)
    assert work.count == 1


@pytest.mark.parametrize("count", [2, 3, 5])
def test_threads_that_need_each_others_keys_in_a_circle_end(flights: Flights, count: int) -> None:
    all_lead = threading.Barrier(count)

    def one(number: int) -> str:
        def compute() -> str:
            all_lead.wait(BACKSTOP)
            return flights.call(key_of((number + 1) % count), nothing, lambda: "inner")[0] + "!"

        return flights.call(key_of(number), nothing, compute)[0]

    threads = [Thread(lambda number=number: one(number)) for number in range(count)]  # type: ignore[misc]
    values = {thread.result() for thread in threads}
    assert "inner!" in values


async def test_tasks_that_need_each_others_keys_end(flights: Flights) -> None:
    all_lead = asyncio.Barrier(2)

    async def inner() -> str:
        return "inner"

    async def one(own: int, other: int) -> str:
        async def compute() -> str:
            await all_lead.wait()
            return (await flights.call_async(key_of(other), nothing, inner))[0]

        return (await flights.call_async(key_of(own), nothing, compute))[0]

    assert await asyncio.wait_for(asyncio.gather(one(1, 2), one(2, 1)), BACKSTOP) == ["inner", "inner"]


async def test_a_sync_call_does_not_wait_for_a_task_of_the_loop_that_it_blocks(flights: Flights) -> None:
    may_end = asyncio.Event()

    async def slow() -> str:
        await may_end.wait()
        return "slow"

    leader = asyncio.create_task(flights.call_async(KEY, nothing, slow))
    await asyncio.sleep(0)
    assert flights.call(KEY, nothing, lambda: "own") == ("own", True)
    may_end.set()
    assert await leader == ("slow", True)


async def test_nor_does_what_it_waits_for(flights: Flights) -> None:
    """The loop's thread waits for a flight which then wants a key that a task of that loop computes."""
    may_end = asyncio.Event()
    thread_leads, loop_waits = threading.Event(), threading.Event()

    async def slow() -> str:
        await may_end.wait()
        return "slow"

    def in_the_thread() -> str:
        thread_leads.set()
        assert loop_waits.wait(BACKSTOP)
        following(flights, 1, key_of(2))
        return flights.call(key_of(1), nothing, lambda: "own")[0]

    task = asyncio.create_task(flights.call_async(key_of(1), nothing, slow))
    await asyncio.sleep(0)
    thread = Thread(lambda: flights.call(key_of(2), nothing, in_the_thread))
    assert thread_leads.wait(BACKSTOP)
    loop_waits.set()
    assert flights.call(key_of(2), nothing, lambda: "never") == ("own", False)
    thread.result()
    may_end.set()
    await task
