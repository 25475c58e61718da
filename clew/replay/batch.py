"""Several things asked at once, each of which could be asked by itself: a batch asks only for those that nobody knows.

Of several batches that want the same thing, one asks. A batch claims what nobody else in this process asks for, locks of
that what no other process does, asks for it, and gives it free. Only then it waits: first for what other processes
locked, which of its own claims it gives back after that, and then for what others here claimed. So who is waited for is
asking, and does not wait in turn. Where somebody may wait for the caller itself (inside another computation, or in the
thread of an event loop), it does not wait but asks: a duplicate is allowed, a deadlock is not.
"""

from __future__ import annotations

import asyncio
import copy
import os
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Generator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from opentelemetry import context as otel_context

from clew.replay.answer import unpack
from clew.replay.flight import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, KeyLocks, is_inside
from clew.replay.flight.tape import SLICE_SECONDS, Step, drive, drive_async, signal
from clew.store.record import Action
from clew.tracer.boundary import MISSING, Call

if TYPE_CHECKING:
    from clew.replay.cache import Asked, CachePolicy
    from clew.tracer.exchange import Batch

PATIENCE_SECONDS = 3600.0
_INSIDE = otel_context.create_key("clew-batch")


class Together(NamedTuple):
    """A batch, and what it asks for."""

    batch: Batch
    each: list[Asked]


class Claim:
    """That a batch is asking for something now."""

    def __init__(self, loop: AbstractEventLoop | None) -> None:
        self.given_back = signal()
        self._loop = loop

    @property
    def is_held(self) -> bool:
        """Whether it is to be given back yet; nobody does where its event loop has stopped."""
        return not self.given_back.done() and (self._loop is None or self._loop.is_running())


