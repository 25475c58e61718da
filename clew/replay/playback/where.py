"""Where something is asked: whether it belongs to a replay, and as what its recording knows the place."""

from __future__ import annotations

import threading
from collections.abc import Callable

from clew.replay.recording import question
from clew.replay.recording.recording import HERE, Lane, Place, Recording, Time, Turn, below
from clew.replay.recording.request import number
from clew.tracer import branch, context
from clew.tracer.init import Tracer
from clew.tracer.span import OpenRun, OpenSpan


class Where:
    """The places of one replay. `root` is the run that replays; None where the whole process does."""

    def __init__(self, tracer: Tracer, recording: Recording, root: OpenRun | None) -> None:
        self.tracer = tracer
        self.recording = recording
        self.root = root
        self.root_path = ""
        self.open = True
        self._lanes: dict[int, Lane] = {}
        self._runs: list[OpenRun] = []  # kept, so that their identities stay theirs
        self._lock = threading.Lock()

    def holds(self, span: OpenSpan | None) -> bool:
        """Whether what is done in `span` is part of this replay."""
        return self.open and (self.root is None or (span is not None and span.run.is_within(self.root)))

    def _is_lost(self, span: OpenSpan) -> bool:
        """Whether it stands outside of any run, or in one that began meanwhile and is no other replay's."""
        run = self.top(span)
        if run is self.tracer.process_run:
            return True
        return self.root is not None and run.started_ns >= self.root.started_ns and not run.replay_of

    def _of(self, span: OpenSpan, path: str, first: Callable[[], list[bytes]]) -> Place | None:
        """The place of a span at `path`; `first` are the requests that are asked in it."""
        if self.root is None:
            return Place(self._lane(span, path, first), path)
        return Place(HERE, self.relative(path)) if span.run.is_within(self.root) else None

    def acts_here(self) -> bool:
        """Whether what is asked at this place is this replay's."""
        return self.holds(context.enclosing())

    def top(self, span: OpenSpan) -> OpenRun:
        """The run in which it is counted how often the same is asked: the outermost one of what is replayed."""
        return outermost(span.run, self.root, self.tracer.process_run)

    def time(self, span: OpenSpan, path: str, request: bytes, *, by: str) -> Time:
        """For the how-manieth time this is asked at `path`, in its branch, as one who counts knows it."""
        names, count, _ = self.turn(span, path, request, by=f"time {by}")
        resumed = question.resumed()
        within = number(self.top(span), path, request, by=f"resumed {resumed} {names} {by}")
        return Time(names, count, resumed, within)

    def branch(self, span: OpenSpan) -> tuple[str, ...]:
        """The branch in which this span's thread runs, as the recording names it."""
        return self.recording.branch(branch.here(span.path), self.root_path)

    def turn(self, span: OpenSpan, path: str, what: bytes, *, by: str) -> Turn:
        """The how-manieth this is at `path`, in its branch and in all, as one who counts knows it."""
        run, names = self.top(span), self.branch(span)
        return Turn(names, number(run, path, what, by=f"{by} {names}"), number(run, path, what, by=by))

    def relative(self, path: str) -> str:
        """A span path as the recording has it."""
        if self.root is None:
            return path
        return below(below(path, self.root_path), self.recording.root_path.rpartition("/")[2])

    def run_of(self, lane: Lane) -> OpenRun | None:
        """The run that replays the one of this lane; None where it asked nothing."""
        if lane == HERE:
            return self.tracer.process_run
        return next((run for run in self._runs if self._lanes[id(run)] == lane), None)

    def _lane(self, span: OpenSpan, path: str, first: Callable[[], list[bytes]]) -> Lane:
        run = self.top(span)
        if run is self.tracer.process_run:
            return HERE
        with self._lock:
            if id(run) not in self._lanes:
                self._lanes[id(run)] = self._free(run.name, path, first())
                self._runs.append(run)
                self._linked(span, run, self._lanes[id(run)])
            return self._lanes[id(run)]

    def _free(self, name: str, path: str, asked: list[bytes]) -> Lane:
        """The first run of this name that asked the same, of those that nothing replays yet; runs may be concurrent, and
        begin in another order than recorded. Else the next one."""
        taken = set(self._lanes.values())
        free = [lane for lane in self.recording.lanes(name) if lane not in taken]
        same = (lane for lane in free if any(self.recording.begins(Place(lane, path), one) for one in asked))
        beyond = (
            name,
            1 + max((lane[1] for lane in {*taken, *self.recording.lanes(name)} if lane[0] == name), default=-1),
        )
        return next(same, None) or next(iter(free), beyond)

    def _linked(self, span: OpenSpan, run: OpenRun, lane: Lane) -> None:
        """A run of the process is linked to the one that it replays."""
        while span.parent is not None:
            span = span.parent
        if (root := self.recording.roots.get(lane)) is not None:
            run.replay_of = root[0]
            span.link(root[1], root[2], "replay_of")


def outermost(run: OpenRun, root: OpenRun | None, process: OpenRun) -> OpenRun:
    """The run around `run` that stands in no other but `process`; `root` where that is met before."""
    while run is not root and run.parent is not None and run.parent is not process:
        run = run.parent
    return run
