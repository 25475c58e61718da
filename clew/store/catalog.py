"""The catalog: the SQL index over the logs. Everything in it, names included, can be made again from them.

SQLAlchemy Core tables; rows go in as tuples through the driver (`insert`), because an ORM costs ten times as much.
Things are numbered: a *node* is a span or an artifact, and an edge is two numbers, from effect to cause.
"""

from __future__ import annotations

import enum
import importlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.sql.compiler import SQLCompiler

bound = bytearray  # bytes as SQLite's driver binds them at once: of `bytes` it first asks how they want to be adapted
_KEYS = 512  # that one statement looks up
_CHUNK = 500  # values in a statement that is made once
metadata = sa.MetaData()
_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


class Relation(enum.IntEnum):
    """What an edge says. Numbers stand in catalogs, which are made again when they change."""

    GENERATED = 1  # artifact -> span that made it
    USED = 2  # span -> artifact
    DERIVED = 3  # artifact -> artifact it was made from
    PART = 4  # artifact -> artifact it belongs to (row -> dataset, entry -> index)
    CONTAINS = 5  # rendered text -> piece found in it
    SAME = 6  # run-scoped value -> the value it is (same item, same text, in scope)
    COARSE = 7  # value -> what its maker could see, where nothing finer is known
    CHILD = 8  # span -> parent span; not data
    CONTROL = 9  # span -> span whose write triggered it; not data
    MADE_BY = 10  # global artifact -> span that made it; why does not walk it
    CANDIDATE = 11  # value -> one of several things it may be; not walked
    LIST = 13  # list -> its item, or the shorter list it continues
    RETRIEVED = 14  # rendered text -> retrieval that brought a piece of it


WALKED = (
    Relation.GENERATED,
    Relation.USED,
    Relation.DERIVED,
    Relation.PART,
    Relation.CONTAINS,
    Relation.SAME,
    Relation.COARSE,
    Relation.LIST,
    Relation.RETRIEVED,
)


class Evidence(enum.IntEnum):
    """How an edge is known (design: the four evidences)."""

    DECLARED = 1
    CONTENT = 2
    CONTAINED = 3
    INFERRED = 4


class Scope(enum.IntEnum):
    """What kind of identity a node has."""

    SPAN = 1  # key: trace id + span id
    GLOBAL = 2  # key: digest; the same wherever it is met
    VALUE = 3  # key: run, span and slot, or run and digest


# what every run has, by name: `Relation.USED` costs ten times as much before Python 3.12
USED, SAME, COARSE, CANDIDATE = Relation.USED, Relation.SAME, Relation.COARSE, Relation.CANDIDATE
LIST, GLOBAL, SCOPED = Relation.LIST, Scope.GLOBAL, Scope.VALUE


