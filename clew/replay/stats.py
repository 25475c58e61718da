"""What the cache did: hits and misses by kind and model, and what hits saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage.view import span_views
from clew.store import catalog
from clew.store.store import Store

Prices = Mapping[str, tuple[float, float]]
"""By model: money for a million input tokens, and for a million output tokens."""


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Calls of one kind and model. `saved_money` is None where no price is known."""

    kind: str
    model: str
    hits: int
    misses: int
    passed: int  # went by the cache, or their answer was not kept
    saved_seconds: float
    saved_input_tokens: int
    saved_output_tokens: int
    saved_money: float | None

    @property
    def hit_rate(self) -> float:
        """Hits among the calls that asked the cache, in [0, 1]."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else 0.0


def stats(connection: Connection, prices: Prices | None = None) -> list[Stats]:
    """By kind and model, those that saved most time first."""
    use, word = catalog.action_use.c, catalog.word.c
    sums = [use.hits, use.misses, use.passed, use.saved_ns, use.input_tokens, use.output_tokens]
    query = (
        sa.select(word.text, use.model, *(sa.func.sum(one) for one in sums))
        .join_from(catalog.action_use, catalog.word, word.id == use.kind)
        .group_by(word.text, use.model)
    )
    found = [_stats(row, prices or {}) for row in connection.execute(query)]
    return sorted(found, key=lambda one: (-one.saved_seconds, one.kind, one.model))


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why calls of a kind went by the cache, or why their answers were not kept."""

    kind: str
    reason: str
    count: int


def reasons(store: Store, connection: Connection, newest: int = 1000) -> list[Reason]:
    """Why calls passed, the commonest first; of the newest so many that did."""
    use = catalog.action_use.c
    query = sa.select(use.span).where(use.passed > 0).order_by(use.when_ns.desc()).limit(newest)
    counts: Counter[tuple[str, str]] = Counter()
    for part in catalog.chunks(connection.execute(query).scalars().all()):
        for span in span_views(store, connection, None, only=part):
            told = span.attributes.get("clew.cache.bypass") or span.attributes.get("clew.cache.refused")
            counts[span.kind, str(told)] += 1
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return [Reason(kind=kind, reason=reason, count=count) for (kind, reason), count in ordered]


def actions(connection: Connection) -> tuple[int, int]:
    """How many answers the store holds, and their bytes."""
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(catalog.action.c.size_bytes), 0))
    count, size = connection.execute(query.where(catalog.action.c.size_bytes > 0)).one()
    return int(count), int(size)


def _stats(row: Any, prices: Prices) -> Stats:
    kind, model, hits, misses, passed, saved_ns, input_tokens, output_tokens = row
    price = prices.get(model)
    return Stats(
        kind=kind,
        model=model,
        hits=int(hits),
        misses=int(misses),
        passed=int(passed),
        saved_seconds=int(saved_ns) / 1e9,
        saved_input_tokens=int(input_tokens),
        saved_output_tokens=int(output_tokens),
        saved_money=None if price is None else (int(input_tokens) * price[0] + int(output_tokens) * price[1]) / 1e6,
    )
