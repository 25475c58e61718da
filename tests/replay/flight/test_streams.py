"""Streams: many readers of one source, each from its first chunk and at its own pace."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clew.replay.flight import Flights
from clew.store.errors import BrokenStream
from clew.tracer.boundary import MISSING
from tests.replay.flight.bed import BACKSTOP, KEY, Thread, Work, following, nothing, until
from tests.replay.flight.programs import Cache, program, said, tell


class Source:
    """A stream of numbers; it tells how many were pulled, and whether it was closed before its end."""

    def __init__(self, count: int = 5, *, fails_at: int | None = None, error: BaseException | None = None) -> None:
        self.count, self.fails_at, self.error = count, fails_at, error
        self.opened = self.pulled = 0
        self.closed = False

    def __call__(self) -> Iterator[int]:
        self.opened += 1
        try:
            for number in range(self.count):
                if number == self.fails_at:
                    assert self.error is not None
                    raise self.error
                self.pulled += 1
                yield number
        except GeneratorExit:
            self.closed = True
            raise

    async def in_a_task(self) -> AsyncIterator[int]:
        for chunk in self():
            await asyncio.sleep(0)
            yield chunk


def test_a_stream_alone_is_pulled_no_further_than_it_is_read(flights: Flights) -> None:
    source = Source()
    stream = flights.stream(KEY, nothing, source)
    assert (next(stream), next(stream), source.pulled) == (0, 1, 2)
    assert list(stream) == [2, 3, 4]


def test_a_stream_that_the_cache_has_is_not_computed(flights: Flights) -> None:
    assert list(flights.stream(KEY, lambda: "abc", lambda: pytest.fail("computed"))) == ["a", "b", "c"]
    assert list(flights.stream(KEY, list, lambda: pytest.fail("computed"))) == []


def test_a_follower_begins_at_the_first_chunk_and_no_reader_waits_for_another(flights: Flights) -> None:
    source = Source()
    leader, follower = flights.stream(KEY, nothing, source), flights.stream(KEY, nothing, source)
    assert [next(leader), next(leader)] == [0, 1]
    assert [next(follower), next(follower), next(follower)] == [0, 1, 2]  # a paused leader holds nobody up
    third = flights.stream(KEY, nothing, source)
    assert list(follower) == [3, 4]
    assert KEY not in flights.table
    assert list(leader) == [2, 3, 4]  # nor is a slow reader too late
    assert list(third) == [0, 1, 2, 3, 4]  # it began after the end: the cache would have had it
    assert source.opened == 2


def test_a_leader_that_goes_away_leaves_the_stream_to_the_others(flights: Flights) -> None:
    source = Source()
    leader, follower = flights.stream(KEY, nothing, source), flights.stream(KEY, nothing, source)
    next(leader), next(follower)
    leader.close()
    assert list(follower) == [1, 2, 3, 4]
    assert (source.opened, source.closed) == (1, False)


def test_the_last_reader_that_goes_away_closes_the_source(flights: Flights) -> None:
    source = Source()
    leader, follower = flights.stream(KEY, nothing, source), flights.stream(KEY, nothing, source)
    next(leader), next(follower)
    leader.close()
    assert not source.closed
    follower.close()
    assert source.closed
    assert list(flights.stream(KEY, nothing, source)) == [0, 1, 2, 3, 4]


def test_a_follower_of_a_stream_that_breaks_goes_on_with_an_equal_one(flights: Flights) -> None:
    broken, whole = Source(fails_at=2, error=OSError("reset")), Source()
    leader, follower = flights.stream(KEY, nothing, broken), flights.stream(KEY, nothing, whole)
    assert [next(leader), next(follower), next(follower)] == [0, 0, 1]
    assert next(leader) == 1
    with pytest.raises(OSError, match="reset"):
        next(leader)
    assert list(follower) == [2, 3, 4]
    assert whole.opened == 1


@pytest.mark.parametrize("other", ["abcde", "0", ""])
def test_a_stream_is_never_two_halves(flights: Flights, other: str) -> None:
    broken = Source(fails_at=2, error=OSError("reset"))
    leader, follower = flights.stream(KEY, nothing, broken), flights.stream(KEY, nothing, lambda: iter(other))
    assert [next(leader), next(follower), next(follower)] == [0, 0, 1]
    with pytest.raises(OSError, match="reset"):
        list(leader)
    with pytest.raises(OSError, match="reset"):
        list(follower)


def test_an_interrupt_of_one_reader_is_no_error_of_another(flights: Flights) -> None:
    """It kills the source; who had no chunk yet begins anew, who had some hears of it where the new ones differ."""
    source = Source(fails_at=2, error=KeyboardInterrupt())
    streams = [flights.stream(KEY, nothing, body) for body in (source, lambda: iter("abc"), Source())]
    assert [next(stream) for stream in streams] == [0, 0, 0]
    fresh = flights.stream(KEY, nothing, Source())
    with pytest.raises(KeyboardInterrupt):
        list(streams[2])
    with pytest.raises(BrokenStream):
        list(streams[1])
    with pytest.raises(BrokenStream):
        list(streams[0])
    assert list(fresh) == [0, 1, 2, 3, 4]


def test_a_deterministic_error_of_a_stream_is_for_all(tmp_path: Path) -> None:
    flights = Flights(tmp_path / "lock", deterministic=lambda error: isinstance(error, ValueError))
    source = Source(fails_at=2, error=ValueError("400"))
    streams = [flights.stream(KEY, nothing, source) for _ in range(3)]
    assert [next(stream) for stream in streams] == [0, 0, 0]
    for stream in streams:
        with pytest.raises(ValueError, match="400"):
            list(stream)
    assert source.opened == 1


def test_a_call_that_meets_a_paused_stream_of_its_key_reads_it_to_the_end(flights: Flights) -> None:
    cached: list[object] = []

    def source() -> Iterator[int]:
        yield from range(3)
        cached.append("answer")

    stream = flights.stream(KEY, nothing, source)
    assert next(stream) == 0
    value = flights.call(KEY, lambda: cached[0] if cached else MISSING, lambda: pytest.fail("computed"))
    assert value == ("answer", False)
    assert list(stream) == [1, 2]


def test_a_stream_that_meets_a_call_of_its_key_finds_its_value(flights: Flights) -> None:
    work = Work()
    cached: list[list[int]] = []
    leader = Thread(lambda: flights.call(KEY, nothing, lambda: (work(), cached.append([1, 2]))))
    assert work.begun.wait(BACKSTOP)
    look: Callable[[], Any] = lambda: cached[0] if cached else MISSING  # noqa: E731
    reader = Thread(lambda: list(flights.stream(KEY, look, lambda: pytest.fail("computed"))))
    following(flights, 1)
    work.may_end.set()
    leader.result()
    assert reader.result() == [1, 2]


def test_a_stream_may_read_its_own_key(flights: Flights) -> None:
    def source() -> Iterator[int]:
        yield from flights.stream(KEY, nothing, lambda: iter(range(3)))

    assert list(flights.stream(KEY, nothing, source)) == [0, 1, 2]


def test_threads_and_tasks_read_one_stream(flights: Flights) -> None:
    for opens in ("thread", "task"):
        source = Source(200)
        go = threading.Event()

        def chunks(source: Source, opened: threading.Event, go: threading.Event) -> list[int]:
            stream = flights.stream(KEY, nothing, source)
            got = [next(stream)]
            opened.set()
            assert go.wait(BACKSTOP)
            return got + list(stream)

        async def chunks_async(source: Source, opened: threading.Event, go: threading.Event) -> list[int]:
            stream = flights.stream_async(KEY, nothing, source.in_a_task)
            got = [await anext(stream)]
            opened.set()
            assert await asyncio.to_thread(go.wait, BACKSTOP)
            return got + [chunk async for chunk in stream]

        def in_a_loop(source: Source, opened: threading.Event, go: threading.Event) -> list[int]:
            return asyncio.run(chunks_async(source, opened, go))

        bodies = [chunks, in_a_loop, chunks, in_a_loop]
        if opens == "task":
            bodies.insert(0, in_a_loop)
        begun = [threading.Event() for _ in bodies]
        threads = []
        for body, event in zip(bodies, begun, strict=True):
            threads.append(Thread(functools.partial(body, source, event, go)))
            assert event.wait(BACKSTOP)
        go.set()
        assert [thread.result() for thread in threads] == [list(range(200))] * len(bodies)
        assert source.opened == 1


async def test_a_cancelled_reader_leaves_the_stream_to_the_others(flights: Flights) -> None:
    may_go_on = asyncio.Event()
    opened = 0

    async def source() -> AsyncIterator[int]:
        nonlocal opened
        opened += 1
        yield 0
        await may_go_on.wait()
        yield 1

    async def read() -> list[int]:
        return [chunk async for chunk in flights.stream_async(KEY, nothing, source)]

    leader, follower = asyncio.create_task(read()), asyncio.create_task(read())
    while KEY not in flights.table or flights.table[KEY].tape is None or not flights.table[KEY].tape.chunks:
        await asyncio.sleep(0)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    may_go_on.set()
    assert await asyncio.wait_for(follower, BACKSTOP) == [0, 1]
    assert opened == 1


async def test_the_last_task_that_goes_away_has_closed_the_source(flights: Flights) -> None:
    closed = False

    async def source() -> AsyncIterator[int]:
        nonlocal closed
        try:
            async with asyncio.timeout(BACKSTOP):  # only the task that entered it can leave it
                for number in range(5):
                    yield number
        finally:
            await asyncio.sleep(0)
            closed = True

    stream = flights.stream_async(KEY, nothing, source)
    assert await anext(stream) == 0
    await stream.aclose()  # type: ignore[attr-defined]
    assert closed
    assert KEY not in flights.table


def test_a_stream_whose_event_loop_is_closed_is_computed_anew(flights: Flights) -> None:
    first, closed = threading.Event(), threading.Event()

    async def source() -> AsyncIterator[int]:
        yield 0
        await asyncio.Event().wait()

    async def read_one() -> None:
        stream = flights.stream_async(KEY, nothing, source)
        await anext(stream)
        first.set()
        await asyncio.to_thread(closed.wait, BACKSTOP)

    loop = Thread(lambda: asyncio.run(read_one()))
    assert first.wait(BACKSTOP)
    stream = flights.stream(KEY, nothing, lambda: iter(range(3)))
    assert next(stream) == 0
    closed.set()
    loop.result()
    assert list(stream) == [1, 2]


def test_a_stream_waits_for_the_one_of_another_process_and_finds_it(tmp_path: Path) -> None:
    body = """
