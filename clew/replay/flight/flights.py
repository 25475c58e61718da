"""Single-flight: of many that want one key at once, one computes and the others get its result.

The many may be threads, tasks of any event loops, and processes of one machine. Within a process they find the flight
in a table and wait for it; the one who leads it takes the key's stripe (stripe.py) against other processes, asks the
cache once more, and computes. A stream's followers read along (tape.py).

Nobody waits in a circle; where somebody would, it computes for itself, without table and stripe. A duplicate
computation is allowed, a deadlock is not:

- Within the process the circle is seen: a flight knows for which flights calls made within it wait, and an event loop
  which sync call blocks it. Calls made within a flight are known by OpenTelemetry's context, so a call of the same key
  in its own computation computes, also from a task or an instrumented thread that it started.
- Between processes it is not: who holds a flight, blocks an event loop or has a stream open waits for `nested_seconds`
  at most for what another process holds. Nobody waits longer than `patience_seconds`.
- A leader whose frame is gone or whose event loop runs no more leads no more: the next one does.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextvars import copy_context
from pathlib import Path
from time import monotonic
from typing import Any, Self, TypeVar

from opentelemetry import context as otel_context

from clew.replay.flight import circle
from clew.replay.flight.circle import Flight, Waiter
from clew.replay.flight.stripe import Stripes
from clew.replay.flight.tape import END, SLICE_SECONDS, PumpedTape, Step, Tape, drive, drive_async
from clew.store.errors import BrokenStream
from clew.tracer.boundary import MISSING

T = TypeVar("T")
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.0005, 0.02  # between two tries to take a stripe
_LED = otel_context.create_key("clew-flights")  # the flights within which a call is made, the innermost last


class Flights:
    """The flights of one store in this process: one object for each folder. A forked child begins with none.

    `deterministic(error)` says that an error would come again: followers get it too. After any other one the next of
    them leads, so each caller computes at most once. What is no Exception (KeyboardInterrupt, a cancellation) stays
    with whom it hit. `fault` is told once where the folder of stripes cannot be used; then each process flies alone.
    """

    def __init__(
        self,
        folder: Path,
        *,
        deterministic: Callable[[Exception], bool] = lambda error: False,
        fault: Callable[[OSError], object] = lambda error: None,
        nested_seconds: float = 30.0,
        patience_seconds: float = 3600.0,
    ) -> None:
        self.deterministic = deterministic
        self.nested_seconds = nested_seconds
        self.patience_seconds = patience_seconds
        self.stripes = Stripes(folder, fault)
        self.table: dict[bytes, Flight] = {}
        _living.add(self)

    def call(
        self, key: bytes, look: Callable[[], Any], compute: Callable[[], T], *, copy: Callable[[T], T] | None = None
    ) -> tuple[T, bool]:
        """The key's value, and whether this caller computed it.

        `look` gives what the cache has, or MISSING. `compute` puts its value there before it returns. Followers get
        the leader's object, or what `copy` makes of it.
        """
        with _Turn(self, key, look) as turn:
            drive(turn.board())
            if not turn.computes:
                return turn.value(copy), False
            token = turn.enter()
            try:
                value = compute()
            finally:
                otel_context.detach(token)
            turn.land(value)
            return value, True

    async def call_async(
        self,
        key: bytes,
        look: Callable[[], Any],
        compute: Callable[[], Awaitable[T]],
        *,
        copy: Callable[[T], T] | None = None,
    ) -> tuple[T, bool]:
        """`call`, for a task: it never blocks the event loop, but for `look`."""
        with _Turn(self, key, look, asyncio.get_running_loop()) as turn:
            await drive_async(turn.board())
            if not turn.computes:
                return turn.value(copy), False
            token = turn.enter()
            try:
                value = await compute()
            finally:
                otel_context.detach(token)
            turn.land(value)
            return value, True

    def stream(
        self,
        key: bytes,
        look: Callable[[], Any],
        compute: Callable[[], Iterator[T]],
        *,
        copy: Callable[[T], T] | None = None,
    ) -> Iterator[T]:
        """The chunks of the key's stream. `look` gives all of them, or MISSING.

        `compute` puts them into the cache before its iterator ends. Another reader may pull it, in another thread.
        A follower whose stream breaks off computes it anew and goes on where it was. If that stream begins with other
        chunks, the error that broke the first one is raised (BrokenStream for one that is no Exception): two halves
        are no answer.
        """
        given: list[T] = []
        broken: BaseException | None = None
        while True:
            with _Turn(self, key, look, streams=True) as turn:
                drive(turn.board())
                tape = turn.reads or turn.open(Tape, lambda: iter(compute()))
                while (chunk := drive(tape.read(turn.at))) is not END:
                    if turn.is_new(chunk, given, broken):
                        yield chunk if turn.leads or copy is None else copy(chunk)
                broken = turn.ended(tape, given, broken)
            if broken is None:
                return

    async def stream_async(
        self,
        key: bytes,
        look: Callable[[], Any],
        compute: Callable[[], AsyncIterator[T]],
        *,
        copy: Callable[[T], T] | None = None,
    ) -> AsyncIterator[T]:
        """`stream`, for a task. `compute`'s iterator runs in one task of its own, in the event loop of who leads."""
        given: list[T] = []
        broken: BaseException | None = None
        while True:
            with _Turn(self, key, look, asyncio.get_running_loop(), streams=True) as turn:
                try:
                    await drive_async(turn.board())
                    tape = turn.reads or turn.open(PumpedTape, lambda: aiter(compute()))
                    while (chunk := await drive_async(tape.read(turn.at))) is not END:
                        if turn.is_new(chunk, given, broken):
                            yield chunk if turn.leads or copy is None else copy(chunk)
                    broken = turn.ended(tape, given, broken)
                finally:
                    closing = turn.leave()
                    if closing is not None:
                        await asyncio.wait({closing})
            if broken is None:
                return

    def end(self, flight: Flight, *, value: Any = MISSING, error: BaseException | None = None) -> None:
        """The flight has a value, an error, or a whole stream. One that had ended before stays as it is."""
        with circle.changing:
            if self.table.get(flight.key) is flight:
                del self.table[flight.key]
            if not flight.ended:
                flight.value, flight.error, flight.ended = value, error, True
            flight.stripe = None  # it is free; also that of a lost one, which may have got it since
        flight.tell()

    def after_fork(self) -> None:
        """In a forked child: its own stripes, and no flights. What its thread was leading ends unheard."""
        self.stripes.after_fork()
        for flight in self.table.values():
            flight.after_fork()
        self.table = {}


