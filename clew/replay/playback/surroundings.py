"""What surrounds a replayed program: random values and clocks that are the same each time, and no network in strict."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator

from clew.lineage import target
from clew.lineage.reader import Reader
from clew.lineage.view import span_views
from clew.replay.ambient import Ambient, console
from clew.replay.ambient.console import Line
from clew.replay.ambient.seeded import seed_bytes
from clew.replay.answer import unpack
from clew.replay.network import Guard
from clew.replay.playback.certificate import Certificate
from clew.replay.playback.replayer import Replayer
from clew.replay.recording.recording import Turn, below
from clew.replay.recording.request import CLOCK, CONSOLE
from clew.store import answers
from clew.store.errors import ClewError, ReplayMiss
from clew.tracer import branch, context


class Surroundings:
    """Entered around a replay. `travel`: the system's clock, too, tells when the enclosing span was recorded to begin.
    `hosts` stay within reach in strict mode."""

    def __init__(
        self, replayer: Replayer, reader: Reader, *, travel: bool = False, hosts: tuple[str, ...] = ()
    ) -> None:
        self._replayer = replayer
        self._told: dict[tuple[bytes, str, tuple[str, ...]], Iterator[int]] = {}  # what, where -> how often so far
        moments = Moments(replayer, reader) if travel else None
        self._ambient = Ambient(
            seed_bytes(replayer.recording.run_id if replayer.recording.seed is None else replayer.recording.seed),
            place=self._place,
            clock=self._clock,
            moment=moments,
            holds=self._holds,
        )
        self._store = reader.store
        self._console = console.Recalled(self._line, self._beyond)
        self._guard = Guard(allow=hosts) if replayer.terms.mode != "hybrid" else None

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Random values, clocks and the network as the replay has them."""
        with self._ambient, self._guard or contextlib.nullcontext():
            console.listen(self._console)
            try:
                yield
            finally:
                console.leave(self._console)

    def told(self, certificate: Certificate) -> None:
        """Say on the certificate what was drawn and what was blocked."""
        recording = self._replayer.recording
        certificate.draws = dict(self._ambient.draws)
        if self._console.lines:
            certificate.draws["console"] = self._console.lines
        certificate.unseen = self._ambient.unseen
        if self._guard is not None:
            certificate.blocked = [
                f"{one.what} to {one.address} {count} times" for one, count in self._guard.blocked.items()
            ]
        drawn = sorted(certificate.draws.keys() & {"random", "numpy", "torch", "uuid4"})
        if drawn and recording.seed is None:
            certificate.notes.append(
                f"{', '.join(drawn)}: the values are the same in each replay, and others than recorded, as the run had no seed "
                "(clew.run(..., seed=1))"
            )

    def _place(self) -> str:
        span = context.enclosing()
        return "" if span is None else self._replayer.relative(span.path) + branch.place(span.path)

    def _holds(self) -> bool:
        """Whether what runs here may be part of this replay, and not of another one at the same time."""
        span = context.enclosing()
        return span is None or self._replayer.holds(span)

    def _clock(self, path: str, number: int) -> int | None:
        return self._replayer.recording.clock(self._replayer.relative(path), self._turn(path, number, CLOCK))

    def _turn(self, path: str, number: int, what: bytes) -> Turn:
        span = context.enclosing()
        names = () if span is None else self._replayer.branch(span)
        return Turn(names, next(self._told.setdefault((what, path, names), itertools.count())), number)

    def _line(self, path: str, number: int) -> Line | None:
        entry = self._replayer.recording.noted(
            CONSOLE, self._replayer.relative(path), self._turn(path, number, CONSOLE)
        )
        if entry is None or entry.missing:
            return None
        if entry.redacted:
            self._replayer.notes["a line of the console was given without a credential that it held"] = None
        return Line(unpack(answers.content(self._store, entry)))

    def _beyond(self, path: str, number: int) -> None:
        """Nobody is asked what the recording does not know, unless calls go live, too."""
        replayer = self._replayer
        if replayer.terms.mode != "hybrid" and replayer.holds(context.enclosing()):
            miss = ReplayMiss(f"input() at {path or 'the root'}: a person was asked {number} times, and not once more")
            replayer.failed = replayer.failed or miss
            raise miss


class Moments:
    """When the enclosing span was recorded to begin, in nanoseconds; None where the recording has no such span."""

    def __init__(self, replayer: Replayer, reader: Reader) -> None:
        self._replayer = replayer
        self._starts: defaultdict[str, list[int]] = defaultdict(list)
        self._seen: dict[bytes, int] = {}  # span -> the how-manieth at its path
        self._counts: Counter[str] = Counter()
        recording = replayer.recording
        with reader.connection() as connection:
            number = target.find(connection, recording.run_id).number
            spans = span_views(reader.store, connection, number)
        for span in spans:
            try:
                path = span.path if recording.whole else below(span.path, recording.root_path)
            except ClewError:
                continue
            self._starts[path].append(span.start_ns)

    def __call__(self) -> int | None:
        span = context.enclosing()
        if span is None:
            return None
        path = self._replayer.relative(span.path)
        if span.span_id not in self._seen:
            self._seen[span.span_id] = self._counts[path]
            self._counts[path] += 1
        starts = self._starts.get(path, [])
        number = self._seen[span.span_id]
        return starts[min(number, len(starts) - 1)] if starts else None
