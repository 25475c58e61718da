"""A recording, read back: what a run was answered, found by what is asked and where.

*Lane* and *path* say where: within one run the path below its root; of a whole process, the run by its name and number.
An answer is served to the same request, at the same place and for the same time there. What is not sampled may be asked
elsewhere or more often: the same request has the same answer.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage import target
from clew.lineage.reader import Reader
from clew.lineage.view import run_tree
from clew.replay.answer import unpack
from clew.replay.recording.request import CLOCK, NO_CALL
from clew.store import answers, catalog, record
from clew.store.errors import NotFound, NotRecorded
from clew.store.record import Answer, RecordType, SpanStart
from clew.tracer.run import SEED

Lane = tuple[str, int]  # a run of a process by its name, and the how-manieth of that name; ("", 0) outside any
HERE: Lane = ("", 0)  # in the one run that is replayed


class Place(NamedTuple):
    """Where something is asked."""

    lane: Lane
    path: str


class Time(NamedTuple):
    """For the how-manieth time something is asked at a place: of all times; and in a task that was run again with so many
    answers of a person, of those in such."""

    occurrence: int
    resumed: int
    within: int


@dataclasses.dataclass
class Recording:
    """What was recorded of a run, or of all runs of its process."""

    run_id: str
    name: str
    process_id: str
    whole: bool  # of the process
    started_ns: int
    ended_ns: int | None
    root_path: str
    seed: int | None
    entries: list[tuple[Place, Answer]]
    roots: dict[Lane, tuple[bytes, bytes, bytes]]  # of each run its id, and trace and span of its root
    lane: Lane = HERE  # of the run that was asked for
    begun_ns: int = 0  # of what is replayed; of a replay, of what it replayed

    def __post_init__(self) -> None:
        self._exact: dict[tuple[Place, bytes, int], Answer] = {}
        self._resumed: defaultdict[tuple[Place, bytes, int], list[Answer]] = defaultdict(list)
        self._most: Counter[tuple[Place, bytes]] = Counter()  # how often those of one such run asked
        self._asked: defaultdict[bytes, list[tuple[Place, Answer]]] = defaultdict(list)
        self._near: defaultdict[tuple[Place, str, str], list[Answer]] = defaultdict(list)
        self._noted: defaultdict[tuple[bytes, str], list[Answer]] = defaultdict(list)
        same: defaultdict[tuple[Place, bytes], list[Answer]] = defaultdict(list)
        starts: dict[bytes, int] = {}  # of runs: when each first asked something, as far as the log tells
        for place, entry in self.entries:
            starts[entry.run_id] = min(entry.started_ns, starts.get(entry.run_id, entry.started_ns))
            if entry.request in NO_CALL:
                self._noted[entry.request, place.path].append(entry)
                continue
            self._asked[entry.request].append((place, entry))
            self._near[place, entry.kind, entry.operation].append(entry)
            same[place, entry.request].append(entry)
        for (place, request), found in same.items():
            # A run of its own for each turn of a graph counts from 0: in what is around them, one comes after the other.
            found.sort(key=lambda entry: (starts[entry.run_id], entry.occurrence))
            for at, entry in enumerate(found):
                self._exact[place, request, at] = entry
                self._resumed[place, request, entry.resumed].append(entry)
            runs = Counter(entry.resumed for entry in found)
            self._most[place, request] = max(runs.values())

    @property
    def calls(self) -> list[Answer]:
        """What was asked, without readings of the clock and the like, in the order in which it was answered."""
        return [entry for _, entry in self.entries if entry.request not in NO_CALL]

    def find(self, place: Place, request: bytes, time: Time, *, again: bool) -> Answer | None:
        """What was answered to this request here, for this time. `again`: asked elsewhere or more often, it has the same
        answer.

        How far an interrupted task came, and so how often it asked, is chance where it does several things at once. So its
        runs are told apart by the answers they were given, and one that comes further is given what was answered last, but
        no more often than any of them asked.
        """
        resumed = self._resumed.get((place, request, time.resumed), [])
        if time.within < len(resumed):
            return resumed[time.within]
        found = self._exact.get((place, request, time.occurrence))
        if found is None and again:
            found = self.complete(place, request)
        further = time.resumed and time.within < self._most[place, request]
        return self._last(place, request) if found is None and further else found

    def complete(self, place: Place, request: bytes) -> Answer | None:
        """An answer to this request, here or elsewhere, that the program waited for."""
        found = [(where, entry) for where, entry in self._asked.get(request, ()) if not entry.error and not entry.left]
        here = [entry for where, entry in found if where == place]
        return here[-1] if here else found[0][1] if found else None

    def _last(self, place: Place, request: bytes) -> Answer | None:
        return next((entry for where, entry in reversed(self._asked.get(request, ())) if where == place), None)

    def near(self, place: Place, kind: str, operation: str, number: int) -> Answer | None:
        """What was answered at this place the so-and-so-many-th time that anything of this kind was asked there."""
        found = self._near.get((place, kind, operation), [])
        return found[number] if number < len(found) else None

    def lanes(self, name: str) -> list[Lane]:
        """The runs of this name, those that asked something first, each in the order in which they began."""
        asked = {place.lane for place, _ in self.entries}
        return sorted(
            (lane for lane in {*self.roots, *asked} if lane[0] == name), key=lambda one: (one not in asked, one)
        )

    def begins(self, place: Place, request: bytes) -> bool:
        """Whether this was asked at this place."""
        return (place, request, 0) in self._exact

    def elsewhere(self, request: bytes) -> Place | None:
        """Where else this was asked."""
        found = self._asked.get(request)
        return found[0][0] if found else None

    def clock(self, path: str, number: int) -> int | None:
        """What the clock said at this path when it was read for the so-and-so-many-th time, in nanoseconds."""
        entry = self.noted(CLOCK, path, number)
        return None if entry is None else unpack(entry.answer)

    def noted(self, what: bytes, path: str, number: int) -> Answer | None:
        """What was recorded at this path, the so-and-so-many-th of this, that is no call."""
        found = self._noted.get((what, path), [])
        return found[number] if number < len(found) else None

    def all_noted(self, what: bytes) -> list[Answer]:
        """All that was recorded of this, in the order in which it was."""
        return [entry for _, entry in self.entries if entry.request == what]


def load(reader: Reader, run: Any, *, whole: bool = False) -> Recording:
    """What was recorded of a run and of the runs in it; with `whole`, of its process. NotFound for what is no run,
    NotRecorded where nothing was."""
    with reader.connection() as connection:
        found = target.find(connection, run)
        if found.what != "run":
            raise NotFound(f"{run!r} is not a run")
        table = catalog.run
        row = connection.execute(sa.select(table).where(table.c.id == found.number)).one()
        if whole:
            rows = connection.execute(sa.select(table).where(table.c.process_id == row.process_id)).all()
        else:
            rows = connection.execute(sa.select(table).where(table.c.id.in_(run_tree(connection, row.id)))).all()
        recorded = answers.of_runs(reader.store, connection, [bytes(one.run_id) for one in rows])
        if not recorded and not _asked_nothing(connection, row.id):
            raise NotRecorded(
                f"of run {row.run_id.hex()} ({row.name}) no answers were kept: clew.init(record=True), or CLEW_RECORD=1, "
                "keeps what a replay needs"
            )
        root = _root(reader, connection, row.root)
        path, seed = (root.path, root.attributes.get(SEED)) if root is not None else ("", None)
        lanes = _lanes(rows) if whole else {bytes(one.run_id): HERE for one in rows}
        entries = [
            (Place(lanes[bytes(one.run_id)], one.path if whole else below(one.path, path)), one) for one in recorded
        ]
        return Recording(
            run_id=row.run_id.hex(),
            name=row.name,
            process_id=row.process_id.hex(),
            whole=whole,
            started_ns=row.started_ns,
            ended_ns=row.ended_ns,
            root_path=path,
            seed=seed if type(seed) is int else None,
            entries=entries,
            roots=_roots(connection, rows, lanes) if whole else _roots(connection, [row], lanes),
            lane=lanes[bytes(row.run_id)],
            begun_ns=_begun(connection, next((one for one in rows if one.root is None), row) if whole else row),
        )


def below(path: str, root: str) -> str:
    """The path below the root of a run."""
    return path.removeprefix(f"{root}/") if path != root else ""


def _begun(connection: Connection, row: Any) -> int:
    """When a run began; of a replay, when that did which it replays."""
    table, seen = catalog.run, {bytes(row.run_id)}
    while row.replay_of and bytes(row.replay_of) not in seen:
        seen.add(bytes(row.replay_of))
        found = connection.execute(sa.select(table).where(table.c.run_id == row.replay_of)).first()
        if found is None:
            break
        row = found
    return int(row.started_ns)


def _asked_nothing(connection: Connection, run: int) -> bool:
    """Whether a run made no call that could have been recorded."""
    word = sa.select(catalog.word.c.id).where(catalog.word.c.text.in_(["llm", "tool", "retriever", "embedding"]))
    span = catalog.span.c
    asked = sa.select(span.id).where(span.run.in_(run_tree(connection, run)), span.kind.in_(word)).limit(1)
    return connection.execute(asked).first() is None


def _root(reader: Reader, connection: Connection, root: int | None) -> SpanStart | None:
    """What is recorded of the beginning of a run's root span; None of a process run."""
    if root is None:
        return None
    span = catalog.span.c
    place = connection.execute(sa.select(span.segment, span.start_offset).where(span.id == root)).one()
    payload = reader.store.record(place[0], place[1], RecordType.SPAN_START, connection)
    entry = record.decode(RecordType.SPAN_START, payload)
    assert isinstance(entry, SpanStart)
    return entry


