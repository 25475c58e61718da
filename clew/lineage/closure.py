"""Closure: everything reachable along edges, computed in the database over integer ids.

Backwards (effect to cause) answers `why`, forwards answers `impact`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from clew.store import catalog
from clew.store.catalog import Relation

T = TypeVar("T")
_CHUNK = 500


@cache
def _statement(relations: tuple[int, ...], forwards: bool) -> sa.Select[tuple[int]]:
    edge = catalog.edge
    here, there = (edge.c.dst, edge.c.src) if forwards else (edge.c.src, edge.c.dst)
    # one bit for each relation: with `IN`, SQLite makes one seek for each, twice the time on a million edges
    bits = sum(1 << relation for relation in relations)
    walked = sa.literal_column(f"(({bits} >> edge.relation) & 1)", sa.Integer) != sa.literal_column("0")
    first = sa.select(there.label("id")).where(here.in_(sa.bindparam("seeds", expanding=True)), walked)
    reach = first.cte("reach", recursive=True)
    step = sa.select(there).select_from(edge.join(reach, here == reach.c.id)).where(walked)
    return sa.select(reach.union(step).c.id)


def closure(
    connection: Connection, seeds: Iterable[int], relations: Collection[Relation], *, forwards: bool = False
) -> set[int]:
    """The nodes reachable from `seeds`, seeds included, along edges of these relations."""
    todo = list(dict.fromkeys(seeds))
    reached: set[int] = set()
    statement = _statement(tuple(sorted(int(relation) for relation in relations)), forwards)
    for start in range(0, len(todo), _CHUNK):
        part = [seed for seed in todo[start : start + _CHUNK] if seed not in reached]
        if part:
            reached.update(part)
            reached.update(found for (found,) in catalog.selecting(connection, statement, "seeds", part))
    return reached


def edges_from(
    connection: Connection, nodes: Collection[int], relations: Collection[Relation]
) -> list[Row[tuple[int, ...]]]:
    """All edges of these relations whose effect is one of `nodes`."""
    return _edges(connection, nodes, relations, catalog.edge.c.src)


def edges_to(
    connection: Connection, nodes: Collection[int], relations: Collection[Relation]
) -> list[Row[tuple[int, ...]]]:
    """All edges of these relations whose cause is one of `nodes`."""
    return _edges(connection, nodes, relations, catalog.edge.c.dst)


def _edges(
    connection: Connection, nodes: Collection[int], relations: Collection[Relation], end: sa.ColumnElement[int]
) -> list[Row[tuple[int, ...]]]:
    found: list[Row[tuple[int, ...]]] = []
    for part in chunks(list(nodes)):
        statement = sa.select(catalog.edge).where(
            end.in_(part), catalog.edge.c.relation.in_([int(relation) for relation in relations])
        )
        found.extend(connection.execute(statement))
    return found


def chunks(values: Sequence[T], size: int = _CHUNK) -> Iterable[Sequence[T]]:
    """`values` in parts that fit in one statement."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
