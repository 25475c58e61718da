"""Rows on their way into the catalog: numbers for nodes and words, and one batch of inserts.

Only the holder of the store's index lock makes rows, so numbers are handed out in memory. What another process indexed
meanwhile is noticed by a token, and everything remembered here is then dropped.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.store import catalog
from clew.store.catalog import Evidence, Relation, Scope, bound

_pack = msgspec.msgpack.Encoder(enc_hook=bytes).encode
_REMEMBERED = 400_000
AGAIN = b"again."  # follows a span's number in the key of a value that the span met, and did not make
_OUTPUT, _MET = b"o", b"v"  # how the keys of values begin: what a span made, what a run met

NODE = ("id", "key", "scope", "kind", "domain", "digest", "run", "role")
NAMED_NODE = (*NODE, "name", "detail")
SPAN = (
    "id",
    "span_id",
    "trace_id",
    "parent_id",
    "run",
    "kind",
    "start_ns",
    "segment",
    "start_offset",
    "name",
    "end_ns",
    "status",
    "end_segment",
    "end_offset",
)
_RUNNING = (None, "running", None, None)  # the last four of these, until a span ends
EDGE = ("src", "dst", "relation", "start", "end", "evidence", "info")
SOURCED_EDGE = (*EDGE, "source_start", "source_end")
PLAIN_EDGE = ("src", "dst", "relation")
_SAID = Evidence.DECLARED
_WHOLE = -1  # the start of an edge that is about no range of a text
_PLAIN = (("start", _WHOLE), ("evidence", int(_SAID)))


def output_of(key: bytes) -> int | None:
    """The span that made the value with this key, if that is what the key says. Not to be asked of a digest."""
    if key[:1] != _OUTPUT or key[9:].startswith(AGAIN):
        return None
    return int.from_bytes(key[1:9], "big")


class Rows:
    """Collects rows for the catalog; `flush` writes them in the caller's transaction."""

    def __init__(self) -> None:
        self._token = secrets.token_bytes(8)
        self._words: dict[str, int] = {}
        self._nodes: dict[bytes, int] = {}
        self._next_node = self._next_word = self._next_run = 1
        self._own_runs = 1  # from here on, numbers were given by this indexer,
        self._own_outputs = self._own_met = b""  # and keys are of spans and runs with such a number
        self._lost_nodes = False  # some keys were dropped from memory
        self.connection: Connection | None = None
        self.muted = False  # while a run is read again, whose edges are in the catalog already
        self._absent: set[bytes] = set()  # spans that the catalog does not have
        self._unknown: set[bytes] = set()  # nodes that it does not have
        self._said: set[tuple[int, str | None, bytes | None]] = set()  # names and facts that nodes in it were given
        self._clear()

    def _clear(self) -> None:
        self.new_words: list[tuple[int, str]] = []
        self.new_nodes: dict[int, tuple[Any, ...]] = {}
        self.named: dict[int, tuple[str | None, bytes | None]] = {}  # of new nodes that have them: name and facts
        self.new_spans: dict[int, tuple[Any, ...]] = {}  # as they began
        self.new_ends: dict[int, tuple[Any, ...]] = {}  # how they ended
        self.span_ends: list[dict[str, Any]] = []
        self.edges: dict[tuple[int, int, int, int], tuple[Any, ...]] = {}  # by what tells edges apart: the rest
        self.sources: dict[tuple[int, int, int, int], tuple[int, int]] = {}  # of these, the range in the cause's text
        self.plain: dict[tuple[int, int, int], None] = {}  # edges that only were declared
        self.leaves: set[tuple[bytes, int]] = set()
        self.members: list[tuple[int, int, int]] = []
        self.facts: list[dict[str, Any]] = []
        self.uses: list[tuple[Any, ...]] = []  # of the cache
        self.new_runs: dict[int, dict[str, Any]] = {}
        self.run_changes: dict[int, dict[str, Any]] = {}

    def begin(self, connection: Connection) -> bool:
        """Start a transaction's rows; returns whether somebody else indexed since, so that memory must be dropped."""
        self.connection = connection
        self._clear()
        self._unknown = set()
        if len(self._nodes) > _REMEMBERED:  # here, and not amid a transaction: the catalog has all of them
            self._nodes = {}
            self._lost_nodes = True
        setting = catalog.setting
        held = connection.execute(sa.select(setting.c.value).where(setting.c.name == "indexer")).scalar()
        if held == self._token:
            return False
        connection.execute(sa.delete(setting).where(setting.c.name == "indexer"))
        connection.execute(sa.insert(setting).values(name="indexer", value=self._token))
        top = [
            connection.execute(sa.select(sa.func.coalesce(sa.func.max(column), 0))).scalar_one()
            for column in (catalog.node.c.id, catalog.span.c.id, catalog.word.c.id, catalog.run.c.id)
        ]
        self._next_node = max(top[0], top[1]) + 1
        self._next_word = top[2] + 1
        self._next_run = top[3] + 1
        self._own_runs = self._next_run
        self._own_outputs = _OUTPUT + self._next_node.to_bytes(8, "big")
        self._own_met = _MET + self._next_run.to_bytes(8, "big")
        self._lost_nodes = False
        self._nodes, self._said = {}, set()
        self._words = {text: number for number, text in connection.execute(sa.select(catalog.word))}
        return True

    def forget(self) -> None:
        """The transaction failed: nothing that was remembered can be trusted."""
        self._token = secrets.token_bytes(8)

    def word(self, text: str) -> int:
        """The number of a name that occurs often."""
        number = self._words.get(text)
        if number is None:
            number = self._words[text] = self._next_word
            self._next_word += 1
            self.new_words.append((number, text))
        return number

    def new_run(self, **values: Any) -> int:
        """A number for a new run, whose row is written with the batch."""
        number = self._next_run
        self._next_run += 1
        self.new_runs[number] = {"id": number, **_RUN_DEFAULTS, **values}
        return number

    def change_run(self, number: int, **values: Any) -> None:
        """New values of a run."""
        fresh = self.new_runs.get(number)
        (fresh if fresh is not None else self.run_changes.setdefault(number, {})).update(values)

    def is_older(self, run: int) -> bool:
        """Whether a run's number was not given by this indexer since it last began anew."""
        return run < self._own_runs

    def find(self, key: bytes) -> int | None:
        """The node with this key, if there is one."""
        number = self._nodes.get(key)
        if number is None and self.connection is not None and not self._surely_new(key):
            found = self.connection.execute(_NODE_BY_KEY, {"key": bytes(key)}).scalar()
            if found is not None:
                number = self._remember(key, found)
        return number

    def _surely_new(self, key: bytes) -> bool:
        """Whether the catalog does not have it: it is a digest that `know_nodes` did not find, or the key of a value of a
        span or run that this indexer numbered itself, which would be in memory."""
        if len(key) == 32:
            return key in self._unknown
        if self._lost_nodes:
            return False
        return key >= (self._own_outputs if key[:1] == _OUTPUT else self._own_met)

    def know_nodes(self, digests: Iterable[bytes]) -> None:
        """Look up many nodes at once, before they are asked for one by one."""
        missing = {bytes(digest) for digest in digests if digest not in self._nodes}
        assert self.connection is not None
        node = catalog.node.c
        for key, number in catalog.matching(self.connection, (node.key, node.id), node.key, missing):
            self._remember(key, number)
            missing.discard(bytes(key))
        self._unknown |= missing

    def find_span(self, key: bytes) -> int | None:
        """The span with this key (trace id + span id), if there is one. Reads the catalog only after `know_spans`
        said nothing of it."""
        number = self._nodes.get(key)
        if number is None and self.connection is not None and key not in self._absent:
            found = self.connection.execute(_SPAN_BY_KEY, {"trace": key[:16], "span": key[16:]}).scalar()
            if found is not None:
                number = self._remember(key, found)
        return number

    def know_spans(self, keys: Iterable[bytes]) -> None:
        """Look up many spans at once, before they are asked for one by one."""
        missing = [key for key in keys if key not in self._nodes]
        self._absent = set(missing)
        assert self.connection is not None
        span = catalog.span.c
        columns = (span.id, span.trace_id, span.span_id)
        for number, trace, name in catalog.matching(self.connection, columns, span.span_id, {k[16:] for k in missing}):
            self._remember(trace + name, number)
            self._absent.discard(trace + name)

    def _remember(self, key: bytes, number: int) -> int:
        self._nodes[bytes(key)] = number
        return number

    def new_span(self, key: bytes) -> int:
        """A number for a new span."""
        number = self._next_node
        self._next_node += 1
        return self._remember(key, number)

    def node(
        self,
        key: bytes,
        scope: Scope,
        kind: str,
        *,
        domain: int | None = None,
        digest: bytes | None = None,
        run: int | None = None,
        role: str | None = None,
        name: str | None = None,
        detail: dict[str, Any] | None = None,
    ) -> tuple[int, bool]:
        """The number of a node, made if it is new; and whether it is new. The first kind and name stay."""
        number = self._nodes.get(key)
        if number is None and not self._surely_new(key):
            number = self.find(key)
        if number is not None:
            return number, False
        number = self._next_node
        self._next_node += 1
        self._remember(key, number)
        self.new_nodes[number] = (
            number,
            bound(key),
            +scope,
            self.word(kind),
            domain,
            bound(digest) if digest is not None else None,
            run,
            self.word(role) if role else None,
        )
        if name is not None or detail:
            self.name_node(number, name, detail)
        return number, True

    def name_node(self, number: int, name: str | None, detail: dict[str, Any] | None = None) -> None:
        """Give a node a name and facts, where it has none."""
        packed = _pack(detail) if detail else None
        if number in self.new_nodes:
            first, facts = self.named.get(number, (None, None))
            self.named[number] = (first or name, facts or packed)
        elif (name or packed) and (said := (number, name, packed)) not in self._said:
            if len(self._said) > _REMEMBERED:
                self._said.clear()
            self._said.add(said)
            self.facts.append({"number": number, "a_name": name, "a_detail": packed})

    def edge(
        self,
        src: int,
        dst: int,
        relation: Relation,
        evidence: Evidence = _SAID,
        *,
        at: tuple[int, int] | None = None,
        source: tuple[int, int] | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        """An edge from effect to cause. `at` is the range in the effect's text, `source` the range in the cause's."""
        if src == dst or self.muted:
            return
        if evidence is _SAID and not (at or source or info):
            self.plain[src, dst, +relation] = None  # the plain number of an enum's member
            return
        start, end = at if at else (_WHOLE, None)
        key = (src, dst, +relation, start)
        if key not in self.edges and (start != _WHOLE or key[:3] not in self.plain):
            self.edges[key] = (end, +evidence, bound(_pack(info)) if info else None)
            if source:
                self.sources[key] = source

    def flush(self) -> None:
        """Write what was collected."""
        connection = self.connection
        assert connection is not None
        catalog.insert(connection, catalog.word, ("id", "text"), self.new_words)
        named = [self.new_nodes.pop(number) + said for number, said in self.named.items()]
        catalog.insert(connection, catalog.node, NAMED_NODE, named)
        catalog.insert(connection, catalog.node, NODE, self.new_nodes.values())
        spans = [began + self.new_ends.get(number, _RUNNING) for number, began in self.new_spans.items()]
        catalog.insert(connection, catalog.span, SPAN, spans)
        sourced = [key + self.edges.pop(key) + source for key, source in sorted(self.sources.items())]
        catalog.insert(connection, catalog.edge, SOURCED_EDGE, sourced)
        catalog.insert(connection, catalog.edge, EDGE, [key + rest for key, rest in sorted(self.edges.items())])
        catalog.insert(connection, catalog.edge, PLAIN_EDGE, sorted(self.plain), always=_PLAIN)  # where none is yet
        catalog.insert(connection, catalog.leaf, ("text", "node"), self.leaves)
        catalog.insert(connection, catalog.member, ("container", "position", "node"), self.members)
        catalog.insert(connection, catalog.action_use, tuple(catalog.action_use.c.keys()), self.uses)
        columns = ("id", *_RUN_DEFAULTS)
        rows = [tuple([row[column] for column in columns]) for row in self.new_runs.values()]
        catalog.insert(connection, catalog.run, columns, rows)
        for number, values in self.run_changes.items():
            connection.execute(sa.update(catalog.run).where(catalog.run.c.id == number).values(**values))
        if self.span_ends:
            connection.execute(_SPAN_END, self.span_ends)
        if self.facts:
            connection.execute(_NODE_FACTS, self.facts)
        self._clear()


_NODE_BY_KEY = sa.select(catalog.node.c.id).where(catalog.node.c.key == sa.bindparam("key"))
_SPAN_BY_KEY = sa.select(catalog.span.c.id).where(
    catalog.span.c.span_id == sa.bindparam("span"), catalog.span.c.trace_id == sa.bindparam("trace")
)
_RUN_DEFAULTS: dict[str, Any] = {column.name: None for column in catalog.run.c if column.name != "id"}
_SPAN_END = (
    sa.update(catalog.span)
    .where(catalog.span.c.id == sa.bindparam("number"))
    .values(
        end_ns=sa.bindparam("a_end_ns"),
        status=sa.bindparam("a_status"),
        end_segment=sa.bindparam("a_segment"),
        end_offset=sa.bindparam("a_offset"),
    )
)
_NODE_FACTS = (
    sa.update(catalog.node)
    .where(catalog.node.c.id == sa.bindparam("number"))
    .values(
        name=sa.func.coalesce(catalog.node.c.name, sa.bindparam("a_name")),
        detail=sa.func.coalesce(catalog.node.c.detail, sa.bindparam("a_detail")),
    )
)