def source():
    for number in range(3):
        yield str(number)
    cache.put(key_of(1), "012")
stream = cache.flights.stream(key_of(1), lambda: MISSING, source)
say(next(stream))
hear()
say("".join(stream))
"""
    cache = Cache(tmp_path / "cache")
    with program(body, cache.folder) as other:
        assert said(other) == "0"
        stream = cache.flights.stream(KEY, lambda: cache.look(KEY), lambda: pytest.fail("computed"))
        reader = Thread(lambda: list(stream))
        until(lambda: KEY in cache.flights.table)
        tell(other)
        assert reader.result() == ["0", "1", "2"]
        assert said(other) == "12"


class Chunk:
    """Something that can be seen to be freed."""


def test_values_and_chunks_are_freed_when_the_last_one_is_done(flights: Flights) -> None:
    seen: list[weakref.ref[Chunk]] = []

    def chunk() -> Chunk:
        made = Chunk()
        seen.append(weakref.ref(made))
        return made

    def source() -> Iterator[Chunk]:
        yield chunk()
        yield chunk()

    async def source_async() -> AsyncIterator[Chunk]:
        yield chunk()
        yield chunk()

    async def compute() -> Chunk:
        return chunk()

    async def tasks() -> None:
        assert (await flights.call_async(KEY, nothing, compute))[1]
        async for _ in flights.stream_async(KEY, nothing, source_async):
            pass
        await asyncio.sleep(0)

    gc.disable()
    try:
        assert flights.call(KEY, nothing, chunk)[1]
        streams = [flights.stream(KEY, nothing, source) for _ in range(2)]
        assert sum(1 for stream in streams for _ in zip(range(2), stream, strict=False)) == 4
        del streams
        asyncio.run(tasks())
        assert [one() for one in seen if one() is not None] == []
    finally:
        gc.enable()
