"""Who waits for whom in this process, so that nobody waits in a circle.

A flight waits for those that calls made within it lead or follow. An asynchronous one waits for its event loop too,
and so for whatever a sync call waits for that was made in that loop's thread.
"""

from __future__ import annotations

import os
import weakref
from asyncio import AbstractEventLoop
from concurrent.futures import Future
from threading import RLock
from typing import Any

from clew.replay.flight.stripe import Stripe
from clew.replay.flight.tape import Tape, signal
from clew.tracer.boundary import MISSING


class Flight:
    """One computation of `home`'s, until it has a value, an error or a whole stream."""

    def __init__(self, home: object, key: bytes, leader: object, loop: AbstractEventLoop | None) -> None:
        self.home = home
        self.key = key
        self.loop = loop  # where it runs, of an asynchronous one
        self.airborne = False  # it waits for no stripe any more
        self.told = False  # there is a tape to read, a value or an error
        self.ended = False
        self.value: Any = MISSING
        self.error: BaseException | None = None
        self.tape: Tape | None = None
        self.stripe: Stripe | None = None
        self.waits: list[Flight] = []
        self._news: Future[None] | None = None  # most flights have no follower
        self._leader = weakref.ref(leader)

    @property
    def lost(self) -> bool:
        """Whether nobody is there any more to end it."""
        gone = self._leader() is None or (self.loop is not None and not self.loop.is_running())
        return gone and not self.told  # asked in this order: a leader tells before it goes

    @property
    def news(self) -> Future[None]:
        """Done when it is told."""
        with changing:
            if self._news is None:
                self._news = signal()
                if self.told:
                    self._news.set_result(None)
            return self._news

    def tell(self) -> None:
        """Followers may look now."""
        with changing:
            self.told = True
            if self._news is not None and not self._news.done():
                self._news.set_result(None)

    def after_fork(self) -> None:
        """In a forked child: a thread that is not here may have held a lock."""
        self._news = None
        if self.tape is not None:
            self.tape.after_fork()


class Waiter:
    """One caller: the flights within which it calls, and the event loop that it blocks while it waits, if it does."""

    __slots__ = ("_blocks", "_depends", "_within")

    def __init__(self, within: tuple[Flight, ...], blocks: AbstractEventLoop | None) -> None:
        self._within = within
        self._blocks = blocks
        self._depends: list[tuple[list[Flight], Flight]] = []

    def __bool__(self) -> bool:
        """Whether anybody waits for this caller."""
        return bool(self._within) or self._blocks is not None

    def is_needed_by(self, flight: Flight) -> bool:
        """Whether the flight waits for this caller, be it at many removes."""
        if not self:
            return False
        reached = reach(flight)
        return not reached.isdisjoint(self._within) or (
            self._blocks is not None and any(one.loop is self._blocks for one in reached)
        )

    def depend_on(self, flight: Flight) -> None:
        """Who waits for this caller waits for the flight from now on."""
        held_up = [self._within[-1].waits] if self._within else []
        with changing:
            if self._blocks is not None:
                held_up.append(_blocking.setdefault(self._blocks, []))
            for waits in held_up:
                waits.append(flight)
                self._depends.append((waits, flight))

    def depend_no_more(self) -> None:
        """It waits for nothing now."""
        if not self._depends:
            return
        with changing:
            while self._depends:
                waits, flight = self._depends.pop()
                if flight in waits:  # a fork forgets the event loops of its parent
                    waits.remove(flight)
            if self._blocks is not None and not _blocking.get(self._blocks):
                _blocking.pop(self._blocks, None)


def reach(flight: Flight) -> set[Flight]:
    """The flight, and all that must end before it can."""
    reached: set[Flight] = set()
    ahead = [flight]
    with changing:
        while ahead:
            one = ahead.pop()
            if one not in reached:
                reached.add(one)
                ahead += one.waits
                ahead += _blocking.get(one.loop, ()) if one.loop is not None else ()
    return reached


changing = RLock()  # of who waits for whom, and of the tables of flights: a circle may go through several stores
_blocking: dict[AbstractEventLoop, list[Flight]] = {}  # event loops that sync calls hold up, and what these wait for


def _after_fork() -> None:
    global changing
    changing = RLock()
    _blocking.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
