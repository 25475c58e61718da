"""`diff`: what two runs did differently, and where they parted."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage import target
from clew.lineage.difference.alignment import align
from clew.lineage.difference.change import ABSENT, Change, compared
from clew.lineage.difference.divergence import judge
from clew.lineage.difference.facet import Facets
from clew.lineage.difference.fingerprint import Fingerprints
from clew.lineage.difference.result import UNFINISHED, Answer, Difference
from clew.lineage.difference.step import Step, steps
from clew.lineage.reader import StoreLike, reading
from clew.lineage.view import RunView, run_views, span_views
from clew.lineage.why import answer_of
from clew.store import catalog
from clew.store.digest import Domain
from clew.store.errors import NotFound
from clew.store.store import Store

REPLAY_OF = "replay_of"  # the link of a replay's root span to that of the run it replays


_ENDED = {
    "running": "is still running",
    "killed": "was killed",
    "interrupted": "waits for input",
    "closed_early": "was left open by its process",
    "unknown": "has no end that is known here",
}


def diff(a: Any, b: Any = None, *, store: StoreLike = None) -> Difference:
    """What differs between two runs of one store, and the first steps that do.

    `a` and `b` are runs: the object, an id or any unique prefix, a name (the newest run of it). Without `b`, `a` is a
    replay, and is compared with the run that it replays, which comes first. Steps are aligned by what they were asked
    and by their node, not by time. Raises NotFound, also where `a` alone is no replay.
    """
    with reading(store) as (opened, connection):
        first = _run(connection, a)
        if b is None:
            first, second = _original(opened, connection, first), first
        else:
            second = _run(connection, b)
        return _diff(opened, connection, first, second)


def _run(connection: Connection, name: Any) -> Any:
    found = target.find(connection, name)
    if found.what != "run":
        raise NotFound(f"{name!r} is a {'span' if found.what == 'span' else 'artifact'}, not a run: diff compares runs")
    return connection.execute(sa.select(catalog.run).where(catalog.run.c.id == found.number)).one()


def _original(store: Store, connection: Connection, row: Any) -> Any:
    """The run that a replay replays."""
    if row.replay_of:
        found = connection.execute(sa.select(catalog.run).where(catalog.run.c.run_id == row.replay_of)).first()
        if found is None:
            raise NotFound(f"run {row.run_id.hex()} replays run {row.replay_of.hex()}, which is not in this store")
        return found
    root = span_views(store, connection, None, only=row.root) if row.root is not None else []
    for trace_id, span_id, kind in root[0].links if root else ():
        if kind == REPLAY_OF:
            span = catalog.span.c
            query = sa.select(span.run).where(
                span.span_id == bytes.fromhex(span_id), span.trace_id == bytes.fromhex(trace_id)
            )
            number = connection.execute(query).scalar()
            if number is None:
                raise NotFound(f"run {row.run_id.hex()} replays a run whose span {span_id} is not in this store")
            return connection.execute(sa.select(catalog.run).where(catalog.run.c.id == number)).one()
    raise NotFound(f"run {row.run_id.hex()} is no replay: name the run to compare it with")


def _diff(store: Store, connection: Connection, a: Any, b: Any) -> Difference:
    views = {view.run_id: view for view in run_views(store, connection, everything=True)}
    sides = [_Side(store, connection, row, views[row.run_id.hex()]) for row in (a, b)]
    one, other = sides
    pairs = align(one.tops, other.tops)
    divergences = judge(pairs)
    facets = Facets(store, connection, a, b).all(one.steps(), other.steps())
    answer = _answer(one, other)
    for side in sides:
        side.content.detach()  # what differs in a step is read when it is asked for
    return Difference(one.view, other.view, pairs, divergences, answer, facets, [*_notes(one), *_notes(other)])


class _Side:
    """One of the two runs."""

    def __init__(self, store: Store, connection: Connection, row: Any, view: RunView) -> None:
        self.row = row
        self.view = view
        self.tops, self.content = steps(store, connection, span_views(store, connection, row.id))
        self.answer = self._answer(connection)

    def steps(self) -> list[Step]:
        """All of its steps."""
        return [step for top in self.tops for step in top.within()]

    def _answer(self, connection: Connection) -> list[tuple[str, int, bytes]]:
        """Role, domain and digest of what it answered."""
        numbers = answer_of(connection, self.row, None)
        node, word = catalog.node.c, catalog.word.c
        query = sa.select(node.id, node.domain, node.digest, node.key, word.text).outerjoin(
            catalog.word, node.role == word.id
        )
        rows = {row.id: row for row in connection.execute(query.where(node.id.in_(numbers)))}
        found = [rows[number] for number in numbers if number in rows]
        return [
            (
                row.text or "answer",
                row.domain or int(Domain.VALUE),
                bytes(row.digest if row.digest is not None else row.key),
            )
            for row in found
        ]


def _prints(side: _Side) -> list[tuple[str, bytes]]:
    return sorted((role, side.content.of(domain, digest)) for role, domain, digest in side.answer)


def _values(side: _Side) -> dict[str, Any]:
    content: Fingerprints = side.content
    renaming = content.renaming()
    found: dict[str, list[Any]] = {}
    for role, domain, digest in side.answer:
        found.setdefault(role, []).append(content.value(domain, digest, renaming))
    return {role: values[0] if len(values) == 1 else values for role, values in found.items()}


def _answer(one: _Side, other: _Side) -> Answer:
    if not one.answer and not other.answer:
        return Answer(None, [])
    if _prints(one) == _prints(other):
        return Answer(True, [])
    a, b = _values(one), _values(other)
    if not a or not b:
        return Answer(False, [Change("answer", "answer", a or ABSENT, b or ABSENT)])
    return Answer(False, list(compared("answer", "", a, b)))


def _notes(side: _Side) -> list[str]:
    found = []
    if side.view.status in UNFINISHED:
        found.append(f"run {side.view.run_id} {_ENDED[side.view.status]}: it may lack steps that it did not reach")
    if side.content.unread:
        found.append(
            f"{side.content.unread} values of run {side.view.run_id} have no content in the store: they were compared"
            " by digest, minted ids included"
        )
    return found
