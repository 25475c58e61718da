"""Actions: what was asked of the world before, by key, and what it answered.

An action stands in the log of the process that performed it, like everything immutable, and is published in the catalog
as soon as it does: the next one who asks need not wait for an indexer. Of several actions with one key the newest
counts, whichever was indexed first. An eviction counts like an action that is newer by a nanosecond than the one it is
of, and has no answer: so the one stays away whenever its log is read again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.store import catalog, record
from clew.store.catalog import bound
from clew.store.errors import ClewError, CorruptBlob, CorruptRecord, NotFound
from clew.store.record import Action, Evicted, RecordType
from clew.store.segment import SegmentFile
from clew.store.sharing import Sharing, lasts
from clew.store.store import Store

INLINE_BYTES = 64 << 10  # of a record that the catalog repeats
CLEARED = "clear"  # operation of an action that says since when others are not served: it is no answer, and not evicted
_REMEMBERED_BYTES = 32 << 20
_COLUMNS = tuple(column.name for column in catalog.action.c)
_BY_KEY = 'SELECT record, stem, "offset" FROM action WHERE key = ?'


class Actions:
    """The actions of one store, and of those that it shares them with. Safe to use from several threads."""

    def __init__(self, store: Store, sharing: Sharing | None = None) -> None:
        self.store = store
        self.sharing = sharing
        self._known: dict[bytes, tuple[Action, int]] = {}  # with their sizes; looked at without a lock
        self._bytes = 0
        self._lock = threading.Lock()

    def look(self, key: bytes, now_ns: int, *, near: bool = False) -> Action | None:
        """The action with this key; None where there is none, it has expired, or it cannot be read. With `near` no other
        store is asked."""
        known = self._known.get(key)
        if known is not None and lasts(known[0], now_ns):
            return known[0]
        stored = self.read(key)
        if stored is not None and lasts(stored, now_ns):
            return stored
        shared = self.sharing.look(key, now_ns) if self.sharing is not None and not near else None
        if shared is not None:
            self._remember(shared, len(shared.answer))
        return shared

    def fetch(self, keys: Iterable[bytes], now_ns: int) -> None:
        """Have actions at hand that are about to be looked for one by one: those of others, several at once."""
        if self.sharing is not None:
            unknown = [key for key in keys if self.look(key, now_ns, near=True) is None]
            for found in self.sharing.look_all(unknown, now_ns):
                self._remember(found, len(found.answer))

    def publish(self, written: Iterable[tuple[Action, str, int]]) -> None:
        """Have everybody find actions that were written to the log, each at this place of this segment. StoreError where
        the catalog cannot take them: an indexer will find them in the log."""
        found = list(written)
        for entry, _, _ in found:
            self._remember(entry, len(entry.answer))
        with self.store.write() as connection:
            insert(connection, found)

    def share(self, entry: Action, answer: bytes) -> None:
        """Have others find an action, too, soon. `answer` is what was answered, be it long or short."""
        if self.sharing is not None:
            self.sharing.give(entry, answer)

    def answer(self, entry: Action) -> bytes:
        """What was answered. ClewError where a long answer is lost or damaged."""
        if not entry.blob:
            return entry.answer
        try:
            return self.store.blob(entry.blob)[1]
        except (NotFound, CorruptBlob):
            found = self.sharing.blob(entry.blob) if self.sharing is not None else None
            if found is None:
                raise
            return found

    def forget(self) -> None:
        """What is remembered may be stale."""
        with self._lock:
            self._known.clear()
            self._bytes = 0

    def drop(self, keys: Iterable[bytes]) -> None:
        """These were evicted: they are not served from memory, either."""
        with self._lock:
            for key in keys:
                if (known := self._known.pop(key, None)) is not None:
                    self._bytes -= known[1]

    def read(self, key: bytes) -> Action | None:
        """The action with this key as the store has it now, expired or not; None where none can be read."""
        row = self.store.row(_BY_KEY, bound(key))
        if row is None:
            return None
        try:
            payload, stem, offset = row
            if payload is None:
                payload = self._payload(stem, offset)
            found = record.decode(RecordType.ACTION, payload) if payload else None
        except (CorruptRecord, ClewError, OSError):
            return None
        if not isinstance(found, Action) or found.key != key:
            return None
        self._remember(found, len(payload or b""))
        return found

    def _payload(self, stem: str, offset: int) -> bytes | None:
        file = SegmentFile(self.store.folder.log / stem)
        try:
            frame = file.frame(offset)
        finally:
            file.close()
        return frame.payload if frame is not None and frame.type == RecordType.ACTION else None

    def _remember(self, entry: Action, size: int) -> None:
        with self._lock:
            before = self._known.pop(entry.key, None)
            self._bytes += size - (before[1] if before is not None else 0)
            self._known[entry.key] = entry, size
            while self._bytes > _REMEMBERED_BYTES and len(self._known) > 1:
                self._bytes -= self._known.pop(next(iter(self._known)))[1]  # the one that was read first


def insert(connection: Connection, actions: Iterable[tuple[Action, str, int]], *, fields: bool = False) -> None:
    """Rows of actions, each with the segment and offset where it stands; with `fields`, of what their keys were made."""
    found = list(actions)
    catalog.insert(connection, catalog.action, _COLUMNS, [_row(*one) for one in found], newest="when_ns")
    if fields:
        table = catalog.action.c
        sizes = catalog.matching(connection, (table.key, table.size_bytes), table.key, {one.key for one, _, _ in found})
        left = {bytes(key) for key, size in sizes if size}
        rows = [
            (bound(part), bound(one.key), name)
            for one, _, _ in found
            if one.key in left
            for name, part in one.fields.items()
        ]
        catalog.insert(connection, catalog.action_field, ("digest", "key", "field"), rows)


def evicted(connection: Connection, entry: Evicted, stem: str, offset: int) -> None:
    """Rows of actions that are not served any more, in place of their own; those that were performed later stay."""
    rows = [
        (bound(key), "", "", "", when_ns + 1, 0, 0, 0, 0, 0, stem, offset, None) for key, when_ns in entry.keys
    ]  # as _COLUMNS
    catalog.insert(connection, catalog.action, _COLUMNS, rows, newest="when_ns")
    table, field = catalog.action.c, catalog.action_field.c
    for part in catalog.chunks([key for key, _ in entry.keys]):
        gone = sa.select(table.key).where(table.key.in_(part), table.size_bytes == 0)
        connection.execute(sa.delete(catalog.action_field).where(field.key.in_(gone)))


def use_of(span: int, kind: int, attributes: Mapping[str, Any], when_ns: int) -> tuple[Any, ...] | None:
    """The row of what a span asked of the cache, as its attributes say; None where it asked nothing."""
    hit, passed = (
        attributes.get("clew.cache.hit"),
        "clew.cache.bypass" in attributes or "clew.cache.refused" in attributes,
    )
    if hit is None and not passed:
        return None
    asked = _number(attributes, "clew.cache.asked") or int(hit is not None)
    hits = _number(attributes, "clew.cache.hits") if "clew.cache.hits" in attributes else int(hit is True)
    try:
        key = bytes.fromhex(str(attributes.get("clew.cache.key", "")))
    except ValueError:
        key = b""
    saved = [
        _number(attributes, f"clew.cache.saved.{name}") for name in ("duration_ns", "input_tokens", "output_tokens")
    ]
    model = str(attributes.get("clew.cache.model", ""))
    return (span, kind, model, bound(key) if len(key) == 32 else None, hits, asked - hits, int(passed), *saved, when_ns)


def _number(attributes: Mapping[str, Any], name: str) -> int:
    value = attributes.get(name)
    return value if type(value) is int else 0


def _row(entry: Action, stem: str, offset: int) -> tuple[Any, ...]:
    encoded = record.encode(entry)
    values: dict[str, Any] = {
        "key": bound(entry.key),
        "kind": entry.kind,
        "operation": entry.operation,
        "model": entry.model,
        "when_ns": entry.when_ns,
        "expires_ns": entry.expires_ns,
        "duration_ns": entry.duration_ns,
        "input_tokens": entry.input_tokens,
        "output_tokens": entry.output_tokens,
        "size_bytes": len(encoded) + entry.blob_bytes,
        "stem": stem,
        "offset": offset,
        "record": bound(encoded) if len(encoded) <= INLINE_BYTES else None,
    }
    return tuple([values[name] for name in _COLUMNS])
