"""`clew.now` and the system's clock: what they tell where nobody listens, to a recorder, and in a replay."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
import threading
import time
from datetime import UTC, date, datetime, timedelta, timezone
from time import time as seconds
from typing import Any
from uuid import UUID

import pytest
from langgraph.checkpoint.base.id import uuid6
from pydantic import BaseModel, Field

import clew
from clew.lineage.reader import Reader
from clew.replay.ambient import Ambient, travel
from clew.replay.ambient.clock import listening
from clew.store.errors import MissingExtra
from clew.tracer import context
from clew.tracer.init import Tracer

DAY = 86_400 * 10**9
PAST = 1_500_000_000_123_456_000  # July 2017


class Dated(BaseModel):
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    plain: datetime = Field(default_factory=datetime.now)


class Noting:
    """A recorder: it tells the truth and notes it."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, int]] = []

    def clock(self, place: str, true_ns: int) -> int:
        self.noted.append((place, true_ns))
        return true_ns


def test_without_a_listener_it_is_the_true_time() -> None:
    before = time.time_ns()
    told = clew.now()
    assert before <= clew.time_ns() <= time.time_ns()
    assert told.tzinfo is UTC
    assert abs(told - datetime.now(UTC)) < timedelta(minutes=1)
    there = clew.now(timezone(timedelta(hours=2)))
    assert there.utcoffset() == timedelta(hours=2)
    assert abs(there - told) < timedelta(minutes=1)


def test_a_time_is_told_to_the_microsecond() -> None:
    with Ambient(b"", clock=lambda place, n: PAST + 999):
        assert clew.now() == datetime(2017, 7, 14, 2, 40, 0, 123456, tzinfo=UTC)
        assert clew.time_ns() == PAST + 999


def test_a_recorder_hears_what_was_told_and_where(tracer: Tracer) -> None:
    recorder = Noting()
    with listening(recorder), clew.trace("plan"):
        first = clew.time_ns()
        with clew.trace("ask"):
            second = clew.time_ns()
        with Ambient(b"", clock=lambda place, n: 7):  # a replay is a run of its own
            assert clew.time_ns() == 7
    clew.now()
    assert recorder.noted == [("plan", first), ("plan/ask", second), ("plan", 7)]


