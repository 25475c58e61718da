"""Control: which node of a graph ran because of which other. No data, so `why` shows it only when it is asked to."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage.closure import chunks, closure, edges_from
from clew.lineage.describe import Describer
from clew.lineage.graph import Edge, Lineage
from clew.lineage.rows import output_of
from clew.lineage.walk import Walk
from clew.store import catalog
from clew.store.catalog import Evidence, Relation, Scope


def add_control(connection: Connection, walk: Walk, describer: Describer, graph: Lineage) -> None:
    """Add the nodes in which the spans of the walk ran and its values were made, and what made those nodes run."""
    made_in = _makers(connection, walk.strict)
    inside = _nodes_around(connection, {*walk.strict, *made_in.values()})
    places = {one: inside[one] for one in walk.strict if one in inside}
    places |= {value: inside[maker] for value, maker in made_in.items() if maker in inside}
    nodes = closure(connection, set(places.values()), (Relation.CONTROL,))
    describer.load(list(nodes))
    for number in nodes:
        graph.nodes.setdefault(describer.id(number), describer.node(number))
    for effect, node in places.items():
        if effect != node and made_in.get(effect) not in walk.strict:  # else its span is there, and in a node itself
            relation = "generated_by" if effect in made_in else "part_of"
            graph.edges.append(Edge(describer.id(effect), describer.id(node), relation, "declared"))
    for row in edges_from(connection, nodes, (Relation.CONTROL,)):
        evidence = Evidence(row.evidence).name.lower()
        graph.edges.append(Edge(describer.id(row.src), describer.id(row.dst), "triggered_by", evidence))


def _makers(connection: Connection, values: Collection[int]) -> dict[int, int]:
    """Of values that a span generated: value -> span."""
    found = {}
    for part in chunks(list(values)):
        node = catalog.node.c
        query = sa.select(node.id, node.key).where(node.id.in_(part), node.scope == int(Scope.VALUE))
        for number, key in connection.execute(query):
            if (maker := output_of(key)) is not None:
                found[number] = maker
    return found


def _nodes_around(connection: Connection, spans: Collection[int]) -> dict[int, int]:
    """Of those of `spans` that run in a graph's node, or are one: span -> the innermost node."""
    span, kind = catalog.span, sa.select(catalog.word.c.id).where(catalog.word.c.text == "node").scalar_subquery()
    above = span.alias()
    query = sa.select(span.c.id, span.c.kind == kind, above.c.id).outerjoin(
        above, sa.and_(above.c.span_id == span.c.parent_id, above.c.trace_id == span.c.trace_id)
    )
    known: dict[int, tuple[bool, int | None]] = {}
    frontier = set(spans)
    while frontier:
        more: set[int] = set()
        for part in chunks(list(frontier)):
            for number, is_node, parent in connection.execute(query.where(span.c.id.in_(part))):
                known[number] = (is_node, parent)
                if not is_node and parent is not None and parent not in known:
                    more.add(parent)
        frontier = more
    found = {}
    for number in spans:
        at: int | None = number
        while at in known and not known[at][0]:
            at = known[at][1]
        if at is not None and at in known:
            found[number] = at
    return found
