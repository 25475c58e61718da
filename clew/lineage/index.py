"""Indexing: reading logs into the catalog, and making edges while reading.

One indexer per store at a time. Every record is idempotent on its natural key, so reading a log again changes nothing.
A batch is one transaction: its rows and how far its segment was read commit together.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage.resolve import Resolver
from clew.lineage.rows import Rows
from clew.lineage.scope import RunScope, SeenSpan
from clew.store import backend, catalog, record, segment, writer
from clew.store.catalog import Relation, Scope
from clew.store.digest import Digest, Domain
from clew.store.errors import ClewError
from clew.store.folder import Folder
from clew.store.log import Log
from clew.store.record import Artifact, Derivation, Lost, RecordType, Ref, Run, Segment, SpanEnd, SpanStart
from clew.store.segment import Frame, SegmentFile
from clew.store.store import Store

_BATCH = 5_000
_SCOPES = 512
_pack = msgspec.msgpack.Encoder(enc_hook=bytes).encode


class Indexer:
    """Reads logs into one store's catalog."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rows = Rows()
        self.resolver = Resolver(store, self.rows)
        self._runs: dict[bytes, int] = {}
        self._records: dict[bytes, Run] = {}
        self._scopes: OrderedDict[bytes, RunScope] = OrderedDict()
        self._segments: dict[str, tuple[int, int, str]] = {}
        self.damaged: list[str] = []

    def catch_up(self, stems: list[Path]) -> int:
        """Index what is new in these segments; returns how many records were read."""
        count = 0
        for stem in stems:
            count += self._segment(stem)
        return count

    def _segment(self, stem: Path) -> int:
        known = self._segments.get(stem.name)
        if known is not None and known[2] == "sealed":
            return 0
        try:
            file = SegmentFile(stem)
        except FileNotFoundError:  # collected meanwhile
            return 0
        count = 0
        try:
            if known is not None and file.size <= known[1] and not file.sealed:
                return 0
            with self.store.read() as connection:
                row = connection.execute(
                    sa.select(catalog.segment.c.id, catalog.segment.c.indexed, catalog.segment.c.state).where(
                        catalog.segment.c.stem == stem.name
                    )
                ).first()
            number, done, state = (row[0], row[1], row[2]) if row is not None else (0, 0, "")
            damaged: list[int] = []
            frames: list[Frame] = []
            size = 0
            for frame in file.frames(done, damaged):
                frames.append(frame)
                size += len(frame.payload)
                if len(frames) >= _BATCH or size > 32 << 20:
                    number = self._batch(stem, number, frames, None)
                    count += len(frames)
                    frames, size = [], 0
            state_now = "sealed" if file.sealed else "open"
            if frames or number == 0 or state != state_now:
                number = self._batch(stem, number, frames, state_now if number or frames else None, damaged)
                count += len(frames)
            self._segments[stem.name] = (number, frames[-1].end if frames else max(done, file.size), state_now)
        finally:
            file.close()
        return count

    def _batch(
        self, stem: Path, number: int, frames: list[Frame], state: str | None, damaged: list[int] | None = None
    ) -> int:
        if not frames and number == 0:
            return 0
        try:
            with self.store.write() as connection:
                if self.rows.begin(connection):
                    self._runs.clear()
                    self._records.clear()
                    self._scopes.clear()
                if number == 0:
                    number = self._new_segment(connection, stem, frames[0])
                self._read(number, frames)
                self.rows.flush()
                values: dict[str, Any] = {"indexed": frames[-1].end} if frames else {}
                if state:
                    values["state"] = state
                if damaged:
                    values["damaged"] = len(damaged)
                if values:
                    connection.execute(
                        sa.update(catalog.segment).where(catalog.segment.c.id == number).values(**values)
                    )
        except BaseException:
            self.rows.forget()
            raise
        finally:
            self.rows.connection = None
        return number

    def _new_segment(self, connection: Connection, stem: Path, first: Frame) -> int:
        number: int = (connection.execute(sa.select(sa.func.max(catalog.segment.c.id))).scalar() or 0) + 1
        connection.execute(
            sa.insert(catalog.segment).values(
                id=number, stem=stem.name, header=first.payload, indexed=0, damaged=0, state="open"
            )
        )
        return number

    # -- records

    def _read(self, number: int, frames: list[Frame]) -> None:
        later: list[tuple[Frame, Any]] = []
        remember = self.store.remember
        for frame in frames:  # content first, and what is known of runs
            if frame.type == RecordType.BLOB:
                name = Digest(frame.payload[1:33])
                self.rows.blobs.append((frame.payload[1:33], number, frame.offset))
                remember(name, Domain(frame.payload[0]), frame.payload[33:])
                continue
            entry = record.decode(frame.type, frame.payload)
            if entry is not None:
                later.append((frame, entry))
                if isinstance(entry, Run):
                    self._run(number, entry)
        catalog.insert(self._connection, catalog.blob, ("digest", "segment", "offset"), self.rows.blobs)
        self.rows.blobs = []
        for frame, entry in later:
            match entry:
                case SpanStart():
                    self._start(number, frame, entry)
                case SpanEnd():
                    self._end(number, frame, entry)
                case Derivation():
                    self.resolver.sources.derivation(self._scope(entry.run_id), entry)
                case Artifact():
                    self._artifact(entry)
                case Ref():
                    self._ref(entry)
                case Lost():
                    self._lost(number, frame, entry)
                case Run() if entry.ended_ns:
                    self._run_ended(entry)

    @property
    def _connection(self) -> Connection:
        assert self.rows.connection is not None
        return self.rows.connection

    def _run(self, number: int, entry: Run) -> None:
        connection = self._connection
        run = self._run_number(entry.run_id)
        self._records.setdefault(entry.run_id, entry)
        if run is None:
            run = self._runs[entry.run_id] = self.rows.next_run()
            connection.execute(
                sa.insert(catalog.run).values(
                    id=run,
                    run_id=entry.run_id,
                    name=entry.name,
                    project=entry.project,
                    session=entry.session,
                    process_id=entry.process_id,
                    parent_run_id=entry.parent_run_id,
                    started_ns=entry.started_ns,
                    status="running",
                    segment=number,
                )
            )
        values: dict[str, Any] = {}
        if entry.facets:
            values["facets"] = _pack(entry.facets)
        if entry.ended_ns:
            values["ended_ns"] = entry.ended_ns
        if values:
            connection.execute(sa.update(catalog.run).where(catalog.run.c.id == run).values(**values))
        code = entry.facets.get("code")
        if code:
            self.resolver.sources.facet(run, bytes(code))

    def _run_ended(self, entry: Run) -> None:
        scope = self._scope(entry.run_id)
        run = self._runs[entry.run_id]
        answer = scope.answer
        if entry.parent_run_id is None and not entry.answer and not answer:
            answer = scope.child_answer or scope.last_response
        if entry.answer or entry.trace_id is not None:
            answer = answer or scope.child_answer or scope.last_response
        self._connection.execute(
            sa.update(catalog.run).where(catalog.run.c.id == run).values(answer=_pack(answer))
        )
        if entry.parent_run_id is not None:
            scope.child_answer = answer
            scope.answer = []

    def _run_number(self, run_id: bytes) -> int | None:
        run = self._runs.get(run_id)
        if run is None:
            run = self._connection.execute(
                sa.select(catalog.run.c.id).where(catalog.run.c.run_id == run_id)
            ).scalar()
            if run is not None:
                self._runs[run_id] = run
        return run

    def _scope(self, run_id: bytes) -> RunScope:
        scope = self._scopes.get(run_id)
        if scope is not None:
            self._scopes.move_to_end(run_id)
            return scope
        entry = self._run_record(run_id)
        run = self._run_number(run_id)
        assert run is not None
        parent = entry.parent_run_id
        if parent is not None and self._run_number(parent) is not None:
            scope = self._scope(parent)
        else:
            process = None if entry.process_id == run_id else self._process_scope(entry.process_id)
            scope = RunScope(run, entry.session, process)
            if entry.session is not None:
                scope.earlier = self._session(entry, run)
        self._scopes[run_id] = scope
        if len(self._scopes) > _SCOPES:
            self._scopes.popitem(last=False)
        return scope

    def _process_scope(self, process_id: bytes) -> RunScope | None:
        return self._scope(process_id) if self._run_number(process_id) is not None else None

    def _session(self, entry: Run, run: int) -> list[RunScope]:
        """Scopes of the session's earlier runs. One that is not in memory is read again from its log."""
        table = catalog.run
        rows = self._connection.execute(
            sa.select(table.c.run_id)
            .where(
                table.c.session == entry.session,
                table.c.project == entry.project,
                table.c.parent_run_id.is_(None),
                table.c.started_ns < entry.started_ns,
                table.c.id != run,
            )
            .order_by(table.c.started_ns.desc())
            .limit(200)
        ).scalars()
        scopes = []
        for run_id in reversed(list(rows)):
            scope = self._scopes.get(run_id)
            scopes.append(scope if scope is not None else self._restored(run_id))
        return scopes

    def _run_record(self, run_id: bytes) -> Run:
        entry = self._records.get(run_id)
        if entry is None:
            row = self._connection.execute(sa.select(catalog.run).where(catalog.run.c.run_id == run_id)).first()
            if row is None:  # its record is lost: a run that only its spans tell of
                entry = Run(run_id, "unknown", 0, run_id)
                self._run(0, entry)
            else:
                entry = Run(
                    run_id, row.name, row.started_ns, row.process_id, row.session, None, None, row.parent_run_id, row.project
                )
            self._records[run_id] = entry
        return entry

    def _restored(self, run_id: bytes) -> RunScope:
        """What an earlier run produced, read back from its spans' records: edges it already has are kept as they are."""
        scope = self._scope_without_session(run_id)
        run = self._runs[run_id]
        spans = self._connection.execute(
            sa.select(catalog.span.c.segment, catalog.span.c.start_offset, catalog.span.c.end_offset)
            .where(catalog.span.c.run == run)
            .order_by(catalog.span.c.start_ns)
        ).all()
        for segment_number, start, end in spans:
            try:
                if start is not None:
                    payload = self.store.record(segment_number, start, RecordType.SPAN_START)
                    opened = record.decode(RecordType.SPAN_START, payload)
                    assert isinstance(opened, SpanStart)
                    seen = self._seen(scope, opened, run)
                    self.resolver.started(scope, seen, opened)
                if end is not None and end >= 0:
                    payload = self.store.record(segment_number, end, RecordType.SPAN_END)
                    closed = record.decode(RecordType.SPAN_END, payload)
                    assert isinstance(closed, SpanEnd)
                    seen_end = scope.spans.get(closed.trace_id + closed.span_id)
                    if seen_end is not None:
                        self.resolver.ended(scope, seen_end, closed)
            except ClewError:
                continue
        return scope

    def _scope_without_session(self, run_id: bytes) -> RunScope:
        entry = self._run_record(run_id)
        run = self._run_number(run_id)
        assert run is not None
        scope = RunScope(run, entry.session, self._process_scope(entry.process_id))
        self._scopes[run_id] = scope
        return scope

    def _seen(self, scope: RunScope, entry: SpanStart, run: int) -> SeenSpan:
        key = entry.trace_id + entry.span_id
        number = self.rows.find_span(key)
        if number is None:
            number = self.rows.new_span(key)
        parent = scope.spans.get(entry.trace_id + entry.parent_id) if entry.parent_id else None
        function = "code.function.name" in entry.attributes
        seen = SeenSpan(number, entry.kind, entry.name, parent, run, function)
        scope.spans[key] = seen
        return seen

    def _start(self, number: int, frame: Frame, entry: SpanStart) -> None:
        scope = self._scope(entry.run_id)
        run = self._runs[entry.run_id]
        known = self.rows.find_span(entry.trace_id + entry.span_id)
        seen = self._seen(scope, entry, run)
        if known is None:
            self.rows.new_spans[seen.node] = [
                seen.node,
                entry.span_id,
                entry.trace_id,
                entry.parent_id,
                run,
                self.rows.word(entry.kind),
                self.rows.word(entry.name),
                entry.start_ns,
                None,
                "running",
                number,
                frame.offset,
                None,
            ]
        recorded = self._records.get(entry.run_id)
        if recorded is not None and recorded.span_id == entry.span_id:
            self._connection.execute(
                sa.update(catalog.run).where(catalog.run.c.id == run).values(root=seen.node)
            )
        self.resolver.started(scope, seen, entry)

    def _end(self, number: int, frame: Frame, entry: SpanEnd) -> None:
        key = entry.trace_id + entry.span_id
        node = self.rows.find_span(key)
        if node is None:
            return  # its start is lost with a damaged record; nothing says which run it belongs to
        fresh = self.rows.new_spans.get(node)
        if fresh is not None:
            fresh[8], fresh[9], fresh[12] = entry.end_ns, entry.status, frame.offset
            if entry.name:
                fresh[6] = self.rows.word(entry.name)
        else:
            self.rows.span_ends.append(
                {"number": node, "a_end_ns": entry.end_ns, "a_status": entry.status, "a_offset": frame.offset}
            )
        scope = self._scope_of_span(key, node)
        if scope is None:
            return
        seen = scope.spans[key]
        self.resolver.ended(scope, seen, entry)
        recorded = self._records.get(self._run_id(seen.run))
        if recorded is not None and recorded.span_id == entry.span_id:
            self._connection.execute(
                sa.update(catalog.run)
                .where(catalog.run.c.id == seen.run)
                .values(status=entry.status, ended_ns=entry.end_ns)
            )

    def _run_id(self, run: int) -> bytes:
        return next((run_id for run_id, number in self._runs.items() if number == run), b"")

    def _scope_of_span(self, key: bytes, node: int) -> RunScope | None:
        for scope in reversed(self._scopes.values()):
            if key in scope.spans:
                return scope
        run_id = self._connection.execute(
            sa.select(catalog.run.c.run_id).join(catalog.span, catalog.span.c.run == catalog.run.c.id).where(
                catalog.span.c.id == node
            )
        ).scalar()
        if run_id is None:
            return None
        scope = self._restored(run_id)
        return scope if key in scope.spans else None

    def _artifact(self, entry: Artifact) -> None:
        if entry.kind == "dataset":
            self.resolver.sources.dataset(self._scope(entry.run_id), entry)
            return
        if entry.kind == "document" and "text" in entry.detail:  # captured without content
            node, _ = self.rows.node(entry.digest, Scope.GLOBAL, "document", domain=entry.domain)
            self.rows.leaves.add((bytes(entry.detail["text"]), node))
            return
        node, new = self.rows.node(
            entry.digest, Scope.GLOBAL, entry.kind, domain=entry.domain, name=entry.name, detail=entry.detail
        )
        if not new:
            self.rows.name_node(node, entry.name, entry.detail)
        space = entry.detail.get("space")
        if entry.kind == "index" and space:
            model = self.resolver.global_node("model", int(Domain.VALUE), Digest.parse(str(space)))
            self.rows.edge(node, model, Relation.DERIVED)
        for slot in entry.used:
            cause = self.resolver.global_node(slot.kind, slot.domain, slot.digest, slot.name)
            self.rows.edge(node, cause, Relation.DERIVED)

    def _ref(self, entry: Ref) -> None:
        row = (
            entry.name,
            entry.version,
            entry.kind,
            bytes(entry.digest),
            entry.when_ns,
            entry.who,
            entry.alias,
        )
        columns = ("name", "version", "kind", "digest", "when_ns", "who", "alias")
        catalog.insert(self._connection, catalog.ref_history, columns, [row])
        self._connection.execute(
            sa.delete(catalog.ref).where(catalog.ref.c.name == entry.name, catalog.ref.c.version < entry.version)
        )
        catalog.insert(
            self._connection,
            catalog.ref,
            ("name", "version", "kind", "digest", "alias"),
            [(entry.name, entry.version, entry.kind, bytes(entry.digest), entry.alias)],
        )
        self.rows.node(entry.digest, Scope.GLOBAL, entry.kind)

    def _lost(self, number: int, frame: Frame, entry: Lost) -> None:
        columns = ("segment", "offset", "place", "count", "error", "when_ns")
        rows = [
            (number, frame.offset, place, count, error, entry.when_ns) for place, (count, error) in entry.counts.items()
        ]
        catalog.insert(self._connection, catalog.lost, columns, rows)