class Claims:
    """What the batches of this process are asking for; a forked child begins with none."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._claims: dict[bytes, Claim] = {}
        self._process = os.getpid()
        self.ended = 0  # claims that were given back

    def take(self, keys: Iterable[bytes], loop: AbstractEventLoop | None) -> tuple[dict[bytes, Claim], list[Claim]]:
        """Claims to what nobody asks for, and those that others have to the rest. Never waits."""
        if self._process != os.getpid():
            self._lock, self._claims, self._process = threading.RLock(), {}, os.getpid()
        mine: dict[bytes, Claim] = {}
        theirs: list[Claim] = []
        with self._lock:
            for key in keys:
                found = self._claims.get(key)
                if found is not None and found.is_held:
                    theirs.append(found)
                else:
                    self._claims[key] = mine[key] = Claim(loop)
        return mine, theirs

    def give_back(self, mine: dict[bytes, Claim], keys: Iterable[bytes]) -> None:
        """Of these, what was claimed has its answer, or has none."""
        back = {key: mine.pop(key) for key in list(keys) if key in mine}
        with self._lock:
            self.ended += len(back)
            for key, claim in back.items():
                if self._claims.get(key) is claim:
                    del self._claims[key]
        for claim in back.values():
            claim.given_back.set_result(None)


class Batches:
    """How the cache answers batches."""

    def __init__(self, policy: CachePolicy, locks: KeyLocks) -> None:
        self.policy = policy
        self.claims = Claims()
        self.locks = locks

    def call(self, call: Call, asked: Together, perform: Callable[[], Any]) -> Any:
        """The answers of all, in the order in which they are asked for."""
        blocks = asyncio._get_running_loop() is not None  # what it waits for may be a task of the loop that it stops
        with _Turn(self, call, asked, None, waits=not blocks) as turn:
            while not turn.is_over:
                if turn.wants:
                    token = turn.enter()
                    try:
                        performed = perform()
                    finally:
                        otel_context.detach(token)
                    turn.hear(performed)
                else:
                    drive(turn.wait())
            return turn.answer

    async def call_async(self, call: Call, asked: Together, perform: Callable[[], Awaitable[Any]]) -> Any:
        """`call`, for a task: it never blocks the event loop, but to look."""
        with _Turn(self, call, asked, asyncio.get_running_loop(), waits=True) as turn:
            while not turn.is_over:
                if turn.wants:
                    token = turn.enter()
                    try:
                        performed = await perform()
                    finally:
                        otel_context.detach(token)
                    turn.hear(performed)
                else:
                    await drive_async(turn.wait())
            return turn.answer


class _Turn:
    """One batch on its way to its answers. The core that both shapes share."""

    def __init__(
        self, home: Batches, call: Call, asked: Together, loop: AbstractEventLoop | None, *, waits: bool
    ) -> None:
        self._home = home
        self._call = call
        self._batch = asked.batch
        self._asked = asked.each
        self._at: dict[bytes, int] = {}  # each thing once, and where it is asked for first
        for position, one in enumerate(asked.each):
            self._at.setdefault(one.key.digest, position)
        self._kept: dict[bytes, bytes] = {}  # what the cache has
        self._fresh: dict[bytes, Any] = {}  # what was answered now
        self._saved: list[Action] = []
        self._started_ns = time.time_ns()
        self._performed = 0
        self._mine: dict[bytes, Claim] = {}
        self._theirs: list[Claim] = []
        self._locked: list[bytes] = []
        self._elsewhere: list[bytes] = []  # what other processes ask for; this batch's claims, here
        self._wanted: list[bytes] | None = None  # what is to be asked for alone; None where it is all, or nothing
        self._wants_all = False
        self.answer: Any = MISSING
        self._loop = loop
        self._waits = waits and not otel_context.get_value(_INSIDE) and not is_inside()

    def __enter__(self) -> Self:
        try:
            self._claim()
        except BaseException:  # an interrupt
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._home.locks.let_go(self._locked)
        self._home.claims.give_back(self._mine, self._at)

    @property
    def is_over(self) -> bool:
        """Whether there is an answer."""
        return self.answer is not MISSING

    @property
    def wants(self) -> bool:
        """Whether something is to be asked for now."""
        return self._wants_all or self._wanted is not None

    def _claim(self) -> None:
        claims = self._home.claims
        ended = claims.ended
        missing = self._look(self._at)
        if self._waits:
            self._mine, self._theirs = claims.take(missing, self._loop)
            missing = list(self._mine)
            if claims.ended != ended:  # somebody may have answered it since, and given the claim back
                missing = self._look(missing)
                claims.give_back(self._mine, set(self._mine).difference(missing))
            missing = self._lock(missing)
        if len(missing) == len(self._at):
            self._wants_all = True
        elif missing:
            self._wanted = missing
        elif not self._theirs and not self._elsewhere:
            self._join()

    def _lock(self, missing: list[bytes]) -> list[bytes]:
        """What of these is to be asked for here, and is not in the cache by now."""
        self._locked = self._home.locks.take(missing)
        locked = set(self._locked)
        self._elsewhere = [key for key in missing if key not in locked]
        wanted = self._look(self._locked)
        self._free([key for key in self._locked if key in self._kept])
        return wanted

    def _free(self, keys: list[bytes]) -> None:
        """These have their answers, or have none."""
        gone = set(keys)
        self._home.locks.let_go(gone.intersection(self._locked))
        self._locked = [key for key in self._locked if key not in gone]
        self._home.claims.give_back(self._mine, keys)

    def enter(self) -> Any:
        """What is performed next is the call for what is wanted, and it is performed within the batch; gives the token
        to detach."""
        self._started_ns = time.time_ns()
        self._call.narrowed = (
            None if self._wanted is None else self._call.narrow([self._at[key] for key in self._wanted])
        )
        return otel_context.attach(otel_context.set_value(_INSIDE, True))

    def hear(self, performed: Any) -> None:
        """What was asked for was answered so."""
        took_ns = time.time_ns() - self._started_ns
        parts = self._batch.parted(performed)
        wanted, self._wanted = self._wanted, None
        self._performed += len(self._asked) if wanted is None else len(wanted)
        if wanted is None:
            self._wants_all = False
            if parts is not None and len(parts) == len(self._asked):
                self._keep({key: parts[position] for key, position in self._at.items()}, took_ns)
            self._finish(performed)
        elif parts is None or len(parts) != len(wanted):
            self._wants_all = True  # it answers otherwise when it is asked for less: nothing is known of what was asked
        else:
            answered = dict(zip(wanted, parts, strict=True))
            self._fresh.update(answered)
            self._keep(answered, took_ns)
            self._free(wanted)
            if not self._theirs and not self._elsewhere:
                self._join()

    def wait(self) -> Generator[Step, None, None]:
        """The steps until others have what they claimed, or it is known that they do not."""
        until = time.monotonic() + PATIENCE_SECONDS
        while self._elsewhere:
            yield from self._wait_for_processes(until)
            if self._wanted is not None:
                return
        theirs, self._theirs = self._theirs, []
        for claim in theirs:
            while claim.is_held and time.monotonic() < until:
                yield claim.given_back, SLICE_SECONDS
        self._wanted = self._look([key for key in self._at if key not in self._kept and key not in self._fresh]) or None
        if self._wanted is None:
            self._join()

    def _wait_for_processes(self, until: float) -> Generator[Step, None, None]:
        """The steps until other processes have what they locked; what they have not is to be asked for here."""
        elsewhere, self._elsewhere = self._elsewhere, []
        pause = FIRST_PAUSE_SECONDS
        for key in elsewhere:
            while not self._home.locks.is_free(key) and time.monotonic() < until:
                yield None, pause
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        missing = self._look(elsewhere)
        self._home.claims.give_back(self._mine, set(elsewhere).difference(missing))
        self._wanted = (self._lock(missing) if time.monotonic() < until else missing) or None

    def _look(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of these that the cache does not know."""
        keys, missing = list(keys), []
        self._home.policy.fetch(keys)
        for key in keys:
            data = self._home.policy._look(self._asked[self._at[key]], into=self._saved)
            if data is MISSING:
                missing.append(key)
            else:
                self._kept[key] = data
        return missing

    def _keep(self, answered: dict[bytes, Any], took_ns: int) -> None:
        """Keep what was answered together, and took so long together."""
        new = [(self._asked[self._at[key]], part) for key, part in answered.items() if key not in self._kept]
        if new:
            self._home.policy.keep_all(new, took_ns // len(answered))

    def _join(self) -> None:
        """The answers of all, each caller's own; all is asked for where they do not go together."""
        answers = []
        try:
            for one in self._asked:
                key = one.key.digest
                part = copy.copy(self._fresh[key]) if key in self._fresh else one.exchange.load(unpack(self._kept[key]))
                answers.append(part)
            joined = self._batch.joined(answers)
        except Exception as error:
            self._home.policy.tracer.faults.add("answers of a batch", error)
            joined = None
        if joined is None:
            self._wants_all = True
        else:
            self._finish(joined)

    def _finish(self, answer: Any) -> None:
        self.answer = answer
        span = self._call.span
        assert span is not None
        asked = len(self._asked)
        hits = 0 if self._performed >= asked else sum(one.key.digest not in self._fresh for one in self._asked)
        span.attributes({"clew.cache.hit": not self._performed, "clew.cache.hits": hits, "clew.cache.asked": asked})
        if asked:
            saved = self._saved if hits else []
            span.attributes({"clew.cache.model": self._asked[0].exchange.model, **saved_by(saved)})
        if not self._performed:
            span.facts["served"] = True


def saved_by(entries: list[Action]) -> dict[str, Any]:
    """What it took to get these answers, which nobody had to get again."""
    return {
        "clew.cache.saved.duration_ns": sum(one.duration_ns for one in entries),
        "clew.cache.saved.input_tokens": sum(one.input_tokens for one in entries),
        "clew.cache.saved.output_tokens": sum(one.output_tokens for one in entries),
    }
