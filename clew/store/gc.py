"""Collecting old processes' segments: whole, closed ones that nothing kept needs.

A process may go when it is over (its writer is dead, or all its segments are sealed), its last record is older than the
limit, it gave no ref, and no kept run or ref needs anything of it (retention.py). What is uncertain stays. Rows go in one
transaction; files are deleted after it, so a crash in between leaves files that the next query indexes again.

Actions go with their process, save those that were asked for since the limit: they are carried over into a segment of
the collector's own (succession.py). Of the rest, what has expired and what is past a bound is evicted (eviction.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.store import backend, blob, catalog, record, segment, writer
from clew.store.catalog import chunks
from clew.store.digest import Digest
from clew.store.folder import Folder
from clew.store.log import Log
from clew.store.record import RecordType, Segment
from clew.store.retention import Retention, Unit
from clew.store.segment import SegmentFile
from clew.store.store import Store
from clew.store.succession import Forgotten, Succession
from clew.version import VERSION

GONE = "gone"  # state of the newest segment's row after its file went: its number is never given again


@dataclasses.dataclass
class Collected:
    """One process and what gc does with it. `reason` says why it stays; None: it goes."""

    process_id: str
    segments: list[str]
    size_bytes: int
    last_ns: int
    runs: int
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass
class Collection:
    """What gc did, or with `dry_run` would do. `processes` is empty where no limit of age was given; `files` are blobs
    above 1 MB that nothing names any more; `carried` actions outlive their process; `actions` are left, of so many
    bytes."""

    before_ns: int | None
    dry_run: bool
    processes: list[Collected]
    files: list[str]
    freed_bytes: int
    forgotten: list[Forgotten]
    carried: int
    actions: int
    actions_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        return dataclasses.asdict(self)


def collect(
    store: Store,
    before_ns: int | None,
    *,
    catch_up: Callable[[], object],
    dry_run: bool = False,
    expired: bool = False,
    max_bytes: int | None = None,
) -> Collection:
    """Remove what was over before `before_ns` and nothing kept needs (None: no process); of the actions that are left,
    those that have `expired`, and what saves least of what is past `max_bytes`. `catch_up` indexes every log, with the
    lock held."""
    log = Log(store.folder.log, process_id=secrets.token_bytes(16), version=VERSION)  # a file with its first record
    with backend.exclusive(store.engine, store.folder.lock, "index"), contextlib.closing(log):
        catch_up()
        with store.read() if dry_run else store.write() as connection:
            units = _units(connection, store.folder, before_ns) if before_ns is not None else []
            retention = Retention(connection, store.folder, units) if units else None
            if retention is not None:
                retention.settle()
            going = [unit for unit in units if unit.keep is None]
            told = [_told(connection, store.folder, unit) for unit in units]
            stems = [stem for unit in going for stem in unit.segments.values()]
            actions = Succession(connection, stems, before_ns or 0, time.time_ns())
            actions.shrink(max_bytes, expired=expired)
            if not dry_run:
                actions.write(store.folder.log, log)
            if going and retention is not None and not dry_run:
                _remove(connection, store.folder, going, retention.left_behind())
            left = sa.select(catalog.segment.c.stem).where(
                catalog.segment.c.state == GONE
            )  # by a crash of an earlier gc
            stems.extend(connection.execute(left).scalars())
        files = _unnamed_files(store.folder, stems, before_ns) if before_ns is not None else []
        freed = sum(one.size_bytes for one in told if one.reason is None) + sum(_size(path) for path in files)
        if not dry_run:
            store.forget_segments()
            for path in [*_paths(store.folder, stems), *files]:
                path.unlink(missing_ok=True)
    return Collection(
        before_ns,
        dry_run,
        told,
        [f"b3:{path.name}" for path in files],
        freed,
        actions.forgotten(),
        len(actions.carried),
        len(actions.left),
        sum(one.size_bytes for one in actions.left),
    )


def _units(connection: Connection, folder: Folder, before_ns: int) -> list[Unit]:
    units: dict[bytes, Unit] = {}
    open_ones: set[bytes] = set()
    states: dict[bytes, set[str]] = {}  # a fork in C writes segments of its own under its parent's id
    for row in connection.execute(sa.select(catalog.segment).order_by(catalog.segment.c.id)):
        header = record.decode(RecordType.SEGMENT, row.header)
        assert isinstance(header, Segment)
        if row.state == GONE:
            continue
        unit = units.setdefault(header.process_id, Unit(header.process_id))
        unit.segments[row.id] = row.stem
        unit.last_ns = max(unit.last_ns, header.created_ns, _last_ns(connection, row.id))
        states.setdefault(header.process_id, set()).add(writer.state(header))
        if row.state != "sealed":
            open_ones.add(header.process_id)
    for process_id, unit in units.items():
        if process_id in open_ones and states[process_id] != {"dead"}:
            alive = "alive" in states[process_id]
            unit.keep = "its writer is alive" if alive else "whether its writer lives cannot be told from here"
        elif unit.last_ns >= before_ns:
            unit.keep = "younger than the limit"
        else:
            refs = unit.read_facts(folder)
            if refs:
                unit.keep = f"it named {', '.join(refs[:3])}{' and more' if len(refs) > 3 else ''}"
    return list(units.values())


def _last_ns(connection: Connection, number: int) -> int:
    span, run, lost = catalog.span, catalog.run, catalog.lost
    latest = 0
    for column, where in (
        (span.c.start_ns, span.c.segment),
        (span.c.end_ns, span.c.segment),
        (run.c.started_ns, run.c.segment),
        (run.c.ended_ns, run.c.segment),
        (lost.c.when_ns, lost.c.segment),
    ):
        latest = max(latest, connection.execute(sa.select(sa.func.max(column)).where(where == number)).scalar() or 0)
    return latest


def _told(connection: Connection, folder: Folder, unit: Unit) -> Collected:
    runs = 0
    for part in chunks(list(unit.segments)):
        query = sa.select(sa.func.count()).where(catalog.run.c.segment.in_(part), catalog.run.c.root.isnot(None))
        runs += connection.execute(query).scalar_one()
    stems = list(unit.segments.values())
    size = sum(_size(path) for path in _paths(folder, stems))
    return Collected(unit.process_id.hex(), stems, size, unit.last_ns, runs, unit.keep)


# -- rows


def _remove(connection: Connection, folder: Folder, going: list[Unit], left_behind: set[int]) -> None:
    numbers = [number for unit in going for number in unit.segments]
    _move_blobs(connection, folder, numbers)
    nodes = left_behind.union(*(unit.spans | unit.values for unit in going))
    _delete(connection, catalog.edge.c.src, nodes)
    _delete(connection, catalog.edge.c.dst, nodes)
    _delete(connection, catalog.leaf.c.node, nodes)
    _delete(connection, catalog.member.c.container, nodes)
    _delete(connection, catalog.member.c.node, nodes)
    _delete(connection, catalog.node.c.id, nodes)
    _delete(connection, catalog.action_use.c.span, nodes)
    _delete(connection, catalog.span.c.segment, numbers)
    _delete(connection, catalog.run.c.segment, numbers)
    _delete(connection, catalog.lost.c.segment, numbers)
    _delete(connection, catalog.answer.c.segment, numbers)
    _delete_actions(connection, [stem for unit in going for stem in unit.segments.values()])
    newest = connection.execute(sa.select(sa.func.max(catalog.segment.c.id))).scalar_one()
    if newest in numbers:
        connection.execute(sa.update(catalog.segment).where(catalog.segment.c.id == newest).values(state=GONE))
    _delete(connection, catalog.segment.c.id, [number for number in numbers if number != newest])
    # whoever indexes next must not trust the numbers it remembers
    connection.execute(sa.delete(catalog.setting).where(catalog.setting.c.name == "indexer"))


def _move_blobs(connection: Connection, folder: Folder, numbers: list[int]) -> None:
    """Blobs that a kept segment holds too are read from there; the others are gone."""
    table = catalog.blob
    wanted: set[bytes] = set()
    for part in chunks(numbers):
        wanted.update(
            map(bytes, connection.execute(sa.select(table.c.digest).where(table.c.segment.in_(part))).scalars())
        )
        connection.execute(sa.delete(table).where(table.c.segment.in_(part)))
    rows = connection.execute(sa.select(catalog.segment.c.id, catalog.segment.c.stem).order_by(catalog.segment.c.id))
    kept = [(row[0], row[1]) for row in rows if row[0] not in numbers]
    for number, stem in kept:
        found = []
        for frame in segment.records(folder.log / stem, RecordType.BLOB):
            name = frame.payload[1:33]
            if name in wanted:
                wanted.discard(name)
                found.append((name, number, frame.offset))
        catalog.insert(connection, table, ("digest", "segment", "offset"), found)
        if not wanted:
            return


def _delete_actions(connection: Connection, stems: list[str]) -> None:
    table, field = catalog.action, catalog.action_field
    for part in chunks(stems):
        keys = sa.select(table.c.key).where(table.c.stem.in_(part))
        connection.execute(sa.delete(field).where(field.c.key.in_(keys)))
        connection.execute(sa.delete(table).where(table.c.stem.in_(part)))


def _delete(connection: Connection, column: sa.Column[Any], values: Iterable[int]) -> None:
    for part in chunks(list(values)):
        connection.execute(sa.delete(column.table).where(column.in_(part)))


# -- files


def _unnamed_files(folder: Folder, going: list[str], before_ns: int) -> list[Path]:
    """Files of large blobs, older than the limit, whose digest stands in no kept segment and no kept file."""
    old = {path for path in folder.blob.glob("??/*") if _used_ns(path) < before_ns and len(path.name) == 64}
    unseen = {bytes.fromhex(path.name): path for path in old}
    contents: list[Callable[[], Iterable[bytes]]] = []
    for stem in segment.stems(folder.log):
        if stem.name not in going:
            contents.append(lambda stem=stem: _payloads(stem))  # type: ignore[misc]
    for read in contents:
        for payload in read() if unseen else ():
            _strike(unseen, payload)
    # a large list or tree is a file itself and may name others
    named = [path for path in folder.blob.glob("??/*") if path not in unseen.values()]
    while named and unseen:
        path = named.pop()
        found = blob.read_file(folder.blob, Digest(bytes.fromhex(path.name))) if len(path.name) == 64 else None
        if found is not None:
            named.extend(_strike(unseen, found[1]))
    return sorted(unseen.values())


def _strike(unseen: dict[bytes, Path], content: bytes) -> list[Path]:
    """Take out of `unseen` what the content names, as raw bytes or in hex."""
    seen = [name for name in unseen if name in content or name.hex().encode() in content]
    return [unseen.pop(name) for name in seen]


def _payloads(stem: Path) -> Iterable[bytes]:
    try:
        file = SegmentFile(stem)
    except FileNotFoundError:
        return
    try:
        for frame in file.frames():
            yield frame.payload
    finally:
        file.close()


def _paths(folder: Folder, stems: list[str]) -> list[Path]:
    suffixes = (segment.OPEN_SUFFIX, segment.SEALED_SUFFIX)
    paths = [folder.log / f"{stem}{suffix}" for stem in stems for suffix in suffixes]
    return [path for path in paths if path.exists()]


def _used_ns(path: Path) -> int:
    try:
        found = path.stat()
        return max(found.st_mtime_ns, found.st_atime_ns)  # storing it again, or reading it, is an access
    except FileNotFoundError:
        return time.time_ns()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
