"""Threads and computations that tell how far they are, for tests of single-flight."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from clew.replay.flight import Flights
from clew.tracer.boundary import MISSING
from tests.replay.flight.programs import key_of

BACKSTOP = 60.0
KEY = key_of(1)


def nothing() -> object:
    return MISSING


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
