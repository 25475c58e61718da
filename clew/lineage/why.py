"""`why`: from an answer to everything that produced it."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage import target
from clew.lineage.assemble import Assembly
from clew.lineage.control import add_control
from clew.lineage.describe import Describer
from clew.lineage.graph import Lineage, Node
from clew.lineage.reader import StoreLike, reading
from clew.lineage.walk import Walk
from clew.store import catalog
from clew.store.errors import NotFound
from clew.store.store import Store


def why(of: Any = None, *, store: StoreLike = None, output: str | None = None, control: bool = False) -> Lineage:
    """What produced an answer: rows, documents, prompts, models, tools, code and environment, with the evidence.

    `of` is a run (the object, its id or its name), a span id, a digest, a ref name, a row name or a file path; ids and
    digests by any unique prefix; None is the last run. `output` names the channel of a run's answer to start from.
    `control` adds the edges by which one node triggered another. Raises NotFound, saying what was close.
    """
    with reading(store) as (opened, connection):
        return _why(opened, connection, of, output, control)


def _why(store: Store, connection: Connection, of: Any, output: str | None, control: bool) -> Lineage:
    found = target.find(connection, of) if of is not None else last_run(connection)
    when = None
    root: Node | None = None
    if found.what == "run":
        row = connection.execute(sa.select(catalog.run).where(catalog.run.c.id == found.number)).one()
        when = row.started_ns
        starts = answer_of(connection, row, output)
        root = run_node(row)
    else:
        starts = [found.number]
        when = _time_of(connection, found)
    walk = Walk(store, connection, starts)
    describer = Describer(store, connection, when)
    assembly = Assembly(store, connection, walk, describer)
    graph = assembly.graph(starts, root)
    if control:
        add_control(connection, walk, describer, graph)
    if root is not None and not starts:
        root.detail["note"] = "this run has no answer yet; `clew show` tells what it did"
    return graph


def last_run(connection: Connection) -> target.Target:
    """The newest run that has a span. NotFound in a store without runs."""
    query = sa.select(catalog.run.c.id).where(catalog.run.c.root.isnot(None), catalog.run.c.parent_run_id.is_(None))
    number = connection.execute(query.order_by(catalog.run.c.started_ns.desc()).limit(1)).scalar()
    if number is None:
        raise NotFound("this store holds no run yet")
    return target.Target("run", number)


def run_node(row: Any) -> Node:
    """The node that a run is in a lineage graph; its id is the run's."""
    return Node(
        row.run_id.hex(),
        "workflow",
        row.name,
        run_id=row.run_id.hex(),
        detail={"session": row.session, "status": row.status, "started_ns": row.started_ns, "project": row.project},
    )


def answer_of(connection: Connection, row: Any, output: str | None) -> list[int]:
    """The nodes of a run's answer; with `output`, what was last written to that channel."""
    if output is not None:
        role = sa.select(catalog.word.c.id).where(catalog.word.c.text == output).scalar_subquery()
        query = sa.select(catalog.node.c.id, catalog.node.c.key).where(
            catalog.node.c.run == row.id, catalog.node.c.role == role
        )
        nodes = [one[0] for one in connection.execute(query) if one[1][:1] == b"o"]
        if not nodes:
            words = sa.select(catalog.word.c.text).join(catalog.node, catalog.node.c.role == catalog.word.c.id)
            channels = sorted(set(connection.execute(words.where(catalog.node.c.run == row.id)).scalars()))
            raise NotFound(
                f"run {row.run_id.hex()} wrote no output {output!r}; it wrote {', '.join(channels) or 'nothing'}"
            )
        return nodes[-1:]
    if row.answer:
        answer: list[int] = msgspec.msgpack.decode(row.answer)
        return answer
    child = sa.select(catalog.run).where(catalog.run.c.parent_run_id == row.run_id)
    last = connection.execute(child.order_by(catalog.run.c.started_ns.desc()).limit(1)).first()
    return answer_of(connection, last, None) if last is not None else []


def _time_of(connection: Connection, found: target.Target) -> int | None:
    if found.what == "span":
        return connection.execute(sa.select(catalog.span.c.start_ns).where(catalog.span.c.id == found.number)).scalar()
    query = sa.select(catalog.run.c.started_ns).join(catalog.node, catalog.node.c.run == catalog.run.c.id)
    return connection.execute(query.where(catalog.node.c.id == found.number)).scalar()
