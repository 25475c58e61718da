"""What becomes of the actions when processes are collected: which go, and which outlive the process that performed them.

An action that was asked for since the limit is carried over: its record is written again, into a segment of the
collector's own. So is the record of an eviction, while a kept log still holds what was evicted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.store import catalog, eviction, record, segment
from clew.store.catalog import bound
from clew.store.eviction import Entry
from clew.store.log import Log
from clew.store.record import Action, RecordType
from clew.store.segment import SegmentFile


@dataclasses.dataclass
class Forgotten:
    """Actions of one kind and model that the cache gives up, and why: `collected` (with their process), `expired` or
    `evicted`. `seconds` is what they took."""

    kind: str
    model: str
    reason: str
    count: int = 0
    size_bytes: int = 0
    seconds: float = 0.0


class Succession:
    """The actions of a store, while the segments `going` are collected: those asked for since `before_ns` stay."""

    def __init__(self, connection: Connection, going: Iterable[str], before_ns: int, now_ns: int) -> None:
        self.connection = connection
        self.now_ns = now_ns
        self.going = set(going)
        self.left: list[Entry] = []
        self.collected: list[Entry] = []
        self.given_up: list[Entry] = []
        for one in eviction.entries(connection, now_ns):
            wanted = one.hit_ns >= before_ns and not one.expired(now_ns)
            (self.left if one.stem not in self.going or wanted else self.collected).append(one)

    def shrink(self, max_bytes: int | None, *, expired: bool) -> None:
        """Give up what has expired, and what is past a bound."""
        self.given_up = eviction.chosen(self.left, self.now_ns, max_bytes=max_bytes, expired=expired)
        gone = {one.key for one in self.given_up}
        self.left = [one for one in self.left if one.key not in gone]

    @property
    def carried(self) -> list[Entry]:
        """Those that outlive their process."""
        return [one for one in self.left if one.stem in self.going]

    def forgotten(self) -> list[Forgotten]:
        """What goes, most bytes first."""
        found: dict[tuple[str, str, str], Forgotten] = {}
        why = [(one, "collected") for one in self.collected]
        why += [(one, "expired" if one.expired(self.now_ns) else "evicted") for one in self.given_up]
        for one, reason in why:
            place = (one.kind, one.model, reason)
            told = found.setdefault(place, Forgotten(*place))
            told.count += 1
            told.size_bytes += one.size_bytes
            told.seconds += one.seconds
        return sorted(found.values(), key=lambda told: -told.size_bytes)

    def write(self, folder: Path, log: Log) -> None:
        """Into the collector's log, and then into the catalog; `folder` is that of the segments."""
        self._carry(folder, log)
        again = self._still_evicted(folder)
        for part in catalog.chunks([key for key, _ in again]):  # their rows name a segment that goes
            self.connection.execute(sa.delete(catalog.action).where(catalog.action.c.key.in_(part)))
        eviction.record(self.connection, log, [*((one.key, one.when_ns) for one in self.given_up), *again])
        log.sync()

    def _carry(self, folder: Path, log: Log) -> None:
        table = catalog.action
        moved = []
        for stem in sorted({one.stem for one in self.carried}):
            file = SegmentFile(folder / stem)
            try:
                for one in [one for one in self.carried if one.stem == stem]:
                    frame = file.frame(one.offset)
                    if frame is None or frame.type != RecordType.ACTION:
                        continue  # damaged: it goes with its process
                    offset = log.append([segment.frame_bytes(frame.type, frame.payload, frame.version)])
                    assert log.stem is not None
                    moved.append({"moved": bound(one.key), "to": log.stem.name, "at": offset})
            finally:
                file.close()
        if moved:
            change = sa.update(table).where(table.c.key == sa.bindparam("moved"))
            self.connection.execute(change.values(stem=sa.bindparam("to"), offset=sa.bindparam("at")), moved)

    def _still_evicted(self, folder: Path) -> list[tuple[bytes, int]]:
        """Evictions whose records go, of actions that a kept segment holds."""
        table = catalog.action.c
        losing: dict[bytes, int] = {}
        for part in catalog.chunks(sorted(self.going)):
            query = sa.select(table.key, table.when_ns).where(table.stem.in_(part), table.size_bytes == 0)
            losing.update((bytes(key), when_ns - 1) for key, when_ns in self.connection.execute(query))
        kept: Sequence[Path] = [stem for stem in segment.stems(folder) if losing and stem.name not in self.going]
        held = set()
        for stem in kept:
            for frame in segment.records(stem, RecordType.ACTION):
                entry = record.decode(frame.type, frame.payload)
                assert isinstance(entry, Action)
                held.add(entry.key)
        return [(key, when_ns) for key, when_ns in losing.items() if key in held]
