"""Single-flight: of many that want one key at once, one computes; nobody waits for ever and nobody gets a wrong value."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import random
import signal
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clew.replay.flight import Flights, circle
from clew.replay.flight import flights as flight_module
from clew.store.errors import BrokenStream
from clew.tracer.boundary import MISSING
from tests.replay.flights import Cache, key_of, program, said, tell

BACKSTOP = 60.0
KEY = key_of(1)


def nothing() -> object:
    return MISSING


@pytest.fixture
def flights(tmp_path: Path) -> Flights:
    return Flights(tmp_path / "lock", nested_seconds=0.2)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No descriptor, no flight and no dependency outlives a test."""
    before = set(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else set()
    yield
    left = {fd for fd in os.listdir("/proc/self/fd") if fd not in before} if before else set()
    locks = [os.readlink(f"/proc/self/fd/{fd}") for fd in left if os.path.islink(f"/proc/self/fd/{fd}")]
    assert [name for name in locks if name.endswith(".lock")] == []
    assert circle._blocking == {}
    for living in list(flight_module._living):
        assert living.table == {}
        assert len(living.stripes._held) == 0


class Thread(threading.Thread):
    """A thread whose result, or error, can be asked for."""

    def __init__(self, body: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._body = body
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._body()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self.join(BACKSTOP)
        assert not self.is_alive(), "it hangs"
        if self._error is not None:
            raise self._error
        return self._result


def until(condition: Callable[[], object]) -> None:
    """Wait until other threads have come so far as can only be seen from outside."""
    patience = threading.Event()
    for _ in range(int(BACKSTOP * 500)):
        if condition():
            return
        patience.wait(0.002)
    raise AssertionError("it does not come so far")


def following(flights: Flights, count: int, key: bytes = KEY) -> None:
    """Until so many callers wait for the flight's news."""

    def waiting() -> int:
        flight = flights.table.get(key)
        news = flight._news if flight is not None else None
        return 0 if news is None else len(news._condition._waiters) + len(news._done_callbacks)  # type: ignore[attr-defined]

    until(lambda: waiting() >= count)


class Work:
    """A computation that tells when it has begun and waits until it may end."""

    def __init__(self, value: object = "value") -> None:
        self.value = value
        self.count = 0
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> Any:
        self.count += 1
        self.begun.set()
        assert self.may_end.wait(BACKSTOP)
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value

    async def in_a_task(self) -> Any:
        return await asyncio.to_thread(self)


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


# circles


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


# processes

HOLDS = """
def work():
    say("leads")
    hear()
    return "theirs"
say(cache.get(key_of(1), work)[0])
"""


def test_another_process_waits_and_then_finds_the_value(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with program(HOLDS, cache.folder) as other:
        assert said(other) == "leads"
        follower = Thread(lambda: cache.get(KEY, lambda: pytest.fail("computed")))
        until(lambda: KEY in cache.flights.table)
        tell(other)
        assert said(other) == "theirs"
        assert follower.result() == ("theirs", False)
    assert cache.computed == [KEY]


def test_after_a_killed_leader_the_next_process_leads(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with program(HOLDS, cache.folder) as leader:
        assert said(leader) == "leads"
        with program('say("up")\nsay(cache.get(key_of(1), lambda: "ours")[0])', cache.folder) as third:
            assert said(third) == "up"
            followers = [Thread(lambda: cache.get(KEY, lambda: "ours")) for _ in range(4)]
            until(lambda: KEY in cache.flights.table)
            leader.send_signal(signal.SIGKILL)
            assert {follower.result()[0] for follower in followers} == {"ours"}
            assert said(third) == "ours"
    assert cache.computed == [KEY] * 2


def test_four_processes_of_eight_threads_compute_forty_keys_forty_times(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    body = """
def one(number):
    for key in sorted(range(40), key=lambda key: hash((key, number % 3))):
        value, _ = cache.get(key_of(key), lambda: time.sleep(0.02) or f"value {key}")
        assert value == f"value {key}"
say("up")
hear()
threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
say("done")
"""
    processes = [program(body, cache.folder) for _ in range(4)]
    for process in processes:
        assert said(process) == "up"
    for process in processes:
        tell(process)
    assert [said(process) for process in processes] == ["done"] * 4
    for process in processes:
        process.communicate(timeout=BACKSTOP)
    assert sorted(cache.computed) == [key_of(number) for number in range(40)]


def test_processes_that_hold_what_the_other_needs_end(tmp_path: Path) -> None:
    body = """
own, other = map(int, sys.argv[2:]) if len(sys.argv) > 2 else map(int, hear().split())
cache.flights.nested_seconds = 0.2
def outer():
    say("leads")
    hear()
    return cache.get(key_of(other), lambda: "inner")[0]
say(cache.get(key_of(own), outer)[0])
"""
    folder = Cache(tmp_path / "cache").folder
    processes = [program(body, folder) for _ in range(2)]
    for process, word in zip(processes, ["1 2", "2 1"], strict=True):
        tell(process, word)
        assert said(process) == "leads"
    for process in processes:
        tell(process)
    assert [said(process) for process in processes] == ["inner"] * 2
    for process in processes:
        process.communicate(timeout=BACKSTOP)


def test_nor_do_they_wait_for_ever_through_another_thread(tmp_path: Path) -> None:
    """Neither of those that wait for the other process is nested; those that follow them are."""
    body = """
own, other = map(int, hear().split())
cache.flights.nested_seconds = 0.2
def outer():
    say("leads")
    hear()
    waiting = threading.Thread(target=lambda: cache.get(key_of(other), lambda: "outside"), daemon=True)
    waiting.start()
    while key_of(other) not in cache.flights.table: time.sleep(0.001)
    return cache.get(key_of(other), lambda: "inner")[0]
value = cache.get(key_of(own), outer)[0]
say("done" if value in ("inner", "outside") else value)
"""
    folder = Cache(tmp_path / "cache").folder
    processes = [program(body, folder) for _ in range(2)]
    for process, word in zip(processes, ["1 2", "2 1"], strict=True):
        tell(process, word)
        assert said(process) == "leads"
    for process in processes:
        tell(process)
    assert [said(process) for process in processes] == ["done"] * 2
    for process in processes:
        process.communicate(timeout=BACKSTOP)


def test_a_forked_child_has_no_leader_and_its_own_locks(tmp_path: Path) -> None:
    """The parent forks in its computation; the child computes the key itself, and neither holds nor frees the lock."""
    body = """
def work():
    child = os.fork()
    if child == 0:
        value, computed = cache.flights.call(key_of(1), lambda: MISSING, lambda: "child")
        cache.flights.call(key_of(2), lambda: MISSING, lambda: "child")
        os._exit(0 if (value, computed, cache.flights.table) == ("child", True, {}) else 1)
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    hear()
    return "parent"
say(cache.get(key_of(1), work)[0])
"""
    cache = Cache(tmp_path / "cache")
    with program(body, cache.folder) as parent:
        assert said(parent) == "0"
        follower = Thread(lambda: cache.get(KEY, lambda: pytest.fail("computed")))
        until(lambda: KEY in cache.flights.table)
        assert cache.flights.stripes.take(KEY) is None
        tell(parent)
        assert said(parent) == "parent"
        assert follower.result() == ("parent", False)


def test_a_child_that_outlives_a_killed_parent_does_not_keep_its_lock(tmp_path: Path) -> None:
    body = """
def work():
    if os.fork() == 0:
        say("child")
        hear()
        os._exit(0)
    time.sleep(60)
cache.get(key_of(1), work)
"""
    cache = Cache(tmp_path / "cache")
    with program(body, cache.folder) as parent:
        assert said(parent) == "child"
        parent.kill()
        assert cache.get(KEY, lambda: "ours") == ("ours", True)
        tell(parent)


def test_a_child_may_go_on_with_the_computation_of_its_parent(tmp_path: Path) -> None:
    body = """
children = []
def work():
    children.append(os.fork())
    return "value"
value = cache.get(key_of(1), work)
if children == [0]:
    assert value == ("value", True)
    os._exit(0)
say(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
"""
    with program(body, tmp_path / "cache") as parent:
        assert said(parent) == "0"


# the lock folder


def test_the_folder_is_made_when_it_is_needed_for_its_owner_alone(tmp_path: Path) -> None:
    flights = Flights(tmp_path / "a" / "lock")
    assert not (tmp_path / "a").exists()
    flights.call(KEY, nothing, lambda: 1)
    assert (tmp_path / "a" / "lock").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (tmp_path / "a" / "lock").iterdir()] == ["0001.lock"]


def test_without_a_folder_to_lock_in_it_goes_on_and_says_so_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    faults: list[OSError] = []
    flights = Flights(tmp_path / "file" / "lock", fault=faults.append)
    work = Work()
    leader = Thread(lambda: flights.call(KEY, nothing, work))
    assert work.begun.wait(BACKSTOP)
    follower = Thread(lambda: flights.call(KEY, nothing, work))
    following(flights, 1)
    work.may_end.set()
    assert (leader.result(), follower.result()) == (("value", True), ("value", False))
    assert flights.call(key_of(2), nothing, lambda: 2) == (2, True)
    assert len(faults) == 1


def test_a_folder_that_is_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    flights = Flights(tmp_path / "lock")
    flights.call(KEY, nothing, lambda: 1)
    (tmp_path / "lock" / "0001.lock").unlink()
    (tmp_path / "lock").rmdir()
    assert flights.call(KEY, nothing, lambda: 2) == (2, True)


# streams


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


# all together


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
