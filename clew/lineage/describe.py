"""From numbers in the catalog to named nodes: what a person reads."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from clew.lineage.closure import chunks
from clew.lineage.content import content_text
from clew.lineage.graph import Node
from clew.store import catalog, decoding
from clew.store.catalog import Scope
from clew.store.decoding import legible, printed
from clew.store.digest import Digest, Domain
from clew.store.errors import ClewError
from clew.store.store import Store

PREVIEW_CHARS = 160


class Describer:
    """Describes nodes of one store; rows are named by the dataset version that was current at `when_ns`."""

    def __init__(self, store: Store, connection: Connection, when_ns: int | None = None) -> None:
        self.store = store
        self.connection = connection
        self.when_ns = when_ns
        self.words: dict[int, str] = {row[0]: row[1] for row in connection.execute(sa.select(catalog.word))}
        self.runs: dict[int, Row[Any]] = {}
        self.spans: dict[int, Row[Any]] = {}
        self.nodes: dict[int, Row[Any]] = {}
        self.ids: dict[int, str] = {}
        self.rows: dict[int, tuple[int, int, int]] = {}  # row -> dataset, position, how many places it stands in
        self._versions: dict[bytes, list[tuple[str, int, int]]] = {}

    def load(self, numbers: Collection[int]) -> None:
        """Read what is needed to describe these nodes."""
        missing = [number for number in numbers if number not in self.spans and number not in self.nodes]
        for part in chunks(missing):
            for row in self.connection.execute(sa.select(catalog.span).where(catalog.span.c.id.in_(part))):
                self.spans[row.id] = row
            for row in self.connection.execute(sa.select(catalog.node).where(catalog.node.c.id.in_(part))):
                self.nodes[row.id] = row
        wanted = {row.run for row in self.spans.values()} | {row.run for row in self.nodes.values() if row.run}
        for part in chunks([run for run in wanted if run not in self.runs]):
            for row in self.connection.execute(sa.select(catalog.run).where(catalog.run.c.id.in_(part))):
                self.runs[row.id] = row
        makers = {
            int.from_bytes(row.key[1:9], "big")
            for row in self.nodes.values()
            if row.scope == Scope.VALUE and row.key[:1] == b"o"
        }
        absent = [number for number in makers if number not in self.spans]
        for part in chunks(absent):
            for row in self.connection.execute(sa.select(catalog.span).where(catalog.span.c.id.in_(part))):
                self.spans[row.id] = row

    def kind(self, number: int) -> str:
        """The glossary's kind of a node."""
        row = self.spans.get(number) or self.nodes.get(number)
        return self.words[row.kind] if row is not None else "value"

    def id(self, number: int) -> str:
        """The id a node has outside: a digest, a span id, or of a value its maker's and its own."""
        known = self.ids.get(number)
        if known is not None:
            return known
        span = self.spans.get(number)
        if span is not None:
            name = span.span_id.hex()
        else:
            node = self.nodes[number]
            if node.scope == Scope.GLOBAL:
                name = str(Digest(node.key))
            elif node.key[:1] == b"o":
                maker = self.spans.get(int.from_bytes(node.key[1:9], "big"))
                slot = node.key[9:-1].decode("utf-8", "replace")
                name = f"{maker.span_id.hex() if maker is not None else '?'}:{slot}:{node.key[-1]}"
            else:
                run = self.runs.get(node.run)
                name = f"{run.run_id.hex() if run is not None else '?'}:{Digest(node.digest).hex()[:24]}"
        self.ids[number] = name = str(name)
        return name

    def node(self, number: int, role: str = "lineage") -> Node:
        """A node described."""
        span = self.spans.get(number)
        if span is not None:
            run = self.runs.get(span.run)
            detail: dict[str, Any] = {"status": span.status, "started_ns": span.start_ns}
            if span.end_ns is not None:
                detail["duration_ns"] = span.end_ns - span.start_ns
            return Node(
                self.id(number),
                self.words[span.kind],
                self.words[span.name],
                span_id=span.span_id.hex(),
                run_id=run.run_id.hex() if run is not None else None,
                role=role,
                detail=detail,
            )
        row = self.nodes[number]
        kind = self.words[row.kind]
        name_digest = Digest(row.key if row.scope == Scope.GLOBAL else row.digest)
        run = self.runs.get(row.run) if row.run else None
        detail = msgspec.msgpack.decode(row.detail) if row.detail else {}
        detail = {key: str(Digest(value)) if isinstance(value, bytes) else value for key, value in detail.items()}
        name = row.name
        if kind == "row":
            name, more = self.row_name(number)
            detail.update(more)
        elif kind == "dataset":
            name = self.dataset_name(row.key, row.name)
        if kind in ("message", "value", "document", "chunk", "row"):
            preview = self.preview(row)
            if preview:
                detail["text"] = preview
        if row.role:
            detail["role"] = self.words[row.role]
        return Node(
            self.id(number),
            kind,
            name or self._label(kind, detail, name_digest),
            digest=str(name_digest),
            run_id=run.run_id.hex() if run is not None else None,
            role=role,
            detail=detail,
        )

    def _label(self, kind: str, detail: dict[str, Any], name: Digest) -> str:
        if detail.get("id"):
            return f"{kind} {detail['id']}"
        return f"{detail['role']}" if detail.get("role") else f"{kind} {str(name)[:15]}"

    def preview(self, row: Row[Any]) -> str | None:
        """The first characters of a node's text."""
        name, domain = (row.key if row.scope == Scope.GLOBAL else row.digest), row.domain
        if domain is None:
            domain = int(Domain.VALUE)
        try:
            if domain == Domain.TEXT:
                text: str | None = self.store.text(name, self.connection)
            elif domain == Domain.VALUE:
                data = self.store.blob(name, self.connection)[1]
                value = decoding.decode(data)
                text = None
                if isinstance(value, dict):
                    read = lambda part: self.store.text(part, self.connection)  # noqa: E731
                    for field in ("content", "text", "doc", "body"):
                        if field in value:
                            text = content_text(value[field], read)
                            break
                    if not text and value.get("tool_calls"):
                        calls = value["tool_calls"]
                        text = ", ".join(
                            f"{call.get('name')}({printed(call.get('args'))})"
                            for call in calls
                            if isinstance(call, dict)
                        )
                if text is None:
                    text = _short(value)
            else:
                return None
        except ClewError:
            return None
        return text if text is None or len(text) <= PREVIEW_CHARS else text[: PREVIEW_CHARS - 1] + "…"

    # -- names of rows and datasets

    def place_rows(self, rows: Collection[int]) -> None:
        """Decide in which dataset version each row stands: the newest that was there at the time asked about."""
        members: dict[int, list[tuple[int, int]]] = {}
        for part in chunks([row for row in rows if row not in self.rows]):
            query = sa.select(catalog.member).where(catalog.member.c.node.in_(part))
            for found in self.connection.execute(query):
                members.setdefault(found.node, []).append((found.container, found.position))
        self.load({container for places in members.values() for container, _ in places})
        for row, places in members.items():
            datasets = {container for container, _ in places}
            chosen = min(datasets, key=lambda container: self._age(container))
            positions = sorted(position for container, position in places if container == chosen)
            self.rows[row] = (chosen, positions[0], len(positions))

    def _age(self, container: int) -> tuple[int, int]:
        versions = self.versions(self.nodes[container].key)
        when = self.when_ns
        if when is None:
            return (0, -max((stamp for _, _, stamp in versions), default=0))
        past = [stamp for _, _, stamp in versions if stamp <= when]
        return (0, -max(past)) if past else (1, min((stamp for _, _, stamp in versions), default=0))

    def versions(self, key: bytes) -> list[tuple[str, int, int]]:
        """The names an artifact was given: name, version, when (ns)."""
        found = self._versions.get(key)
        if found is None:
            history = catalog.ref_history
            query = sa.select(history.c.name, history.c.version, history.c.when_ns)
            rows = self.connection.execute(query.where(history.c.digest == key).order_by(history.c.when_ns))
            found = self._versions[key] = [(row[0], row[1], row[2]) for row in rows]
        return found

    def dataset_name(self, key: bytes, fallback: str | None) -> str:
        """`dataset/NAME@N`."""
        versions = self.versions(key)
        past = [one for one in versions if self.when_ns is None or one[2] <= self.when_ns] or versions[:1]
        if past:
            return f"{past[-1][0]}@{past[-1][1]}"
        return f"dataset/{fallback}" if fallback else f"dataset {Digest(key)!s:.15}"

    def row_name(self, number: int) -> tuple[str, dict[str, Any]]:
        """`dataset/NAME@N[position]`, and facts of the row: its key, its position, its fields."""
        self.place_rows([number])
        row = self.nodes[number]
        facts: dict[str, Any] = {}
        try:
            value = decoding.decode(self.store.blob(row.key, self.connection)[1])
        except ClewError:
            value = None
            facts["note"] = "content was not copied: the dataset holds digests and a pointer to its source"
        if isinstance(value, dict):
            facts["fields"] = {
                field: legible(part) if isinstance(part, int) else part
                for field, part in value.items()
                if isinstance(part, (str, int, float)) and field != "doc"
            }
        place = self.rows.get(number)
        if place is None:
            return f"row {Digest(row.key)!s:.15}", facts
        dataset, position, count = place
        container = self.nodes[dataset]
        detail = msgspec.msgpack.decode(container.detail) if container.detail else {}
        key = detail.get("key")
        if key and isinstance(value, dict):
            facts["key"] = self._key(value.get(key))
        if count > 1:
            facts["places"] = count
        return f"{self.dataset_name(container.key, container.name)}[{position}]", facts

    def _key(self, part: Any) -> str | int | float | None:
        """A row's key as it may be shown, however long."""
        if isinstance(part, decoding.Reference) and part.code is decoding.Code.TEXT:
            try:
                return self.store.text(part.digest, self.connection)
            except ClewError:
                return str(part.digest)
        return part if isinstance(part, (str, int, float)) else None


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{printed(key)}: {_leaf(part)}" for key, part in list(value.items())[:6]) + "}"
    return _leaf(value)


def _leaf(value: Any) -> str:
    if isinstance(value, decoding.Reference):
        return "…"
    if isinstance(value, decoding.Record):
        return value.type.rpartition(".")[2]
    if isinstance(value, (dict, list)):
        return f"{type(value).__name__}[{len(value)}]"
    return printed(value)[:40]
