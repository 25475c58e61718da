"""What `clew doctor` reports of a store: what is in it, what is damaged, and what the tracer could not record.

Every part is found out on its own, so that a store that is damaged, full or read-only still gets as much of an answer as
it can give; nothing is written to one that cannot be written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage import index, rebuild
from clew.lineage.view import ended_processes
from clew.store import blob, catalog, record, segment
from clew.store.digest import Digest, Domain
from clew.store.errors import ClewError, CorruptBlob, StoreError, StoreUnwritable
from clew.store.folder import FORMAT, Folder
from clew.store.gc import GONE
from clew.store.record import Lost, RecordType, Run, Segment
from clew.store.segment import SegmentFile
from clew.store.store import Store

_LOOKED_FOR_COST = 8  # newest segments


def report(folder: Folder, *, verify: bool = False) -> dict[str, Any]:
    """The state of a store. `verify` reads every blob: those damaged are named, and put in quarantine."""
    found: dict[str, Any] = {
        "store": str(folder.path),
        "format": FORMAT,
        "writable": folder.writable,
        "capture_cost_ms": _capture_cost(folder),
    }
    with contextlib.ExitStack() as stack:
        store, found["catalog"] = _caught_up(folder, stack)
        found["log"] = _log(folder, store)
        try:
            found.update(_contents(store) if store is not None else _scanned(folder))
        except StoreError as error:
            found["catalog"].update(state="cannot be used", error=str(error))
            found.update(_scanned(folder))
            store = None
        if verify:
            found["verified"] = _verify(folder, store)
    sizes = folder.size_bytes()
    found["size_bytes"] = {**sizes, "total": sum(sizes.values())}
    return found


def is_damaged(found: dict[str, Any]) -> bool:
    """Whether a report tells of content or a catalog that is not whole."""
    return bool(
        found["catalog"]["state"] != "sound"
        or found["log"]["damaged"]
        or found.get("damaged_segments")
        or found.get("verified", {}).get("damaged")
    )


# -- the log, from its files


def _log(folder: Folder, store: Store | None) -> dict[str, Any]:
    """Segments and who wrote them. Without a catalog, a process that ended well is "dead" too."""
    writers = {"alive": 0, "ended": 0, "dead": 0, "unknown": 0}
    ended: set[bytes] = set()
    if store is not None:
        with contextlib.suppress(StoreError), store.read() as connection:
            ended = ended_processes(connection)
    processes: dict[bytes, str] = {}
    sealed, damaged = 0, []
    stems = segment.stems(folder.log)
    for stem in stems:
        try:
            with _opened(stem) as file:
                sealed += file.sealed
                first = next(iter(file.frames()), None)
        except FileNotFoundError:
            continue
        except (ClewError, OSError) as error:
            damaged.append({"segment": stem.name, "error": str(error)})
            continue
        header = record.decode(first.type, first.payload) if first is not None else None
        if first is not None and isinstance(header, Segment):
            state = index.writer_state(first.payload, ended)
            if processes.get(header.process_id) != "alive":  # a fork in C writes under its parent's id
                processes[header.process_id] = state
    for state in processes.values():
        writers[state] += 1
    return {"segments": len(stems), "sealed": sealed, "writers": writers, "damaged": damaged}


def _capture_cost(folder: Folder) -> dict[str, float] | None:
    """What capturing code and environment cost the newest process, by facet, in milliseconds of CPU."""
    for stem in reversed(segment.stems(folder.log)[-_LOOKED_FOR_COST:]):
        with contextlib.suppress(ClewError, OSError), _opened(stem) as file:
            for frame in file.frames():
                if frame.type == RecordType.RUN:
                    entry = record.decode(frame.type, frame.payload)
                    if isinstance(entry, Run) and "capture_cost" in entry.seeds:
                        cost: dict[str, float] = entry.seeds["capture_cost"]
                        return {facet.removesuffix("_ms"): spent for facet, spent in cost.items()}
    return None


def _scanned(folder: Folder) -> dict[str, Any]:
    """Counts and faults from the logs themselves, where no catalog can be used."""
    counts = {"spans": 0, "runs": 0, "blobs": 0}
    runs: set[bytes] = set()
    faults: dict[str, dict[str, Any]] = {}
    for stem in segment.stems(folder.log):
        with contextlib.suppress(ClewError, OSError), _opened(stem) as file:
            for frame in file.frames():
                counts["blobs"] += frame.type == RecordType.BLOB
                counts["spans"] += frame.type == RecordType.SPAN_START
                if frame.type in (RecordType.RUN, RecordType.LOST):
                    match record.decode(frame.type, frame.payload):
                        case Run() as run if run.span_id is not None:
                            runs.add(run.run_id)
                        case Lost() as lost:
                            for place, (count, error) in lost.counts.items():
                                _add_fault(faults, place, count, error, lost.when_ns)
    counts["runs"] = len(runs)
    return {"counts": counts, "faults": list(faults.values()), "damaged_segments": []}


# -- the catalog


def _caught_up(folder: Folder, stack: contextlib.ExitStack) -> tuple[Store | None, dict[str, Any]]:
    """The store, its catalog indexed (in a copy, where it cannot be written); None where the catalog is of no use."""
    told: dict[str, Any] = {"backend": "sqlite", "state": "sound"}
    used = folder
    try:
        try:
            used = folder if folder.writable else folder.aside()
            records = index.index_store(used)
        except StoreUnwritable as error:
            told["error"] = str(error)
            index.forget(used)
            used = folder.aside()
            records = index.index_store(used)
    except StoreError as error:
        index.forget(used)
        return None, {**told, "state": "cannot be used", "error": str(error)}
    stack.callback(index.forget, used)
    store, _ = index.shared(used)
    told["backend"] = store.engine.dialect.name
    told["behind_records" if used is not folder else "indexed_now"] = records
    if not rebuild.is_sound(store.engine):
        told.update(state="damaged", error="SQLite's quick_check fails; `clew doctor --rebuild` makes it again")
    return store, told


def _contents(store: Store) -> dict[str, Any]:
    counts: dict[str, int] = {}
    faults: dict[str, dict[str, Any]] = {}
    with store.read() as connection:
        for table in (catalog.span, catalog.edge, catalog.blob, catalog.ref):
            counts[f"{table.name}s"] = _count(connection, table)
        counts["runs"] = _count(connection, catalog.run, catalog.run.c.root.isnot(None))
        counts["processes"] = _count(connection, catalog.run, catalog.run.c.run_id == catalog.run.c.process_id)
        counts["artifacts"] = _count(connection, catalog.node)
        where = (catalog.segment.c.damaged > 0) & (catalog.segment.c.state != GONE)
        damaged = [
            {"segment": row.stem, "records": row.damaged}
            for row in connection.execute(sa.select(catalog.segment).where(where))
        ]
        lost = catalog.lost.c
        query = sa.select(lost.place, lost.count, lost.error, lost.when_ns).order_by(lost.when_ns)
        for place, count, error, when_ns in connection.execute(query):
            _add_fault(faults, place, count, error, when_ns)
    return {"counts": counts, "faults": list(faults.values()), "damaged_segments": damaged}


def _count(connection: Connection, table: sa.Table, where: Any = None) -> int:
    query = sa.select(sa.func.count()).select_from(table)
    return int(connection.execute(query.where(where) if where is not None else query).scalar_one())


def _add_fault(faults: dict[str, dict[str, Any]], place: str, count: int, error: str, when_ns: int) -> None:
    fault = faults.setdefault(place, {"place": place, "count": 0})
    fault.update(count=fault["count"] + count, error=error, when_ns=when_ns)


# -- every blob


def _verify(folder: Folder, store: Store | None) -> dict[str, Any]:
    damaged: list[dict[str, Any]] = []
    blobs = files = 0
    for stem in segment.stems(folder.log):
        good: set[int] = set()
        offsets: list[int] = []
        try:
            with _opened(stem) as file:
                for frame in file.frames(0, offsets):
                    if frame.type != RecordType.BLOB:
                        continue
                    blobs += 1
                    if _is_good(folder, stem, frame.payload, damaged, store):
                        good.add(frame.offset)
        except FileNotFoundError:
            continue
        except (ClewError, OSError) as error:
            damaged.append({"segment": stem.name, "error": str(error)})
        lost = _named_at(store, stem, good) if store is not None else []
        known = {one.get("digest") for one in damaged}
        damaged += [
            {"segment": stem.name, "digest": name, "error": "its record is damaged"}
            for name in lost
            if name not in known
        ]
        if offsets and not lost:
            damaged.append({"segment": stem.name, "error": f"damaged records at {', '.join(map(str, offsets[:20]))}"})
    for path in sorted(folder.blob.glob("??/*")):
        if len(path.name) != 64:
            continue  # being written, or left by a crash
        files += 1
        name = Digest(bytes.fromhex(path.name))
        try:
            found = blob.read_file(folder.blob, name)
            if found is not None:
                blob.verified(name, *found)
        except CorruptBlob as error:
            damaged.append({"digest": str(name), "error": str(error)})
            _quarantine(folder, store, name, path.read_bytes())
    return {"blobs": blobs, "files": files, "damaged": damaged, "quarantine": str(folder.quarantine)}


def _is_good(folder: Folder, stem: Path, payload: bytes, damaged: list[dict[str, Any]], store: Store | None) -> bool:
    name, data = Digest(payload[1:33]), payload[33:]
    try:
        blob.verified(name, Domain(payload[0]), data)
    except (CorruptBlob, ValueError) as error:
        damaged.append({"segment": stem.name, "digest": str(name), "error": str(error)})
        _quarantine(folder, store, name, data)
        return False
    return True


def _named_at(store: Store, stem: Path, good: set[int]) -> list[str]:
    """Digests that the catalog looks for in this segment, at places where no good blob stands."""
    table = catalog.blob
    query = sa.select(table.c.digest, table.c.offset).join(catalog.segment, catalog.segment.c.id == table.c.segment)
    with store.read() as connection:
        rows = connection.execute(query.where(catalog.segment.c.stem == stem.name))
        return [str(Digest(row[0])) for row in rows if row[1] not in good]


def _quarantine(folder: Folder, store: Store | None, name: Digest, data: bytes) -> None:
    if folder.writable and store is not None:
        store.quarantine(name, data)


@contextlib.contextmanager
def _opened(stem: Path) -> Iterator[SegmentFile]:
    file = SegmentFile(stem)
    try:
        yield file
    finally:
        file.close()
