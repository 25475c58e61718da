"""The recorded order of parallel calls: one ends no earlier than those that ended before it while it was open."""

from __future__ import annotations

import asyncio
import time

from clew.replay.recording.recording import Recording
from clew.store.record import Answer
from clew.tracer.span import OpenSpan

PATIENCE_S = 2.0  # for a call that was recorded and that the replay does not make
_STEP_S = 0.001  # in which who ended can go on before who waited does


class Order:
    """Has served calls wait for each other."""

    def __init__(self, recording: Recording) -> None:
        self._calls = sorted(recording.calls, key=lambda entry: entry.ended_ns)
        self._spans: dict[int, OpenSpan] = {}  # of calls that were answered
        self.missed = 0  # calls that did not wait any longer

    def wait(self, entry: Answer) -> None:
        """Until what ended before it has ended, or is taken not to come."""
        before, patience = self._before(entry), time.monotonic() + PATIENCE_S
        while not self._have_ended(before, patience):
            time.sleep(_STEP_S)

    async def wait_async(self, entry: Answer) -> None:
        """As `wait`, of a task."""
        before, patience = self._before(entry), time.monotonic() + PATIENCE_S
        while not self._have_ended(before, patience):
            await asyncio.sleep(_STEP_S)

    def answered(self, entry: Answer, span: OpenSpan) -> None:
        """A call has its answer; it ends with its span."""
        self._spans[id(entry)] = span

    def _before(self, entry: Answer) -> list[int]:
        return [
            id(one)
            for one in self._calls
            if entry.started_ns < one.ended_ns < entry.ended_ns and one.span_id != entry.span_id
        ]

    def _have_ended(self, calls: list[int], patience: float) -> bool:
        if all(call in self._spans and not self._spans[call].here for call in calls):
            return True
        if time.monotonic() < patience:
            return False
        self.missed += 1
        return True