def _roots(
    connection: Connection, rows: Iterable[Any], lanes: dict[bytes, Lane]
) -> dict[Lane, tuple[bytes, bytes, bytes]]:
    span = catalog.span.c
    tops = {row.root: bytes(row.run_id) for row in rows if row.root is not None}
    query = sa.select(span.id, span.trace_id, span.span_id).where(span.id.in_(tops)).order_by(span.start_ns, span.id)
    named: dict[Lane, tuple[bytes, bytes, bytes]] = {}
    for number, trace_id, span_id in connection.execute(query).all():  # the outermost began first
        named.setdefault(lanes[tops[number]], (tops[number], bytes(trace_id), bytes(span_id)))
    return named


def _lanes(rows: Iterable[Any]) -> dict[bytes, Lane]:
    """The lane of each run of a process: that of the outermost one around it."""
    known = {bytes(row.run_id): row for row in rows}
    counts: Counter[str] = Counter()
    lanes: dict[bytes, Lane] = {}
    for name, row in sorted(known.items(), key=lambda one: (one[1].started_ns, one[1].id)):
        if row.root is None:
            lanes[name] = HERE
        elif row.parent_run_id is None or bytes(row.parent_run_id) not in known:
            lanes[name] = (row.name, counts[row.name])
            counts[row.name] += 1
    for name in known:
        above = name
        for _ in known:
            if above in lanes:
                break
            above = bytes(known[above].parent_run_id)
        lanes[name] = lanes.get(above, HERE)
    return lanes