class _Turn:
    """One caller's way to its value: it leads a flight or follows one. The core that the four shapes share."""

    def __init__(
        self,
        home: Flights,
        key: bytes,
        look: Callable[[], Any],
        loop: AbstractEventLoop | None = None,
        *,
        streams: bool = False,
    ) -> None:
        within: tuple[Flight, ...] = otel_context.get_value(_LED) or ()  # type: ignore[assignment]
        self._within = tuple(flight for flight in within if not flight.ended)
        self._home = home
        self._key = key
        self._look = look
        self._loop = loop
        blocks = asyncio._get_running_loop() if loop is None else None  # a sync call in a loop's thread stops it
        self._waiter = Waiter(self._within, blocks)
        self._streams = streams
        self._began = 0.0
        self._flight: Flight | None = None
        self.reads: Tape | None = None  # unless this caller opens one
        self.leads = False
        self.computes = False
        self.at = 0  # the chunk that is read next

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.leave()
        self._waiter.depend_no_more()
        flight = self._flight
        if self.leads and flight is not None and flight.tape is None and not (flight.ended and flight.told):
            self._home.end(flight, error=error)

    def board(self) -> Generator[Step, None, None]:
        """The steps to a flight: then it `computes`, or there is a value or a tape. Raises an error that is shared."""
        while True:
            flight = self._find()
            if self.leads:
                yield from self._take_off(flight)
                return
            if not (yield from self._hear_of(flight)):
                self._waiter.depend_no_more()
                yield from self._take_off(self._lead(alone=True))
                return
            if flight.tape is not None:
                if flight.tape.ended:
                    self._home.end(flight, error=flight.tape.error)  # where an interrupt kept others from it
                if not flight.tape.join():  # its last reader is closing it
                    yield flight.tape.close, 0.0
                    yield None, FIRST_PAUSE_SECONDS
                elif self._streams:
                    self.reads = flight.tape
                    return
                else:
                    yield from self._read_to_the_end(flight.tape)
            elif flight.value is not MISSING and not self._streams:
                return
            elif isinstance(flight.error, Exception) and self._home.deterministic(flight.error):
                raise flight.error
            self._waiter.depend_no_more()  # the next one leads: the cache has what was computed in the other shape

    def _hear_of(self, flight: Flight) -> Generator[Step, None, bool]:
        """Whether there is news of it; not where this caller is tired of waiting."""
        while not flight.told:
            yield flight.news, SLICE_SECONDS
            if flight.lost:
                self._home.end(flight, error=asyncio.CancelledError())
            elif self._is_tired_of(flight):
                return flight.told
        return True

    def _find(self) -> Flight:
        """The key's flight, to follow; or one that this caller leads, alone where following would close a circle."""
        with circle.changing:
            again = any(flight.home is self._home and flight.key == self._key for flight in self._within)
            flight = self._home.table.get(self._key)
            if flight is None or again:
                return self._lead(alone=again)
            if self._waiter.is_needed_by(flight):
                return self._lead(alone=True)
            self._flight = flight
            self._waiter.depend_on(flight)
            return flight

    def _lead(self, *, alone: bool) -> Flight:
        self._flight = flight = Flight(self._home, self._key, self, self._loop)
        flight.airborne = alone
        self.leads = True
        with circle.changing:
            if not alone:
                self._home.table[self._key] = flight
            self._waiter.depend_on(flight)
        return flight

    def _take_off(self, flight: Flight) -> Generator[Step, None, None]:
        pause, since = FIRST_PAUSE_SECONDS, monotonic()
        while not flight.airborne:
            flight.stripe = self._home.stripes.take(self._key)
            if flight.stripe is not None or monotonic() - since > (
                self._home.nested_seconds if self._holds else self._home.patience_seconds
            ):
                flight.airborne = True
            else:
                yield None, pause
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        found = self._look()
        if found is MISSING:
            self.computes = True
        elif self._streams:
            self.reads = flight.tape = Tape.of(found)
            self._home.end(flight)
        else:
            self.land(found)

    def _read_to_the_end(self, tape: Tape) -> Generator[Step, None, None]:
        """A call that meets a stream of its key does not depend on its readers."""
        try:
            at = 0
            while (yield from tape.read(at)) is not END:
                at += 1
        finally:
            tape.leave()

    @property
    def _holds(self) -> bool:
        """Whether another process may be waiting for something that this wait holds up."""
        with circle.changing:
            open_streams = any(flight.tape is not None for flight in self._home.table.values())
        return bool(self._waiter) or open_streams

    def _is_tired_of(self, flight: Flight) -> bool:
        """Whether it has waited for long enough, for what may never come."""
        self._began = self._began or monotonic()
        waited = monotonic() - self._began
        if waited > self._home.patience_seconds:
            return True
        return (
            waited > self._home.nested_seconds and self._holds and not all(one.airborne for one in circle.reach(flight))
        )

    def enter(self) -> Any:
        """What is called from now on is called within the flight; gives the token to detach."""
        return otel_context.attach(otel_context.set_value(_LED, (*self._within, self._flight)))

    def land(self, value: Any) -> None:
        assert self._flight is not None
        self._home.end(self._flight, value=value)

    def value(self, copy: Callable[[Any], Any] | None) -> Any:
        assert self._flight is not None
        return self._flight.value if self.leads or copy is None else copy(self._flight.value)

    def open(self, kind: Callable[..., Tape], source: Callable[[], Any]) -> Tape:
        """A tape for all who want the stream now."""
        home, flight = self._home, self._flight
        assert flight is not None
        context = copy_context()
        context.run(self.enter)
        made = kind(context.run(source), context, lambda error: home.end(flight, error=error))
        self.reads = flight.tape = made
        flight.tell()
        return made

    def leave(self) -> asyncio.Task[None] | None:
        """Read no more. Gives what is to be awaited, where this ends the stream."""
        tape, self.reads = self.reads, None
        return None if tape is None else tape.leave()

    def is_new(self, chunk: T, given: list[T], broken: BaseException | None) -> bool:
        """Whether the caller has not got this chunk yet, from a stream that broke off."""
        self.at += 1
        if self.at > len(given):
            given.append(chunk)
            return True
        if not _same(chunk, given[self.at - 1]):
            _give_up(broken)
        return False

    def ended(self, tape: Tape, given: list[T], broken: BaseException | None) -> BaseException | None:
        """None where the stream is whole; the error where it is to be computed anew. Raises the caller's own."""
        error = tape.error
        if error is None and self.at < len(given):
            _give_up(broken)
        if isinstance(error, Exception) and (self.leads or self._home.deterministic(error)):
            raise error
        if error is not None and self.leads:
            _give_up(error)
        return error


def _give_up(broken: BaseException | None) -> None:
    if isinstance(broken, Exception):
        raise broken
    raise BrokenStream("a stream shared with another caller broke off; call it again") from broken


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # arrays say neither yes nor no
        return False


def is_inside() -> bool:
    """Whether this is called within a flight, which others may wait for."""
    within: tuple[Flight, ...] = otel_context.get_value(_LED) or ()  # type: ignore[assignment]
    return any(not flight.ended for flight in within)


_living: weakref.WeakSet[Flights] = weakref.WeakSet()


def _after_fork() -> None:
    for flights in list(_living):
        flights.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
