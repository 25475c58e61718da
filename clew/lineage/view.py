"""Runs and spans as a reader sees them: ids in hex, attributes as they were recorded, content on demand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage.index import writer_state
from clew.store import catalog, record
from clew.store.digest import Digest
from clew.store.errors import ClewError
from clew.store.record import RecordType, Slot, SpanEnd, SpanStart
from clew.store.store import Store
from clew.store.vocabulary import implied_attributes


@dataclasses.dataclass
class RunView:
    """A run. Times in nanoseconds."""

    run_id: str
    name: str
    session: str | None
    status: str
    started_ns: int
    duration_ns: int | None
    project: str
    process: bool
    parent_run_id: str | None
    process_id: str
    replay_of: str | None = None

    @property
    def id(self) -> str:
        """The run's id."""
        return self.run_id

    def to_dict(self) -> dict[str, Any]:
        """The run as it stands in the JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass
class SlotView:
    """One thing a span used or generated."""

    role: str
    kind: str
    digest: str
    domain: int
    name: str | None
    info: dict[str, Any]
    _store: Store = dataclasses.field(repr=False)

    @property
    def value(self) -> Any:
        """The captured value, read from the store."""
        return self._store.value(self.domain, Digest.parse(self.digest))

    def to_dict(self) -> dict[str, Any]:
        """The slot as it stands in the JSON; content is read by digest."""
        found = {"role": self.role, "kind": self.kind, "digest": self.digest}
        if self.name:
            found["name"] = self.name
        return {**found, **({"info": self.info} if self.info else {})}


@dataclasses.dataclass
class SpanView:
    """A span. `parent_id` is None at the top of its trace; `scope` is the instrumentation that made it."""

    span_id: str
    trace_id: str
    parent_id: str | None
    run_id: str
    name: str
    kind: str
    status: str
    start_ns: int
    end_ns: int | None
    _session: str | None = dataclasses.field(repr=False)
    _store: Store = dataclasses.field(repr=False)
    _place: list[Any] = dataclasses.field(repr=False)

    @cached_property
    def _records(self) -> tuple[SpanStart | None, SpanEnd | None]:
        segment, start, end_segment, end = self._place
        opened = closed = None
        if start is not None:
            opened = record.decode(RecordType.SPAN_START, self._store.record(segment, start, RecordType.SPAN_START))
        if end is not None and end_segment is not None:
            closed = record.decode(RecordType.SPAN_END, self._store.record(end_segment, end, RecordType.SPAN_END))
        return opened, closed  # type: ignore[return-value]

    @property
    def attributes(self) -> dict[str, Any]:
        """What the kind implies, attributes at start and end, and the digests of what went in and out."""
        opened, closed = self._records
        found: dict[str, Any] = {}
        for part in (opened, closed):
            if part is not None:
                found.update(part.attributes)
        if self.scope == "clew":
            found = implied_attributes(self.kind, self.name, self.run_id, self._session, found) | found
        for side, slots in (("in", self.used), ("out", self.generated)):
            if slots:
                found[f"clew.{side}.digests"] = [slot.digest for slot in slots[:256]]
                found[f"clew.{side}.roles"] = [slot.role for slot in slots[:256]]
                found[f"clew.{side}.count"] = len(slots)
        return found

    @property
    def used(self) -> list[SlotView]:
        """What the span used."""
        opened, closed = self._records
        return self._slots([*(opened.used if opened else []), *(closed.used if closed else [])])

    @property
    def generated(self) -> list[SlotView]:
        """What the span generated."""
        closed = self._records[1]
        return self._slots(closed.generated if closed else [])

    @property
    def path(self) -> str:
        """The span path: the same from run to run."""
        opened = self._records[0]
        return opened.path if opened else self.name

    @property
    def scope(self) -> str:
        """The instrumentation scope that made the span."""
        opened = self._records[0]
        return opened.scope if opened else ""

    @property
    def events(self) -> list[Any]:
        """Events of another library's span: [name, time, attributes]."""
        closed = self._records[1]
        return closed.events if closed else []

    @property
    def links(self) -> list[tuple[str, str, str]]:
        """Links: trace id, span id, type."""
        closed = self._records[1]
        return [(one[0].hex(), one[1].hex(), one[2]) for one in closed.links] if closed else []

    def _slots(self, slots: list[Slot]) -> list[SlotView]:
        return [
            SlotView(s.role, s.kind, str(Digest(s.digest)), s.domain, s.name, s.info or {}, self._store) for s in slots
        ]

    def to_dict(self, *, content: bool = False) -> dict[str, Any]:
        """The span as it stands in the JSON; with `content`, the values too."""
        found: dict[str, Any] = {
            "span_id": self.span_id,
            "trace_id": self.trace_id,
            "parent_id": self.parent_id,
            "run_id": self.run_id,
            "name": self.name,
            "kind": self.kind,
            "status": self.status,
            "start_ns": self.start_ns,
            "end_ns": self.end_ns,
            "path": self.path,
            "scope": self.scope,
            "attributes": self.attributes,
            "used": [slot.to_dict() for slot in self.used],
            "generated": [slot.to_dict() for slot in self.generated],
        }
        if content:
            for side, slots in (("used", self.used), ("generated", self.generated)):
                for slot, shown in zip(slots, found[side], strict=True):
                    try:
                        shown["value"] = slot.value
                    except ClewError as error:
                        shown["missing"] = str(error)
        return found


