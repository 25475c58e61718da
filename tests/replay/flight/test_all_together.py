"""Calls and streams, threads and loops, all at once: whatever the order, each value is right and all end."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clew.replay.flight import Flights
from tests.replay.flight.bed import KEY, Thread, nothing
from tests.replay.flight.programs import key_of


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_order_every_value_is_right_and_all_end(tmp_path: Path, seed: int) -> None:
    """Threads and loops call, stream, nest, fail and go away, over keys of which several share a stripe."""
    flights = Flights(tmp_path / "lock", nested_seconds=0.1)
    count = 6

    def compute(dice: random.Random, key: int, depth: int) -> str:
        if depth < 3 and dice.random() < 0.5:
            one(dice, dice.randrange(count), depth + 1)
        if dice.random() < 0.2:
            raise OSError("again")
        return f"value {key}"

    def source(dice: random.Random, key: int, depth: int) -> Iterator[str]:
        yield "value"
        if depth < 3 and dice.random() < 0.3:
            one(dice, dice.randrange(count), depth + 1)
        if dice.random() < 0.1:
            raise OSError("again")
        yield f" {key}"

    def one(dice: random.Random, key: int, depth: int = 0) -> None:
        name = key_of(key, stripe=key % 2)
        try:
            if dice.random() < 0.5:
                value, _ = flights.call(name, nothing, lambda: compute(dice, key, depth))
                assert value == f"value {key}"
            else:
                stream = flights.stream(name, nothing, lambda: source(dice, key, depth))
                if dice.random() < 0.3:
                    assert next(stream) == "value"
                    stream.close()  # type: ignore[attr-defined]
                else:
                    assert "".join(stream) == f"value {key}"
        except OSError:
            pass

    async def one_async(dice: random.Random, key: int) -> None:
        name = key_of(key, stripe=key % 2)

        async def compute_async() -> str:
            await asyncio.sleep(0)
            if dice.random() < 0.3:
                await one_async(dice, dice.randrange(count))
            if dice.random() < 0.2:
                one(dice, dice.randrange(count), 2)  # it blocks the loop
            return compute(dice, key, 3)

        async def source_async() -> AsyncIterator[str]:
            for chunk in source(dice, key, 3):
                await asyncio.sleep(0)
                yield chunk

        async def read() -> str:
            return "".join([chunk async for chunk in flights.stream_async(name, nothing, source_async)])

        async def get() -> str:
            return (await flights.call_async(name, nothing, compute_async))[0]

        task = asyncio.create_task(read() if dice.random() < 0.5 else get())
        try:
            if dice.random() < 0.3:
                for _ in range(dice.randrange(5)):
                    await asyncio.sleep(0)
                task.cancel()
            assert await task == f"value {key}"
        except (OSError, asyncio.CancelledError):
            pass

    def thread(number: int) -> None:
        dice = random.Random(seed * 100 + number)
        for _ in range(40):
            one(dice, dice.randrange(count))

    def loop(number: int) -> None:
        dice = random.Random(seed * 100 + number)

        async def all_of_them() -> None:
            for _ in range(8):
                await asyncio.gather(*(one_async(dice, dice.randrange(count)) for _ in range(6)))

        asyncio.run(all_of_them())

    threads = [Thread(lambda n=n: thread(n)) for n in range(5)]  # type: ignore[misc]
    threads += [Thread(lambda n=n: loop(n)) for n in range(5, 8)]  # type: ignore[misc]
    for running in threads:
        running.result()


def test_many_threads_on_one_key_never_compute_at_the_same_time(flights: Flights) -> None:
    running = 0
    at_once: list[int] = []

    def compute() -> int:
        nonlocal running
        running += 1
        at_once.append(running)
        os.sched_yield()
        running -= 1
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: flights.call(KEY, nothing, compute)[0], range(400))) == {1}
    assert set(at_once) == {1}
