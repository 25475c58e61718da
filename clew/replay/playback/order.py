"""The recorded order of parallel calls: one ends no earlier than those that ended before it while it was open."""

from __future__ import annotations

import asyncio
import threading
import time

from clew.replay.recording.recording import Recording
from clew.store.record import Answer

PATIENCE_S = 2.0  # for a call that was recorded and that the replay does not make
_STEP_S = 0.001


class Order:
    """Has served calls wait for each other."""

    def __init__(self, recording: Recording) -> None:
        self._calls = sorted(recording.calls, key=lambda entry: entry.ended_ns)
        self._ended: set[int] = set()
        self._changed = threading.Condition()
        self.missed: int = 0  # calls that did not wait any longer

    def _before(self, entry: Answer) -> list[int]:
        return [
            id(one)
            for one in self._calls
            if entry.started_ns < one.ended_ns < entry.ended_ns and one.span_id != entry.span_id
        ]

    def wait(self, entry: Answer) -> None:
        """Until what ended before it has ended, or is taken not to come."""
        before = self._before(entry)
        with self._changed:
            if not self._changed.wait_for(lambda: self._ended.issuperset(before), PATIENCE_S):
                self.missed += 1

    async def wait_async(self, entry: Answer) -> None:
        """As `wait`, of a task."""
        before, patience = self._before(entry), time.monotonic() + PATIENCE_S
        while not self._ended.issuperset(before):
            if time.monotonic() > patience:
                self.missed += 1
                return
            await asyncio.sleep(_STEP_S)

    def ended(self, entry: Answer) -> None:
        """A call has ended."""
        with self._changed:
            self._ended.add(id(entry))
            self._changed.notify_all()