_span, _run = catalog.span.c, catalog.run.c
_SPAN_COLUMNS = (
    _span.span_id,
    _span.trace_id,
    _span.parent_id,
    _run.run_id,
    _span.name,
    _span.kind,
    _span.status,
    _span.start_ns,
    _span.end_ns,
    _run.session,
    _span.segment,  # from here on its place in the log
    _span.start_offset,
    _span.end_segment,
    _span.end_offset,
)


def segment_states(connection: Connection) -> dict[int, str]:
    """Segment -> what became of its writer: "alive", "ended", "dead", "unknown"."""
    segment, ended = catalog.segment.c, ended_processes(connection)
    return {row[0]: writer_state(row[1], ended) for row in connection.execute(sa.select(segment.id, segment.header))}


def ended_processes(connection: Connection) -> set[bytes]:
    """The process runs that said that they ended."""
    run = catalog.run.c
    over = sa.select(run.run_id).where(run.run_id == run.process_id, run.ended_ns.isnot(None))
    return set(connection.execute(over).scalars())


def shown_status(status: str, segment: int, states: dict[int, str]) -> str:
    """What "running" means when its writer is gone."""
    if status != "running":
        return status
    gone = {"ended": "closed_early", "dead": "killed", "unknown": "unknown"}
    return gone.get(states.get(segment, "unknown"), "running")


def run_views(store: Store, connection: Connection, *, everything: bool = False) -> list[RunView]:
    """All runs, newest first."""
    query = sa.select(catalog.run).order_by(catalog.run.c.started_ns.desc(), catalog.run.c.id.desc())
    if not everything:
        query = query.where(catalog.run.c.root.isnot(None), catalog.run.c.parent_run_id.is_(None))
    states = segment_states(connection)
    found = []
    for row in connection.execute(query):
        ended = row.ended_ns
        status = shown_status(row.status, row.segment, states)
        if row.root is None and status in ("closed_early", "killed"):
            status = "ok"  # a process run's end is its process's, and a killed one could not write it
        found.append(
            RunView(
                row.run_id.hex(),
                row.name,
                row.session,
                status,
                row.started_ns,
                ended - row.started_ns if ended else None,
                row.project,
                row.root is None,
                row.parent_run_id.hex() if row.parent_run_id else None,
                row.process_id.hex(),
                row.replay_of.hex() if row.replay_of else None,
            )
        )
    return found


def span_views(
    store: Store, connection: Connection, run: int | None, *, only: int | Sequence[int] | None = None
) -> list[SpanView]:
    """Spans in the order they began: of a run, `only` some, or all."""
    table = catalog.span
    words = {row[0]: row[1] for row in connection.execute(sa.select(catalog.word))}
    query = sa.select(*_SPAN_COLUMNS).join(catalog.run, catalog.run.c.id == table.c.run)
    if only is not None:
        query = query.where(table.c.id == only if isinstance(only, int) else table.c.id.in_(only))
    elif run is not None:
        query = query.where(table.c.run.in_(run_tree(connection, run)))
    states = segment_states(connection)
    rows = connection.execute(query.order_by(table.c.start_ns, table.c.id)).all()
    return [
        SpanView(
            span_id.hex(),
            trace_id.hex(),
            parent_id.hex() if parent_id else None,
            run_id.hex(),
            words[name],
            words[kind],
            shown_status(status, place[0], states),
            start_ns,
            end_ns,
            session,
            store,
            place,
        )
        for span_id, trace_id, parent_id, run_id, name, kind, status, start_ns, end_ns, session, *place in rows
    ]


def run_tree(connection: Connection, run: int) -> list[int]:
    """A run and the runs inside it."""
    found, frontier = [run], [run]
    while frontier:
        ids = sa.select(catalog.run.c.run_id).where(catalog.run.c.id.in_(frontier))
        inner = sa.select(catalog.run.c.id).where(catalog.run.c.parent_run_id.in_(ids))
        frontier = [one for one in connection.execute(inner).scalars() if one not in found]
        found.extend(frontier)
    return found
