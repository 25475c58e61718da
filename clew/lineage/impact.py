"""`impact`: from a document, dataset, model or file forwards to every index, model and answer that it touched."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage import target
from clew.lineage.candidate import OWN_SOURCES, Joins
from clew.lineage.closure import chunks, closure, edges_from, edges_to
from clew.lineage.describe import Describer
from clew.lineage.graph import Edge, Lineage, Node
from clew.lineage.reader import StoreLike, reading
from clew.lineage.walk import STRICT, Walk
from clew.lineage.why import run_node
from clew.store import catalog
from clew.store.catalog import Relation
from clew.store.store import Store

FORWARDS = tuple(relation for relation in STRICT if relation is not Relation.PART)
LIMIT = 1000


def impact(of: Any, *, store: StoreLike = None, limit: int = LIMIT, after: str | None = None) -> Lineage:
    """What an artifact touched: documents and indexes made from it, and the answers (runs) that used it.

    `of` is anything `why` takes: a dataset version, a row (`dataset/NAME@N[POSITION]`, or in brackets a text that it alone
    holds, such as its id), a digest, a file. The newest `limit` answers are given; where
    there are more, `complete` is False and `next` is the cursor to pass as `after`.
    """
    if limit < 1:
        raise ValueError(f"limit is at least 1, not {limit}")
    with reading(store) as (opened, connection):
        return _impact(opened, connection, of, limit, after)


def _impact(store: Store, connection: Connection, of: Any, limit: int, after: str | None) -> Lineage:
    found = target.find(connection, of)
    starts = _starts(connection, found)
    reach = _Reach(store, connection, starts)
    runs, following = _answers(reach, limit, after)
    describer = Describer(store, connection)
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    if found.what == "run":
        root = run_node(connection.execute(sa.select(catalog.run).where(catalog.run.c.id == found.number)).one())
    else:
        describer.load([found.number])
        root = describer.node(found.number)
    nodes[root.id] = root
    kinds = ("row", "document", "chunk", "index", "model", "file", "dataset")
    artifacts = _of_kinds(connection, reach.certain, kinds, limit * 4)
    indexes = edges_from(connection, artifacts, (Relation.PART,))
    describer.load([*artifacts, *(row.dst for row in indexes)])
    for number in artifacts:
        node = describer.node(number)
        nodes.setdefault(node.id, node)
    for row in indexes:
        node = describer.node(row.dst)
        nodes.setdefault(node.id, node)
        edges.append(Edge(describer.id(row.src), node.id, "part_of", "declared"))
    for row in edges_from(connection, artifacts, (Relation.DERIVED, Relation.CONTAINS, Relation.SAME)):
        if row.dst in artifacts:
            edges.append(Edge(describer.id(row.src), describer.id(row.dst), "derived_from", "declared"))
    shown = {run.run_id for run in runs}
    for run in runs:
        if run.parent_run_id in shown:
            continue  # its answer is told with the run around it
        node = run_node(run)
        nodes[node.id] = node
        edges.append(Edge(node.id, root.id, "used", "content"))
    return Lineage(root.id, nodes, edges, complete=following is None, next=following, question="impact")


def _starts(connection: Connection, found: target.Target) -> list[int]:
    if found.what == "run":
        query = sa.select(catalog.span.c.id).where(catalog.span.c.run == found.number)
        return list(connection.execute(query).scalars())
    members = sa.select(catalog.member.c.node).where(catalog.member.c.container == found.number)
    return [found.number, *connection.execute(members).scalars()]


def _of_kinds(connection: Connection, numbers: set[int], kinds: tuple[str, ...], limit: int) -> list[int]:
    words = sa.select(catalog.word.c.id).where(catalog.word.c.text.in_(kinds))
    found: list[int] = []
    for part in chunks(sorted(numbers)):
        query = sa.select(catalog.node.c.id).where(catalog.node.c.id.in_(part), catalog.node.c.kind.in_(words))
        found.extend(connection.execute(query).scalars())
        if len(found) >= limit:
            return found[:limit]
    return found


def _answers(reach: _Reach, limit: int, after: str | None) -> tuple[list[Any], str | None]:
    """Runs whose answer was reached, newest first; and the cursor of the next page."""

    table = catalog.run
    query = sa.select(table).where(table.c.root.isnot(None)).order_by(table.c.started_ns.desc(), table.c.id.desc())
    if after is not None:
        try:
            stamp, number = (int(part) for part in after.split("-"))
        except ValueError:
            raise ValueError(f"{after!r} is no cursor; pass the `next` of the page before") from None
        query = query.where(
            sa.or_(table.c.started_ns < stamp, sa.and_(table.c.started_ns == stamp, table.c.id < number))
        )
    runs: list[Any] = []
    for row in reach.connection.execute(query):
        if not row.answer or not reach.holds(msgspec.msgpack.decode(row.answer)):
            continue
        if len(runs) == limit:
            return runs, f"{runs[-1].started_ns}-{runs[-1].id}"
        runs.append(row)
    return runs, None


def runs_using(store: Store, connection: Connection, names: list[str]) -> set[str]:
    """Ids of the runs whose answer came of every one of these artifacts."""

    kept: set[str] | None = None
    for name in names:
        reach = _Reach(store, connection, _starts(connection, target.find(connection, name)))
        coded = _code_runs(connection, reach.certain)
        query = sa.select(catalog.run.c.run_id, catalog.run.c.answer).where(catalog.run.c.answer.isnot(None))
        using = set()
        for row in connection.execute(query).all():
            answer = msgspec.msgpack.decode(row.answer)
            if not coded.isdisjoint(answer) or reach.holds(answer):
                using.add(row.run_id.hex())
        kept = using if kept is None else kept & using
    return kept or set()


def _code_runs(connection: Connection, reached: set[int]) -> set[int]:
    """Answers of runs whose process ran with one of these artifacts as its code or environment."""

    keys: set[bytes] = set()
    for part in chunks(list(reached)):
        keys.update(connection.execute(sa.select(catalog.node.c.key).where(catalog.node.c.id.in_(part))).scalars())
    found: set[int] = set()
    query = sa.select(catalog.run.c.run_id, catalog.run.c.facets).where(catalog.run.c.facets.isnot(None))
    for row in connection.execute(query).all():
        if keys.intersection(msgspec.msgpack.decode(row.facets).values()):
            answers = sa.select(catalog.run.c.answer).where(catalog.run.c.process_id == row.run_id)
            for answer in connection.execute(answers).scalars():
                found.update(msgspec.msgpack.decode(answer) if answer else ())
    return found


class _Reach:
    """What came of `starts`, documents of the same text included.

    `certain` is what did beyond doubt. A text that may be one of several is narrowed as seen from an answer, by the index
    that answered or because the several are one row: an answer that such a text leads to is asked where it came from.
    """

    def __init__(self, store: Store, connection: Connection, starts: Iterable[int]) -> None:
        self.store = store
        self.connection = connection
        self.starts = set(starts)
        self.certain: set[int] = set()
        self._doubtful: set[int] = set()
        waiting: set[int] = set()
        frontier = self.starts
        while frontier:
            found = closure(connection, frontier, FORWARDS, forwards=True) - self.certain
            self.certain |= found
            alike = self._alike(found)
            waiting.update(alike)
            frontier = self._joined(alike) - self.certain
        frontier = (waiting | self._candidates(self.certain)) - self.certain
        while frontier:
            found = closure(connection, frontier, FORWARDS, forwards=True) - self.certain - self._doubtful
            self._doubtful |= found
            frontier = self._candidates(found).union(self._alike(found)) - self.certain - self._doubtful

    def holds(self, answer: Collection[int]) -> bool:
        """Whether the nodes of an answer came of the starts."""
        if not self.certain.isdisjoint(answer):
            return True
        return not self._doubtful.isdisjoint(answer) and not self.starts.isdisjoint(
            Walk(self.store, self.connection, answer).strict
        )

    def _joined(self, documents: Collection[int]) -> set[int]:
        """Those documents that join what was reached beyond doubt."""
        choices = Joins(self.store, self.connection).resolve(documents, ())
        return {choice.document for choice in choices if choice.source in self.certain}

    def _candidates(self, numbers: Collection[int]) -> set[int]:
        """Texts that may hold one of `numbers`, among others."""
        return {row.src for row in edges_to(self.connection, numbers, (Relation.CANDIDATE,))}

    def _alike(self, numbers: Collection[int]) -> list[int]:
        """Documents without a source of their own that have the text of one of `numbers`."""
        leaf = catalog.leaf.c
        texts: dict[bytes, None] = {}
        for part in chunks(list(numbers)):
            query = sa.select(leaf.text).where(leaf.node.in_(part))
            texts.update((text, None) for text in self.connection.execute(query).scalars())
        others: set[int] = set()
        for keys in chunks(list(texts)):
            others.update(self.connection.execute(sa.select(leaf.node).where(leaf.text.in_(keys))).scalars())
        others.difference_update(self.certain, self._doubtful)
        sourced = {row.src for row in edges_from(self.connection, others, OWN_SOURCES)}
        return [one for one in others if one not in sourced]
