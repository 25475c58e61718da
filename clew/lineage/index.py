"""Indexing: reading logs into the catalog, and making edges while reading.

One indexer per store at a time. Every record is idempotent on its natural key, so reading a log again changes nothing.
A batch is one transaction: its rows and how far its segment was read commit together.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage.runs import Runs
from clew.store import action, answers, backend, catalog, record, ref, segment, writer
from clew.store.catalog import Relation, Scope, bound
from clew.store.digest import DOMAINS, Digest, Domain
from clew.store.errors import CorruptRecord, StoreFormatError
from clew.store.folder import Folder
from clew.store.log import Log
from clew.store.record import (
    Action,
    Answer,
    Artifact,
    Derivation,
    Evicted,
    Lost,
    RecordType,
    Ref,
    Run,
    Segment,
    SpanEnd,
    SpanStart,
)
from clew.store.segment import Frame, SegmentFile
from clew.store.store import Store

_BATCH = 4_000  # records in one transaction: a second at most
_BATCH_BYTES = 32 << 20
_TAKEN = 16  # records that are taken from a segment at once
_DECODED = 256  # of which so many are decoded at once: what is alive together is what the garbage collector visits
_BLOB = RecordType.BLOB


class Indexer(Runs):
    """Reads logs into one store's catalog."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._segments: dict[str, tuple[int, int, str]] = {}
        self._stopped: Callable[[], bool] = lambda: False
        self._unread = 0  # records of the batch that say what no record can say

    def catch_up(self, stems: list[Path], *, stopped: Callable[[], bool] = lambda: False) -> int:
        """Index what is new in these segments, until `stopped`; returns how many records were read."""
        count = 0
        self._stopped = stopped
        for stem in stems:
            if stopped():
                break
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
        except StoreFormatError:  # cut short: no reason to refuse what the others hold; `clew doctor` names it
            return 0
        try:
            if known is not None and not file.sealed and file.ends_at(known[1]):
                return 0
            with self.store.read() as connection:
                row = connection.execute(
                    sa.select(catalog.segment.c.id, catalog.segment.c.indexed, catalog.segment.c.state).where(
                        catalog.segment.c.stem == stem.name
                    )
                ).first()
            number, done, state = (row[0], row[1], row[2]) if row is not None else (0, 0, "")
            return self._frames(file, number, done, state)
        finally:
            file.close()

    def _frames(self, file: SegmentFile, number: int, done: int, state: str) -> int:
        """Index a segment from `done` on, in batches."""
        count = 0
        damaged: list[int] = []
        frames: list[Frame] = []
        end = file.size
        source = file.frames(done, damaged, before=end)  # who writes faster than this reads must not hold up a query
        while part := list(itertools.islice(source, _TAKEN)):
            frames += part
            if len(frames) >= _BATCH or part[-1].end - frames[0].offset > _BATCH_BYTES:
                number = self._batch(file.stem, number, frames, None)
                count += len(frames)
                if self._stopped():
                    return count
                frames = []
        state_now = "sealed" if file.sealed else "open"
        if frames or number == 0 or state != state_now:
            number = self._batch(file.stem, number, frames, state_now if number or frames else None, damaged)
            count += len(frames)
        self._segments[file.stem.name] = (number, frames[-1].end if frames else done, state_now)
        return count

    def _batch(
        self, stem: Path, number: int, frames: list[Frame], state: str | None, damaged: list[int] | None = None
    ) -> int:
        if not frames and number == 0:
            return 0
        self._unread = 0
        try:
            with self.store.write() as connection:
                if self.rows.begin(connection):
                    self.forget()
                if number == 0:
                    number = self._new_segment(connection, stem, frames[0])
                for start in range(0, len(frames), _DECODED):
                    self._read(stem.name, number, frames[start : start + _DECODED])
                self.rows.flush()
                values: dict[str, Any] = {"indexed": frames[-1].end} if frames else {}
                if state:
                    values["state"] = state
                if damaged or self._unread:
                    values["damaged"] = catalog.segment.c.damaged + len(damaged or ()) + self._unread
                if values:
                    connection.execute(
                        sa.update(catalog.segment).where(catalog.segment.c.id == number).values(**values)
                    )
            self._let_go()
        except BaseException:
            self.rows.forget()
            raise
        finally:
            self.rows.connection = None
            self.resolver.settle()
        return number

    def _new_segment(self, connection: Connection, stem: Path, first: Frame) -> int:
        number: int = (connection.execute(sa.select(sa.func.max(catalog.segment.c.id))).scalar() or 0) + 1
        connection.execute(
            sa.insert(catalog.segment).values(
                id=number, stem=stem.name, header=first.payload, indexed=0, damaged=0, state="open"
            )
        )
        return number

    def _read(self, stem: str, number: int, frames: list[Frame]) -> None:
        later: list[tuple[Frame, Any]] = []
        runs: list[Run] = []
        spans: list[bytes] = []
        self._content(number, [one for one in frames if one.type == _BLOB])  # first, then what is known of runs
        for frame in [one for one in frames if one.type != _BLOB]:
            try:
                entry = record.decode(frame.type, frame.payload)
            except CorruptRecord:
                self._unread += 1
                continue
            if entry is None:
                continue
            later.append((frame, entry))
            if isinstance(entry, (SpanStart, SpanEnd)):
                spans.append(entry.trace_id + entry.span_id)
            elif isinstance(entry, Run):
                runs.append(entry)
        self._know_runs(entry.run_id for entry in runs)
        for entry in runs:
            self._run(number, entry)
        self.rows.know_spans(spans)
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
                case Action():
                    action.insert(self._connection, [(entry, stem, frame.offset)], fields=True)
                case Answer():
                    answers.insert(self._connection, number, frame.offset, entry)
                case Evicted():
                    action.evicted(self._connection, entry, stem, frame.offset)
                case Ref():
                    self._ref(entry)
                case Lost():
                    self._lost(number, frame, entry)
                case Run() if entry.ended_ns and entry.run_id != entry.process_id:
                    self._run_ended(entry)

    def _content(self, number: int, blobs: list[Frame]) -> None:
        places = [(bound(frame.payload[1:33]), number, frame.offset) for frame in blobs]
        catalog.insert(self._connection, catalog.blob, ("digest", "segment", "offset"), places)
        self.store.remember((frame.payload[1:33], DOMAINS[frame.payload[0]], frame.payload[33:]) for frame in blobs)

    def _start(self, number: int, frame: Frame, entry: SpanStart) -> None:
        scope = self._scope(entry.run_id)
        run = self._runs[entry.run_id]
        seen, new = self._seen(scope, entry, run)
        if new:
            self.rows.new_spans[seen.node] = (
                seen.node,
                bound(entry.span_id),
                bound(entry.trace_id),
                bound(entry.parent_id) if entry.parent_id is not None else None,
                run,
                self.rows.word(entry.kind),
                entry.start_ns,
                number,
                frame.offset,
                self.rows.word(entry.name),
            )
        recorded = self._records.get(entry.run_id)
        if recorded is not None and recorded.span_id == entry.span_id:
            self.rows.change_run(run, root=seen.node)
        self.resolver.started(scope, seen, entry)

    def _end(self, number: int, frame: Frame, entry: SpanEnd) -> None:
        key = entry.trace_id + entry.span_id
        node = self.rows.find_span(key)
        if node is None:
            return  # its start is lost with a damaged record; nothing says which run it belongs to
        began = self.rows.new_spans.get(node)
        if began is not None:
            self.rows.new_ends[node] = (entry.end_ns, entry.status, number, frame.offset)
            if entry.name:
                self.rows.new_spans[node] = (*began[:-1], self.rows.word(entry.name))
        else:
            self.rows.span_ends.append(
                {
                    "number": node,
                    "a_end_ns": entry.end_ns,
                    "a_status": entry.status,
                    "a_segment": number,
                    "a_offset": frame.offset,
                }
            )
        scope = self._scope_of_span(key, node)
        if scope is None:
            return
        seen = scope.spans[key]
        self.resolver.ended(scope, seen, entry)
        if use := action.use_of(node, self.rows.word(seen.kind), entry.attributes, entry.end_ns):
            self.rows.uses.append(use)
        recorded = self._records.get(self._ids.get(seen.run, b""))
        if recorded is not None and recorded.span_id == entry.span_id:
            self.rows.change_run(seen.run, status=entry.status, ended_ns=entry.end_ns)

    def _artifact(self, entry: Artifact) -> None:
        if entry.kind == "dataset" and entry.domain == Domain.TREE:
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
        ref.recorded(self._connection, entry)
        self.rows.node(entry.digest, Scope.GLOBAL, entry.kind)

    def _lost(self, number: int, frame: Frame, entry: Lost) -> None:
        columns = ("segment", "offset", "place", "count", "error", "when_ns")
        rows = [
            (number, frame.offset, place, count, error, entry.when_ns) for place, (count, error) in entry.counts.items()
        ]
        catalog.insert(self._connection, catalog.lost, columns, rows)


