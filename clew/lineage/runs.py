"""Runs as the indexer follows them: their rows, and what each has seen so far.

A run whose memory is gone (another process began it, or it is long ago) is read again from its spans' records.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage.resolve import Resolver
from clew.lineage.rows import Rows
from clew.lineage.scope import RunScope, SeenSpan
from clew.store import catalog, record
from clew.store.catalog import bound
from clew.store.errors import ClewError, StoreFormatError
from clew.store.record import Artifact, Derivation, RecordType, Run, Segment, SpanEnd, SpanStart
from clew.store.segment import SegmentFile
from clew.store.store import Store

_SCOPES = 512
_KNOWN_RUNS = 8 * _SCOPES
_pack = msgspec.msgpack.Encoder(enc_hook=bytes).encode


class Runs:
    """The runs of one store, followed by its indexer."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rows = Rows()
        self.resolver = Resolver(store, self.rows)
        self._runs: dict[bytes, int] = {}
        self._absent: set[bytes] = set()  # runs that the catalog does not have
        self._ids: dict[int, bytes] = {}
        self._records: dict[bytes, Run] = {}
        self._scopes: OrderedDict[bytes, RunScope] = OrderedDict()

    def forget(self) -> None:
        """Somebody else indexed meanwhile: what is remembered may be stale."""
        self._runs.clear()
        self._absent.clear()
        self._ids.clear()
        self._records.clear()
        self._scopes.clear()
        self.resolver.sources.forget()

    def _let_go(self) -> None:
        """Forget the runs that nothing is followed in: what is asked of one again, the catalog knows."""
        if len(self._runs) > _KNOWN_RUNS:
            self._runs = {run_id: run for run_id, run in self._runs.items() if run_id in self._scopes}
            self._ids = {run: run_id for run_id, run in self._runs.items()}
            self._records = {run_id: entry for run_id, entry in self._records.items() if run_id in self._runs}

    @property
    def _connection(self) -> Connection:
        assert self.rows.connection is not None
        return self.rows.connection

    def _run(self, number: int, entry: Run) -> None:
        run = self._run_number(entry.run_id)
        self._records.setdefault(entry.run_id, entry)
        if run is None:
            fresh = self.rows.new_run(
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
            run = self._remember_run(entry.run_id, fresh)
        values: dict[str, Any] = {}
        if entry.facets:
            values["facets"] = _pack(entry.facets)
        if entry.ended_ns:
            values["ended_ns"] = entry.ended_ns
        if entry.replay_of:
            values["replay_of"] = bound(entry.replay_of)
        if values:
            self.rows.change_run(run, **values)
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
        self.rows.change_run(run, answer=_pack(answer))
        if entry.parent_run_id is not None:
            self._inner_ended(scope, answer)
        elif entry.session is None and scope.process is not None:
            self._scopes.pop(entry.run_id, None)  # nothing looks there again; a span that ends late restores it
            if scope not in self._scopes.values():  # as it is where a run inside it has not ended
                scope.let_go()

    def _inner_ended(self, scope: RunScope, answer: list[int]) -> None:
        scope.child_answer = answer
        scope.answer = []

    def _remember_run(self, run_id: bytes, run: int) -> int:
        self._runs[run_id] = run
        self._ids[run] = run_id
        return run

    def _know_runs(self, run_ids: Iterable[bytes]) -> None:
        """Look up many runs at once, before they are asked for one by one."""
        missing = [run_id for run_id in run_ids if run_id not in self._runs]
        self._absent = set(missing)
        table = catalog.run.c
        for run_id, run in catalog.matching(self._connection, (table.run_id, table.id), table.run_id, missing):
            self._remember_run(run_id, run)
            self._absent.discard(run_id)

    def _run_number(self, run_id: bytes) -> int | None:
        run = self._runs.get(run_id)
        if run is None and run_id not in self._absent:
            run = self._connection.execute(sa.select(catalog.run.c.id).where(catalog.run.c.run_id == run_id)).scalar()
            if run is not None:
                self._remember_run(run_id, run)
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
        inside = parent if parent is not None and self._run_number(parent) is not None else None
        if inside is not None:
            scope = self._scope(inside)  # which has seen this run too
        else:
            process = None if entry.process_id == run_id else self._process_scope(entry.process_id)
            scope = RunScope(run, entry.session, process)
            if entry.session is not None:
                scope.follows(self._session(entry, run))
        self._scopes[run_id] = scope
        if len(self._scopes) > _SCOPES:
            self._scopes.popitem(last=False)
        if inside is None and self.rows.is_older(run):  # its beginning was indexed by somebody else, or forgotten
            self._replay_run(scope, run)
            if entry.process_id == run_id:
                self._replay_declarations(scope, run_id)
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
        waiting = [
            row["run_id"]
            for number, row in self.rows.new_runs.items()
            if number < run and row["session"] == entry.session and row["project"] == entry.project
            if row["parent_run_id"] is None and row["started_ns"] < entry.started_ns
        ]
        scopes = []
        for run_id in [*reversed(list(rows)), *waiting]:
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
                span = catalog.span
                query = sa.select(span.c.trace_id, span.c.span_id).where(span.c.id == row.root)
                trace_id, span_id = self._connection.execute(query).first() or (None, None)
                entry = Run(
                    run_id,
                    row.name,
                    row.started_ns,
                    row.process_id,
                    row.session,
                    trace_id,
                    span_id,
                    row.parent_run_id,
                    row.project,
                )
            self._records[run_id] = entry
        return entry

    def _restored(self, run_id: bytes) -> RunScope:
        """What an earlier run produced, read back from its spans' records. Edges it already has stay."""
        scope = self._scope_without_session(run_id)
        self._replay_run(scope, self._runs[run_id])
        return scope

    def _replay_run(self, scope: RunScope, run: int) -> None:
        """Let a scope see again what a run and the runs inside it did so far."""
        table, span = catalog.run, catalog.span
        tree, frontier = [run], [run]
        roots: set[int] = set()  # of the runs inside it
        while frontier:
            ids = sa.select(table.c.run_id).where(table.c.id.in_(frontier))
            inner = sa.select(table.c.id, table.c.root).where(table.c.parent_run_id.in_(ids), table.c.root.isnot(None))
            found = [row for row in self._connection.execute(inner).all() if row.id not in tree]
            frontier = [row.id for row in found]
            tree += frontier
            roots.update(row.root for row in found)
        spans = self._connection.execute(
            sa.select(span.c.segment, span.c.start_offset, span.c.end_segment, span.c.end_offset, span.c.run).where(
                span.c.run.in_(tree)
            )
        ).all()
        places = [(row[0], row[1], RecordType.SPAN_START, row[4]) for row in spans if row[1] is not None]
        places += [(row[2], row[3], RecordType.SPAN_END, row[4]) for row in spans if row[3] is not None]
        self.rows.muted, before = True, self.rows.muted
        try:
            for segment, offset, kind, owner in sorted(places):  # the order of the log
                self._replay(scope, owner, segment, offset, kind, roots)
        finally:
            self.rows.muted = before

    def _replay_declarations(self, scope: RunScope, process_id: bytes) -> None:
        """Let a process's scope see again its code, its datasets, and the sources that were declared."""
        table = catalog.segment
        query = sa.select(table.c.stem, table.c.header, table.c.indexed).order_by(table.c.id)
        self.rows.muted, before = True, self.rows.muted
        try:
            for stem, header, indexed in self._connection.execute(query).all():
                wrote = record.decode(RecordType.SEGMENT, header)
                if not isinstance(wrote, Segment) or wrote.process_id != process_id:
                    continue
                try:
                    file = SegmentFile(self.store.folder.log / stem)
                except (FileNotFoundError, StoreFormatError):
                    continue
                for frame in file.frames():
                    if frame.end > indexed:
                        break
                    if frame.type in (RecordType.ARTIFACT, RecordType.DERIVATION, RecordType.RUN):
                        self._declared(scope, record.decode(frame.type, frame.payload))
                file.close()
        finally:
            self.rows.muted = before

    def _declared(self, scope: RunScope, entry: Any) -> None:
        sources = self.resolver.sources
        try:
            if isinstance(entry, Artifact) and entry.kind == "dataset":
                sources.dataset(scope, entry)
            elif isinstance(entry, Derivation):
                sources.derivation(scope, entry)
            elif isinstance(entry, Run) and (code := entry.facets.get("code")):
                sources.facet(scope.run, bytes(code))
        except ClewError:  # damaged: the others are read all the same
            pass

    def _replay(self, scope: RunScope, run: int, segment: int, offset: int, kind: RecordType, roots: set[int]) -> None:
        try:
            entry = record.decode(kind, self.store.record(segment, offset, kind, self._connection))
        except ClewError:  # damaged: what this span knew is lost to the runs that follow
            return
        if isinstance(entry, SpanStart):
            self.resolver.started(scope, self._seen(scope, entry, run)[0], entry)
        elif isinstance(entry, SpanEnd):
            seen = scope.spans.get(entry.trace_id + entry.span_id)
            if seen is not None:
                self.resolver.ended(scope, seen, entry)
                if seen.node in roots:
                    self._inner_ended(scope, scope.answer or scope.child_answer or scope.last_response)

    def _scope_without_session(self, run_id: bytes) -> RunScope:
        entry = self._run_record(run_id)
        run = self._run_number(run_id)
        assert run is not None
        scope = RunScope(run, entry.session, self._process_scope(entry.process_id))
        self._scopes[run_id] = scope
        return scope

    def _seen(self, scope: RunScope, entry: SpanStart, run: int) -> tuple[SeenSpan, bool]:
        """A span as it began, and whether the catalog does not know it yet."""
        key = entry.trace_id + entry.span_id
        number = self.rows.find_span(key)
        new = number is None
        if number is None:
            number = self.rows.new_span(key)
        parent = scope.spans.get(entry.trace_id + entry.parent_id) if entry.parent_id else None
        function = "code.function.name" in entry.attributes
        seen = SeenSpan(number, entry.kind, entry.name, parent, run, function)
        scope.spans[key] = seen
        return seen, new

    def _scope_of_span(self, key: bytes, node: int) -> RunScope | None:
        for scope in reversed(self._scopes.values()):
            if key in scope.spans:
                return scope
        row = self._connection.execute(
            sa.select(catalog.run.c.run_id, catalog.run.c.id)
            .join(catalog.span, catalog.span.c.run == catalog.run.c.id)
            .where(catalog.span.c.id == node)
        ).first()
        if row is None:
            return None
        scope = self._scope(row.run_id) if self.rows.is_older(row.id) else self._restored(row.run_id)
        return scope if key in scope.spans else None