_shared: dict[tuple[int, Path], tuple[Store, Indexer]] = {}
_shared_lock = threading.Lock()


def shared(folder: Folder) -> tuple[Store, Indexer]:
    """The open store and indexer of this process for a folder; a forked child makes its own."""
    key = (os.getpid(), folder.path)
    with _shared_lock:
        found = _shared.get(key)
        if found is None:
            store = Store(folder)
            found = _shared[key] = (store, Indexer(store))
        return found


def forget(folder: Folder) -> None:
    """Close the shared store of a folder, so that its files may go."""
    with _shared_lock:
        found = _shared.pop((os.getpid(), folder.path), None)
    if found is not None:
        found[0].close()


def index_store(folder: Folder, *, only: Log | None = None, wait: bool = True) -> int:
    """Catch up with every log of a store, or with `only` one. Returns the records read.

    With `wait=False` it does nothing while somebody else is indexing.
    """
    store, indexer = shared(folder)
    with backend.exclusive(store.engine, folder.lock, "index", wait=wait) as got:
        if not got:
            return 0
        if only is not None:
            stems = [*only.closed_stems, *([only.stem] if only.stem is not None else [])]
        else:
            stems = segment.stems(folder.log)
        return indexer.catch_up(stems)


def writer_state(header: bytes) -> str:
    """ "alive", "dead" or "unknown": the process that wrote a segment."""
    found = record.decode(RecordType.SEGMENT, header)
    return writer.state(found) if isinstance(found, Segment) else "unknown"
