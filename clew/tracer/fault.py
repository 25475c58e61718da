"""Faults inside clew: they never reach the user's program, and they are never hidden.

A fault is logged once for each place, counted, written to the store when the store can be written again, and shown by
`clew doctor`. That the store cannot be written is one fault, wherever it is met: it is logged once for all places.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from clew.store.digest import storable
from clew.store.errors import StoreUnwritable

logger = logging.getLogger("clew")
_FAILED = "clew: %s failed and was left out of the trace: %s (counted; see `clew doctor`)"
_UNWRITABLE = "clew: the store cannot be written, and what it did not take was left out of the trace: %s (counted; see `clew doctor`)"


class Faults:
    """Counts of faults by place, since the last `take`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._counts: dict[str, tuple[int, str]] = {}
        self._announced: set[str] = set()
        self.redact: Callable[[str], str] = lambda text: text

    def add(self, where: str, error: BaseException | str, count: int = 1) -> None:
        """Note that something went wrong at `where`. Never raises."""
        try:
            text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
            text = storable(self.redact(text))[:500]
            where = storable(self.redact(where))[:200]
        except Exception:  # an error whose text cannot be cleaned is named by its type alone
            text = type(error).__name__
        with self._lock:
            before, _ = self._counts.get(where, (0, ""))
            self._counts[where] = (before + count, text)
            unwritable = isinstance(error, StoreUnwritable)
            kind = _UNWRITABLE if unwritable else where
            first = kind not in self._announced
            self._announced.add(kind)
        if first and unwritable:
            logger.warning(_UNWRITABLE, text.removeprefix("StoreUnwritable: "))
        elif first:
            logger.warning(_FAILED, where, text)

    def tell(self, text: str) -> None:
        """Say in the program's log what is no fault, and what its author may want to know. Never raises."""
        try:
            logger.info("clew: %s", storable(self.redact(text))[:500])
        except Exception:
            pass

    def take(self) -> dict[str, tuple[int, str]]:
        """The counts so far; they begin again at nothing."""
        with self._lock:
            counts, self._counts = self._counts, {}
        return counts

    def put_back(self, counts: dict[str, tuple[int, str]]) -> None:
        """Counts that could not be written."""
        with self._lock:
            for where, (count, text) in counts.items():
                self._counts[where] = (self._counts.get(where, (0, ""))[0] + count, text)

    def after_fork(self) -> None:
        """In a forked child: the thread that held the lock is not there to free it."""
        self._lock = threading.RLock()

    @property
    def counts(self) -> dict[str, tuple[int, str]]:
        """Place -> (how often, last error)."""
        with self._lock:
            return dict(self._counts)

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """Whatever fails inside is counted, not raised. For code of ours only, never around the user's."""
        try:
            yield
        except Exception as error:
            self.add(where, error)
