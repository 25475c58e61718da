"""Eviction: what the cache gives up to stay under its bound, first what saves least for its bytes.

An action saves what it took, as often as it is asked for again. Only the cache forgets it: its record stays in the log,
with the run that performed it, until that process is collected (gc.py). A record of the eviction keeps it away when the
log is read again.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.store import action, catalog
from clew.store.action import CLEARED, Actions
from clew.store.log import Log, framed
from clew.store.record import Evicted
from clew.store.store import Store

TOKENS_A_SECOND = 100  # so many count as much as a second: about what a model says in one
RECENT_DAYS = 30  # hits before that say nothing of tomorrow
KEPT = 0.9  # of the bound is left when it was passed, so that not every call evicts
_LOOKED = 0.05  # of the bound is added between two counts: other processes add as well
_OVERHEAD_BYTES = 500  # of a record, beside its answer
_DAY_NS = 86_400 * 10**9
_KEYS = 1_000  # in one record


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An action as eviction sees it. `density` is the seconds it saves a day, for each byte."""

    key: bytes
    kind: str
    model: str
    when_ns: int
    expires_ns: int | None
    seconds: float  # that it took
    size_bytes: int
    hit_ns: int  # when it was asked for last and served; 0: never, as far as is recorded
    density: float
    stem: str
    offset: int

    def expired(self, now_ns: int) -> bool:
        """Whether it is too old to be served."""
        return self.expires_ns is not None and self.expires_ns <= now_ns


def density(seconds: float, tokens: int, hits: float, age_days: float, size_bytes: int) -> float:
    """What an action saves a day, in seconds, for each of its bytes. `hits` are those of its last `age_days`.

    One more hit and one more day are assumed, so that what is new is not worth nothing.

    >>> density(2.0, 100, 5, 1.0, 1000)
    0.009
    """
    return (seconds + tokens / TOKENS_A_SECOND) * (hits + 1) / (age_days + 1) / max(1, size_bytes)


def entries(connection: Connection, now_ns: int) -> list[Entry]:
    """All actions that were not evicted."""
    table = catalog.action.c
    columns = (
        table.key, table.kind, table.model, table.when_ns, table.expires_ns, table.duration_ns, table.input_tokens,
        table.output_tokens, table.size_bytes, table.stem, table.offset,
    )  # fmt: skip
    answers = sa.select(*columns).where(table.size_bytes > 0, table.operation != CLEARED)
    rows = connection.execute(answers).all()
    alike = Counter((row.kind, row.model) for row in rows)
    by_key, by_model = _hits(connection, now_ns - RECENT_DAYS * _DAY_NS)
    found = []
    for row in rows:
        like = (row.kind, row.model)
        one, shared = by_key.get(bytes(row.key), (0, 0)), by_model.get(like, (0, 0))
        hits = one[0] + shared[0] / alike[like]
        age_days = min(max(0, now_ns - row.when_ns) / _DAY_NS, RECENT_DAYS)
        seconds = row.duration_ns / 1e9
        found.append(
            Entry(
                key=bytes(row.key),
                kind=row.kind,
                model=row.model,
                when_ns=row.when_ns,
                expires_ns=row.expires_ns,
                seconds=seconds,
                size_bytes=row.size_bytes,
                hit_ns=max(one[1], shared[1]),
                density=density(seconds, row.input_tokens + row.output_tokens, hits, age_days, row.size_bytes),
                stem=row.stem,
                offset=row.offset,
            )
        )
    return found


_Hits = tuple[int, int]  # how many, and when the last one


def _hits(connection: Connection, since_ns: int) -> tuple[dict[bytes, _Hits], dict[tuple[str, str], _Hits]]:
    """Hits by key; and those of batches, which do not say their keys, by kind and model."""
    use, word = catalog.action_use.c, catalog.word
    sums = (sa.func.sum(use.hits), sa.func.max(use.when_ns))
    recent = (use.hits > 0, use.when_ns >= since_ns)
    query = sa.select(use.key, *sums).where(use.key.isnot(None), *recent).group_by(use.key)
    by_key = {bytes(key): (int(hits), int(last)) for key, hits, last in connection.execute(query)}
    batches = sa.select(word.c.text, use.model, *sums).join_from(catalog.action_use, word, word.c.id == use.kind)
    batches = batches.where(use.key.is_(None), *recent).group_by(word.c.text, use.model)
    by_model = {(kind, model): (int(hits), int(last)) for kind, model, hits, last in connection.execute(batches)}
    return by_key, by_model


def chosen(among: Iterable[Entry], now_ns: int, *, max_bytes: int | None = None, expired: bool = True) -> list[Entry]:
    """What goes: with `expired`, all that is too old to be served; then those that save least for their bytes, until
    the others are at most `max_bytes` together."""
    left = list(among)
    going = [one for one in left if expired and one.expired(now_ns)]
    if max_bytes is None:
        return going
    gone = {one.key for one in going}
    left = [one for one in left if one.key not in gone]
    total = sum(one.size_bytes for one in left)
    for one in sorted(left, key=lambda one: (not one.expired(now_ns), one.density, one.when_ns)):
        if total <= max_bytes:
            break
        total -= one.size_bytes
        going.append(one)
    return going


def record(connection: Connection, log: Log, going: Iterable[tuple[bytes, int]]) -> None:
    """Evict actions by key and time: in the log, then in the catalog, in the caller's transaction."""
    keys = list(going)
    for start in range(0, len(keys), _KEYS):
        entry = Evicted(keys[start : start + _KEYS])
        offset = log.append([framed(entry)])
        if offset >= 0 and log.stem is not None:  # else an indexer will find it
            action.evicted(connection, entry, log.stem.name, offset)


def total_bytes(store: Store) -> int:
    """Bytes of all actions that were not evicted."""
    with store.read() as connection:
        return int(
            connection.execute(sa.select(sa.func.coalesce(sa.func.sum(catalog.action.c.size_bytes), 0))).scalar_one()
        )


class Bound:
    """Keeps the actions of a store under a size, as one process adds to them. Safe to use from several threads.

    What other processes add is seen when the actions are counted again: each may pass the bound by a twentieth.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._counting = threading.Lock()
        self._counted = self.max_bytes + 1  # all bytes when they were last counted (never, as yet),
        self._added = 0  # and what was added since

    def added(self, actions: Actions, log: Log, answers_bytes: Sequence[int], now_ns: int) -> int:
        """Actions were published, whose answers are so long; returns how many were evicted."""
        if self._process != os.getpid():  # a fork: the thread that counted is not here
            self._begin()
        self._added += sum(answers_bytes) + len(answers_bytes) * _OVERHEAD_BYTES
        total = self._counted + self._added
        if total <= self.max_bytes and self._added <= self.max_bytes * _LOOKED:
            return 0
        if not self._counting.acquire(blocking=False):
            return 0
        try:
            return self._count(actions, log, now_ns)
        finally:
            self._counting.release()

    def _count(self, actions: Actions, log: Log, now_ns: int) -> int:
        self._added = 0
        self._counted = total_bytes(actions.store)
        if self._counted <= self.max_bytes:
            return 0
        with actions.store.read() as connection:
            going = chosen(entries(connection, now_ns), now_ns, max_bytes=int(self.max_bytes * KEPT))
        with actions.store.write() as connection:
            record(connection, log, [(one.key, one.when_ns) for one in going])
        actions.drop(one.key for one in going)
        self._counted -= sum(one.size_bytes for one in going)
        return len(going)
