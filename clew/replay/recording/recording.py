"""A recording, read back: what a run was answered, found by what is asked and where.

*Lane* and *path* say where: within one run the path below its root; of a whole process, the run by its name and number.
An answer is served to the same request, at the same place and for the same time there. What is not sampled may be asked
elsewhere or more often: the same request has the same answer.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
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
from clew.tracer.branch import Branch, is_below
from clew.tracer.run import SEED

Lane = tuple[str, int]  # a run of a process by its name, and the how-manieth of that name; ("", 0) outside any
HERE: Lane = ("", 0)  # in the one run that is replayed


class Place(NamedTuple):
    """Where something is asked."""

    lane: Lane
    path: str


class Time(NamedTuple):
    """For the how-manieth time something is asked at a place: of the times in this branch; and in a task that was run again
    with so many answers of a person, of those in such."""

    branch: tuple[str, ...]
    number: int
    resumed: int
    within: int


class Turn(NamedTuple):
    """The how-manieth of its kind something is at a place: in this branch, and in all."""

    branch: tuple[str, ...]
    number: int
    of_all: int


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
        self._branch: defaultdict[tuple[Place, bytes, tuple[str, ...]], list[Answer]] = defaultdict(list)
        self._resumed: defaultdict[tuple[Place, bytes, tuple[str, ...], int], list[Answer]] = defaultdict(list)
        self._most: Counter[tuple[Place, bytes]] = Counter()  # how often those of one such run asked
        self._asked: defaultdict[bytes, list[tuple[Place, Answer]]] = defaultdict(list)
        self._turns: defaultdict[tuple[Any, tuple[str, ...] | None], list[Answer]] = defaultdict(list)
        self._same: defaultdict[tuple[Place, bytes], list[Answer]] = defaultdict(list)
        starts: dict[bytes, int] = {}  # of runs: when each first asked something, as far as the log tells
        for place, entry in self.entries:
            starts[entry.run_id] = min(entry.started_ns, starts.get(entry.run_id, entry.started_ns))
            called = entry.request not in NO_CALL
            kind: Any = (place, entry.kind, entry.operation) if called else (entry.request, place.path)
            for branch in (self._branch_of(entry), None):  # None stands for all
                self._turns[kind, branch].append(entry)
            if not called:
                continue
            self._asked[entry.request].append((place, entry))
            self._same[place, entry.request].append(entry)
        for (place, request), found in self._same.items():
            # A run of its own for each turn of a graph counts from 0: in what is around them, one comes after the other.
            found.sort(key=lambda entry: (starts[entry.run_id], entry.occurrence))
            for entry in found:
                branch = self._branch_of(entry)
                self._branch[place, request, branch].append(entry)
                self._resumed[place, request, branch, entry.resumed].append(entry)
            runs = Counter((self._branch_of(entry), entry.resumed) for entry in found)
            self._most[place, request] = max(runs.values())

    @property
    def calls(self) -> list[Answer]:
        """What was asked, without readings of the clock and the like, in the order in which it was answered."""
        return [entry for _, entry in self.entries if entry.request not in NO_CALL]

    def branch(self, branches: Iterable[Branch], root: str) -> tuple[str, ...]:
        """The names of branches that were started in the run with this root; of all of them for ""."""
        return tuple(one.name for one in branches if not root or is_below(one.path, root))

    def _branch_of(self, entry: Answer) -> tuple[str, ...]:
        return self.branch([Branch(*one) for one in entry.branches], "" if self.whole else self.root_path)

    def find(
        self, place: Place, request: bytes, time: Time, *, again: bool, given: Callable[[Answer], Any] = lambda _: None
    ) -> Answer | None:
        """What was answered to this request here, for this time. `again`: asked elsewhere or more often, it has the same
        answer. `given` tells to which branch an answer was given, None of one that was not.

        How far an interrupted task came, and so how often it asked, is chance where it does several things at once. So its
        runs are told apart by the answers they were given, and one that comes further is given what was answered last, but
        no more often than any of them asked. Which of several branches asks first is chance, too: each has its own answers.
        One that was not recorded gets what no other was given.
        """
        own = self._branch.get((place, request, time.branch), [])
        resumed = self._resumed.get((place, request, time.branch, time.resumed), [])
        found = next(iter(resumed[time.within :] or own[time.number :]), None)
        same = self._same.get((place, request), [])
        if len(own) < len(same) and (found is None or given(found) not in (None, time.branch)):
            found = next((one for one in same if given(one) is None), None)
        if found is None and again:
            found = self.complete(place, request)
        further = time.resumed and time.within < self._most[place, request]
        return (own or same)[-1] if found is None and further else found

    def complete(self, place: Place, request: bytes) -> Answer | None:
        """An answer to this request, here or elsewhere, that the program waited for."""
        found = [(where, entry) for where, entry in self._asked.get(request, ()) if not entry.error and not entry.left]
        here = [entry for where, entry in found if where == place]
        return here[-1] if here else found[0][1] if found else None

    def near(self, place: Place, kind: str, operation: str, turn: Turn) -> Answer | None:
        """What was answered at this place when something of this kind was asked there at its turn."""
        return self._at((place, kind, operation), turn)

    def _at(self, kind: Any, turn: Turn) -> Answer | None:
        own = self._turns.get((kind, turn.branch))
        found, number = (own, turn.number) if own else (self._turns.get((kind, None), []), turn.of_all)
        return found[number] if number < len(found) else None

    def lanes(self, name: str) -> list[Lane]:
        """The runs of this name, those that asked something first, each in the order in which they began."""
        asked = {place.lane for place, _ in self.entries}
        return sorted(
            (lane for lane in {*self.roots, *asked} if lane[0] == name), key=lambda one: (one not in asked, one)
        )

    def begins(self, place: Place, request: bytes) -> bool:
        """Whether this was asked at this place."""
        return (place, request) in self._same

    def elsewhere(self, request: bytes) -> Place | None:
        """Where else this was asked."""
        found = self._asked.get(request)
        return found[0][0] if found else None

    def clock(self, path: str, turn: Turn) -> int | None:
        """What the clock said at this path at this turn, in nanoseconds."""
        entry = self.noted(CLOCK, path, turn)
        return None if entry is None else unpack(entry.answer)

    def noted(self, what: bytes, path: str, turn: Turn) -> Answer | None:
        """What was recorded at this path, at its turn of this, that is no call."""
        return self._at((what, path), turn)

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

    def kinds(*names: str) -> Any:
        return sa.select(catalog.word.c.id).where(catalog.word.c.text.in_(names))

    span = catalog.span.c
    cached = sa.select(catalog.action_use.c.span)
    calls = sa.or_(
        span.kind.in_(kinds("llm", "tool", "retriever", "embedding")),
        sa.and_(span.kind.in_(kinds("chain")), span.id.in_(cached)),  # a function of `clew.cached`
    )
    asked = sa.select(span.id).where(span.run.in_(run_tree(connection, run)), calls)
    return connection.execute(asked.limit(1)).first() is None


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