segment = sa.Table(
    "segment",
    metadata,
    sa.Column("id", _id, primary_key=True, autoincrement=False),
    sa.Column("stem", sa.String(80), nullable=False, unique=True),
    sa.Column("header", sa.LargeBinary, nullable=False),
    sa.Column("indexed", _id, nullable=False),  # logical bytes indexed so far
    sa.Column("damaged", sa.Integer, nullable=False, default=0),
    sa.Column("state", sa.String(8), nullable=False),  # alive, dead, unknown, sealed
)
blob = sa.Table(
    "blob",
    metadata,
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),
    sa.Column("segment", _id, nullable=False),
    sa.Column("offset", _id, nullable=False),
    sqlite_with_rowid=False,
)
word = sa.Table(
    "word",
    metadata,
    sa.Column("id", _id, primary_key=True, autoincrement=False),
    sa.Column("text", sa.Text, nullable=False, unique=True),
)
node = sa.Table(
    "node",
    metadata,
    sa.Column("id", _id, primary_key=True, autoincrement=False),
    sa.Column("key", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("scope", sa.SmallInteger, nullable=False),
    sa.Column("kind", _id, nullable=False),  # word
    sa.Column("domain", sa.SmallInteger),
    sa.Column("digest", sa.LargeBinary(32)),  # of scoped values; a global node's is its key
    sa.Column("run", _id),
    sa.Column("role", _id),  # word
    sa.Column("name", sa.Text),
    sa.Column("detail", sa.LargeBinary),  # MessagePack
)
sa.Index("node_digest", node.c.digest, sqlite_where=node.c.digest.isnot(None))
span = sa.Table(
    "span",
    metadata,
    sa.Column("id", _id, primary_key=True, autoincrement=False),  # a node id
    sa.Column("span_id", sa.LargeBinary(8), nullable=False),
    sa.Column("trace_id", sa.LargeBinary(16), nullable=False),
    sa.Column("parent_id", sa.LargeBinary(8)),
    sa.Column("run", _id, nullable=False),
    sa.Column("kind", _id, nullable=False),  # word
    sa.Column("name", _id, nullable=False),  # word
    sa.Column("start_ns", sa.BigInteger, nullable=False),
    sa.Column("end_ns", sa.BigInteger),
    sa.Column("status", sa.String(12), nullable=False),
    sa.Column("segment", _id, nullable=False),
    sa.Column("start_offset", _id),
    sa.Column("end_segment", _id),  # a span may end in a later segment than it began in
    sa.Column("end_offset", _id),
)
sa.Index("span_span_id", span.c.span_id)
sa.Index("span_run", span.c.run)
run = sa.Table(
    "run",
    metadata,
    sa.Column("id", _id, primary_key=True, autoincrement=False),
    sa.Column("run_id", sa.LargeBinary(16), nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("session", sa.Text),
    sa.Column("process_id", sa.LargeBinary(16), nullable=False),
    sa.Column("parent_run_id", sa.LargeBinary(16)),
    sa.Column("root", _id),  # span; None of a process run
    sa.Column("started_ns", sa.BigInteger, nullable=False),
    sa.Column("ended_ns", sa.BigInteger),
    sa.Column("status", sa.String(12), nullable=False),
    sa.Column("segment", _id, nullable=False),
    sa.Column("facets", sa.LargeBinary),  # MessagePack: facet -> digest
    sa.Column("answer", sa.LargeBinary),  # MessagePack: node ids
    sa.Column("replay_of", sa.LargeBinary(16)),  # run id
)
sa.Index("run_session", run.c.session)
sa.Index("run_started", run.c.started_ns)
sa.Index("run_process", run.c.process_id)
edge = sa.Table(
    "edge",
    metadata,
    sa.Column("src", _id, nullable=False),  # effect
    sa.Column("dst", _id, nullable=False),  # cause
    sa.Column("relation", sa.SmallInteger, nullable=False),
    sa.Column("start", _id, nullable=False, default=-1),  # where in the effect; -1: not said
    sa.Column("end", _id),
    sa.Column("evidence", sa.SmallInteger, nullable=False),
    sa.Column("source_start", _id),  # where in the cause
    sa.Column("source_end", _id),
    sa.Column("info", sa.LargeBinary),  # MessagePack
    sa.PrimaryKeyConstraint("src", "relation", "dst", "start"),
    sqlite_with_rowid=False,
)
sa.Index("edge_dst", edge.c.dst, edge.c.relation, edge.c.src)
leaf = sa.Table(  # which nodes have this text: row fields, documents, files
    "leaf",
    metadata,
    sa.Column("text", sa.LargeBinary(32), nullable=False),
    sa.Column("node", _id, nullable=False),
    sa.PrimaryKeyConstraint("text", "node"),
    sqlite_with_rowid=False,
)
member = sa.Table(  # rows of a dataset version
    "member",
    metadata,
    sa.Column("container", _id, nullable=False),
    sa.Column("position", _id, nullable=False),
    sa.Column("node", _id, nullable=False),
    sa.PrimaryKeyConstraint("container", "position"),
    sqlite_with_rowid=False,
)
sa.Index("member_node", member.c.node)
ref = sa.Table(
    "ref",
    metadata,
    sa.Column("name", sa.String(400), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("alias", sa.Boolean, nullable=False),
)
ref_history = sa.Table(
    "ref_history",
    metadata,
    sa.Column("name", sa.String(400), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("when_ns", sa.BigInteger, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("alias", sa.Boolean, nullable=False),
    sa.PrimaryKeyConstraint("name", "version"),
)
sa.Index("ref_history_digest", ref_history.c.digest)
lost = sa.Table(
    "lost",
    metadata,
    sa.Column("segment", _id, nullable=False),
    sa.Column("offset", _id, nullable=False),
    sa.Column("place", sa.String(200), nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("when_ns", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint("segment", "offset", "place"),
)
action = sa.Table(  # what was asked before, by key; answers that are not long stand here for a quick hit
    "action",
    metadata,
    sa.Column("key", sa.LargeBinary(32), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("operation", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("when_ns", sa.BigInteger, nullable=False),
    sa.Column("expires_ns", sa.BigInteger),
    sa.Column("duration_ns", sa.BigInteger, nullable=False),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),  # 0 of one that was evicted: only its key and time are left
    sa.Column("stem", sa.String(80), nullable=False),  # the segment that holds it
    sa.Column("offset", _id, nullable=False),
    sa.Column("record", sa.LargeBinary),  # None of a long one
)
sa.Index("action_stem", action.c.stem)
action_field = sa.Table(  # what keys were made of, to tell why one is another
    "action_field",
    metadata,
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("key", sa.LargeBinary(32), nullable=False),
    sa.Column("field", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("digest", "key", "field"),
    sqlite_with_rowid=False,
)
sa.Index("action_field_key", action_field.c.key)
action_use = sa.Table(  # what calls asked of the cache, by the span that asked; what a hit saved
    "action_use",
    metadata,
    sa.Column("span", _id, primary_key=True, autoincrement=False),
    sa.Column("kind", _id, nullable=False),  # word
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("key", sa.LargeBinary(32)),  # None of a batch
    sa.Column("hits", sa.Integer, nullable=False),
    sa.Column("misses", sa.Integer, nullable=False),
    sa.Column("passed", sa.Integer, nullable=False),  # calls that went by the cache, or whose answer it did not keep
    sa.Column("saved_ns", sa.BigInteger, nullable=False),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("when_ns", sa.BigInteger, nullable=False),
)
answer = sa.Table(  # where the log says what a run asked and was answered
    "answer",
    metadata,
    sa.Column("segment", _id, nullable=False),
    sa.Column("offset", _id, nullable=False),
    sa.Column("run_id", sa.LargeBinary(16), nullable=False),
    sa.PrimaryKeyConstraint("segment", "offset"),
    sqlite_with_rowid=False,
)
sa.Index("answer_run", answer.c.run_id)
setting = sa.Table(
    "setting",
    metadata,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
migration = sa.Table(
    "migration",
    metadata,
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("applied_ns", sa.BigInteger, nullable=False),
)


@lru_cache(maxsize=256)  # each open store has a dialect of its own
def _insert_sql(
    table: sa.Table,
    dialect: Dialect,
    columns: tuple[str, ...],
    ignore: bool,
    always: tuple[tuple[str, int], ...] = (),
    newest: str | None = None,
) -> tuple[str, tuple[int, ...] | None]:
    """The statement, and which column stands at each of its places where the driver counts them (else by name)."""
    written_for = importlib.import_module(f"sqlalchemy.dialects.{dialect.name}")  # no other: that would cost 50 ms
    values: dict[str, Any] = {name: sa.bindparam(name) for name in columns}
    values |= {name: sa.literal_column(str(value)) for name, value in always}
    statement = written_for.insert(table).inline().values(values)  # inline: SQLAlchemy asks for no key back
    if newest is not None:
        proposed = statement.excluded
        fresh = {name: proposed[name] for name in columns if not table.c[name].primary_key}
        where = proposed[newest] > table.c[newest]
        statement = statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=fresh, where=where)
    elif ignore:
        statement = statement.on_conflict_do_nothing()
    compiled = statement.compile(dialect=dialect)
    places = compiled.positiontup if compiled.positional else None
    return str(compiled), None if places is None else tuple(columns.index(name) for name in places)


def insert(
    connection: Connection,
    table: sa.Table,
    columns: Sequence[str],
    rows: Iterable[tuple[Any, ...]],
    *,
    always: tuple[tuple[str, int], ...] = (),
    ignore: bool = True,
    newest: str | None = None,
) -> None:
    """Insert rows (tuples in the order of `columns`) through the driver; rows that are there already stay, or with
    `newest` those that have the greater value in that column.

    `always` are columns that have one value in all rows.
    """
    values = list(rows)
    if not values:
        return
    sql, places = _insert_sql(table, connection.dialect, tuple(columns), ignore, always, newest)
    if places is None:
        connection.exec_driver_sql(sql, [dict(zip(columns, row, strict=True)) for row in values])
    elif places == tuple(range(len(columns))):
        connection.exec_driver_sql(sql, values)
    else:
        connection.exec_driver_sql(sql, list(map(itemgetter(*places), values)))


@lru_cache(maxsize=256)  # each open store has a dialect of its own
def _selecting_sql(
    statement: sa.Select[Any], dialect: Dialect, name: str, count: int
) -> tuple[str, tuple[str, ...] | None]:
    """The statement for so many values, and their names where the driver does not count them."""
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)
    expanded = compiled.construct_expanded_state({name: [0] * count})
    return expanded.statement, None if compiled.positional else tuple(expanded.parameters)


def selecting(
    connection: Connection, statement: sa.Select[Any], name: str, values: Sequence[Any]
) -> Sequence[Sequence[Any]]:
    """The rows of a statement with these values, one at least, for its only parameter, an expanding one; through the
    driver, as the rows come from it. The same statement object each time."""
    count = 1 << (len(values) - 1).bit_length()  # few texts serve any number of values
    filled = [*values, *[values[-1]] * (count - len(values))]
    sql, names = _selecting_sql(statement, connection.dialect, name, count)
    given: Any = tuple(filled) if names is None else dict(zip(names, filled, strict=True))
    result = connection.exec_driver_sql(sql, given)
    rows: Sequence[Sequence[Any]] = result.cursor.fetchall()
    result.close()
    return rows


def chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """`values` in parts that fit in one statement."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


@cache
def _matching(columns: tuple[sa.Column[Any], ...], key: sa.Column[Any]) -> sa.Select[Any]:
    return sa.select(*columns).where(key.in_(sa.bindparam("keys", expanding=True)))


def matching(
    connection: Connection, columns: tuple[sa.Column[Any], ...], key: sa.Column[Any], keys: Iterable[bytes]
) -> Iterator[Sequence[Any]]:
    """These columns of the rows whose `key` is one of `keys`, looked up many at once."""
    values = [bound(one) for one in keys]
    for start in range(0, len(values), _KEYS):
        yield from selecting(connection, _matching(columns, key), "keys", values[start : start + _KEYS])