_OPEN = 4  # stores that a process keeps open: each holds some 15 MB, its statements and the texts it looked into
_shared: dict[tuple[int, Path], tuple[Store, Indexer]] = {}  # that used last stands last
_shared_lock = threading.RLock()


def _renew() -> None:
    """In a forked child: the thread that held the lock is not there to free it."""
    global _shared_lock
    _shared_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def shared(folder: Folder) -> tuple[Store, Indexer]:
    """The open store and indexer of this process for a folder; a forked child makes its own.

    The stores that were not used for longest are closed. Who holds one may go on: it opens again what it asks for.
    """
    key = (os.getpid(), folder.path)
    with _shared_lock:
        found = _shared.pop(key, None)
        if found is None:
            store = Store(folder)
            found = (store, Indexer(store))
        _shared[key] = found
        ours = [one for one in _shared if one[0] == key[0]]  # what a parent had open is not a child's to close
        old = [_shared.pop(one)[0] for one in ours[:-_OPEN]]
    for one in old:
        one.close()
    return found


def forget(folder: Folder) -> None:
    """Close the shared store of a folder, so that its files may go."""
    with _shared_lock:
        found = _shared.pop((os.getpid(), folder.path), None)
    if found is not None:
        found[0].close()


def index_store(
    folder: Folder, *, only: Log | None = None, wait: bool = True, stopped: Callable[[], bool] = lambda: False
) -> int:
    """Catch up with every log of a store, or with `only` one. Returns the records read.

    With `wait=False` it does nothing while somebody else is indexing. It ends early once `stopped` says so.
    """
    store, indexer = shared(folder)
    with backend.exclusive(store.engine, folder.lock, "index", wait=wait) as got:
        if not got:
            return 0
        if only is not None:
            stems = [*only.closed_stems, *([only.stem] if only.stem is not None else [])]
        else:
            stems = segment.stems(folder.log)
        return indexer.catch_up(stems, stopped=stopped)


def writer_state(header: bytes, ended: Container[bytes]) -> str:
    """ "alive", "ended" (its process run is among those), "dead" or "unknown": the process that wrote a segment."""
    found = record.decode(RecordType.SEGMENT, header)
    if not isinstance(found, Segment):
        return "unknown"
    return "ended" if found.process_id in ended else writer.state(found)