def test_a_replay_tells_the_recorded_times_whatever_the_order_of_threads(tracer: Tracer) -> None:
    recorded = {(f"plan/branch {which}", n): PAST + which * DAY + n for which in range(6) for n in range(3)}
    found: dict[int, list[int]] = {}
    ready = threading.Barrier(6)

    def branch(which: int) -> None:
        with clew.trace(f"branch {which}"):
            ready.wait(30)
            found[which] = [clew.time_ns() for _ in range(3)]

    with Ambient(b"", clock=lambda place, n: recorded.get((place, n))) as ambient, clew.trace("plan"):
        threads = [threading.Thread(target=branch, args=(which,)) for which in range(6)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(30)
    assert found == {which: [PAST + which * DAY + n for n in range(3)] for which in range(6)}
    assert ambient.draws["clock"] == 18


def test_beyond_what_was_recorded_time_goes_on_from_there() -> None:
    with Ambient(b"", clock=lambda place, n: PAST if n == 0 else None):
        told = [clew.time_ns() for _ in range(50)]
    assert told == sorted(told)
    assert told[0] == PAST
    assert PAST < told[-1] < PAST + DAY


def test_where_nothing_was_recorded_at_all_it_starts_from_the_true_time() -> None:
    with Ambient(b"", clock=lambda place, n: None):
        before = time.time_ns()
        told = [clew.time_ns() for _ in range(3)]
    assert before <= told[0] <= told[1] <= told[2] < before + DAY


# -- the system's clock


def readings() -> list[Any]:
    """One by each way there is."""
    return [
        time.time(), seconds(), time.time_ns(), datetime.now(), datetime.now(UTC), dt.datetime.today(), date.today(),
        time.gmtime(), time.localtime(), time.strftime("%Y %j"), time.clock_gettime_ns(time.CLOCK_REALTIME),
        Dated().at, Dated().plain,
    ]  # fmt: skip


def test_each_clock_tells_the_moment_of_the_span(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(travel, "_STILL_NS", DAY)  # however slow this machine is
    moments = {"plan": PAST, "plan/ask": PAST + DAY}

    def moment() -> int | None:
        span = context.enclosing()
        return moments.get(span.path) if span is not None else None

    def run() -> list[list[Any]]:
        with Ambient(b"", moment=moment), clew.trace("plan"):
            outer = readings()
            with clew.trace("ask"):
                return [outer, readings(), [time.time_ns()]]

    said = run()
    assert run() == said
    assert said[0][2] == PAST
    assert said[0][4] == said[0][11] == datetime(2017, 7, 14, 2, 40, 0, 123456, tzinfo=UTC)
    assert said[0][6] == datetime.fromtimestamp(PAST // 10**9).date()
    assert said[1][2] == PAST + DAY
    assert abs(time.time_ns() - datetime.now(UTC).timestamp() * 10**9) < DAY
    assert time.time_ns() > PAST + 365 * DAY


async def test_tasks_and_threads_are_told_the_moment_of_their_own_span(tracer: Tracer) -> None:
    def moment() -> int | None:
        span = context.enclosing()
        return int(span.name) * DAY if span is not None else None

    async def task(day: int) -> int:
        with clew.trace(str(day)):
            await asyncio.sleep(0)
            return await asyncio.to_thread(time.time_ns) + time.time_ns()

    with Ambient(b"", moment=moment):
        assert await asyncio.gather(*map(task, range(1, 9))) == [2 * day * DAY for day in range(1, 9)]


def test_clew_and_frameworks_read_the_true_time(tracer: Tracer, reader: Reader) -> None:
    """Spans of a replay are of today, and checkpoint ids sort behind those that are there."""
    before = time.time_ns()
    earlier = uuid6()
    with Ambient(b"", moment=lambda: PAST), clew.run("question"), clew.trace("step") as block:
        assert time.time_ns() == PAST
        later = uuid6()
    assert block.span is not None
    assert block.span.start_ns >= before
    assert UUID(str(later)).hex > UUID(str(earlier)).hex
    assert reader.runs()[0].started_ns >= before


def test_outside_the_recorded_spans_time_goes_on_from_the_last_one_told() -> None:
    moments = iter([None, PAST, None])
    with Ambient(b"", moment=lambda: next(moments)):
        assert time.time_ns() > PAST + 365 * DAY
        assert time.time_ns() == PAST
        assert PAST <= time.time_ns() < PAST + DAY


def test_a_loop_that_waits_for_a_time_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < travel._STILL_NS <= 10**9
    monkeypatch.setattr(travel, "_STILL_NS", 0)
    with Ambient(b"", moment=lambda: PAST):
        begun = time.time()
        while time.time() < begun + 0.02:
            time.sleep(0.001)


def test_the_newest_of_several_tells_and_they_may_end_in_any_order() -> None:
    one, two = Ambient(b"", moment=lambda: DAY), Ambient(b"", moment=lambda: 2 * DAY)
    one.__enter__()
    two.__enter__()
    assert time.time_ns() == 2 * DAY
    one.__exit__(None, None, None)
    assert time.time_ns() == 2 * DAY
    two.__exit__(None, None, None)
    assert time.time_ns() > PAST


def test_without_time_machine_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "time_machine", None)
    with pytest.raises(MissingExtra, match=r"pip install 'clew\[clock\]'"):
        Ambient(b"", moment=lambda: None)
    with Ambient(b"", clock=lambda place, n: 5):  # which needs no extra
        assert clew.time_ns() == 5
