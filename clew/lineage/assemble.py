"""From a walk to the graph that is shown: described nodes, edges with their evidence, and what a run stands on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage.candidate import unpack
from clew.lineage.closure import closure, edges_from
from clew.lineage.describe import Describer
from clew.lineage.graph import Edge, Lineage, Node
from clew.lineage.walk import Walk
from clew.store import catalog
from clew.store.catalog import WALKED, Evidence, Relation
from clew.store.digest import Digest
from clew.store.store import Store

RELATION = {
    Relation.GENERATED: "generated_by",
    Relation.USED: "used",
    Relation.DERIVED: "derived_from",
    Relation.PART: "part_of",
    Relation.CONTAINS: "contains",
    Relation.SAME: "same_as",
    Relation.COARSE: "reworked",
    Relation.LIST: "holds",
    Relation.RETRIEVED: "retrieved_by",
    Relation.CANDIDATE: "one_of",
}
CANDIDATES_SHOWN = 20
_SOURCE_EDGES = ("derived_from", "contains", "same_as")


class Assembly:
    """Makes the graph of one walk."""

    def __init__(self, store: Store, connection: Connection, walk: Walk, describer: Describer) -> None:
        self.store = store
        self.connection = connection
        self.walk = walk
        self.describer = describer
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []

    def graph(self, starts: list[int], root: Node | None) -> Lineage:
        """The graph from `root` (a run), else from the first start."""
        walk, describer = self.walk, self.describer
        everything = walk.strict | walk.possible | walk.considered
        describer.load(everything)
        rows = [one for one in everything if one in describer.nodes and describer.kind(one) == "row"]
        describer.place_rows(rows)
        for numbers, role in ((walk.strict, "lineage"), (walk.possible, "possible"), (walk.considered, "considered")):
            for number in sorted(numbers):
                node = describer.node(number, role)
                self.nodes.setdefault(node.id, node)
        self._edges(everything)
        self._datasets(rows)
        if root is not None:
            self.nodes[root.id] = root
            for start in starts:
                self.edges.append(Edge(root.id, describer.id(start), "answered", "declared"))
        self._facets(root)
        self._ranges()
        possible = [describer.id(one) for one in sorted(walk.possible)]
        considered = [describer.id(one) for one in sorted(walk.considered)]
        first = root.id if root is not None else describer.id(starts[0])
        return Lineage(first, self.nodes, self.edges, possible, considered)

    def _edges(self, everything: set[int]) -> None:
        describer = self.describer
        groups: dict[tuple[int, int], list[Any]] = {}
        for row in edges_from(self.connection, everything, (*WALKED, Relation.CANDIDATE)):
            if row.relation == Relation.CANDIDATE:
                groups.setdefault((row.src, row.start), []).append(row)
                continue
            if row.dst not in everything:
                continue
            offsets: tuple[int, ...] | None = None
            if row.end is not None and row.relation == Relation.CONTAINS:
                offsets = (row.start, row.end)
                if row.source_end is not None:
                    offsets += (row.source_start, row.source_end)
            elif row.source_end is not None:
                offsets = (row.source_start, row.source_end)
            detail = unpack(row.info)
            self.edges.append(
                Edge(
                    describer.id(row.src),
                    describer.id(row.dst),
                    RELATION[Relation(row.relation)],
                    Evidence(row.evidence).name.lower(),
                    offsets,
                    row.relation == Relation.COARSE,
                    detail={"short": True} if detail.get("short") else {},
                )
            )
        for (src, start), candidates in groups.items():
            info = unpack(candidates[0].info)
            evidence = Evidence(candidates[0].evidence).name.lower()
            at = (start, candidates[0].end) if candidates[0].end is not None else None
            if (src, start) in self.walk.settled:
                for row in candidates:
                    offsets = at if candidates[0].end is not None else None
                    self.edges.append(Edge(describer.id(src), describer.id(row.dst), "contains", evidence, offsets))
                continue
            total = info.get("candidate_count", len(candidates))
            self._one_of(src, [row.dst for row in candidates], evidence, at, total, "at_least" in info)
        for choice in self.walk.choices.values():
            if choice.document not in everything:
                continue
            if choice.source is not None:
                describer.load([choice.source])
                self.edges.append(
                    Edge(describer.id(choice.document), describer.id(choice.source), "same_as", choice.evidence)
                )
            else:
                self._one_of(choice.document, choice.candidates, choice.evidence, None, len(choice.candidates))

    def _one_of(
        self,
        src: int,
        candidates: list[int],
        evidence: str,
        at: tuple[int, int] | None,
        total: int,
        at_least: bool = False,
    ) -> None:
        """An edge to one of several things: a node that stands for the choice, and is not walked further."""
        names = self._names(candidates[:CANDIDATES_SHOWN])
        effect = self.describer.id(src)
        choice = f"{effect}?{at[0]}" if at else f"{effect}?"
        role = self.nodes[effect].role
        of = f"{total} or more" if at_least else str(total)
        more = {"candidate_count_at_least": True} if at_least else {}
        self.nodes[choice] = Node(choice, "value", f"one of {of}", role=role, detail={"candidates": names})
        self.edges.append(
            Edge(effect, choice, "one_of", evidence, at, candidates=names, candidate_count=total, detail=more)
        )

    def _names(self, candidates: list[int]) -> list[str]:
        """What candidates are called: the rows and files they lead to, else themselves."""
        describer = self.describer
        names: dict[str, None] = {}
        for candidate in candidates:
            reached = closure(self.connection, [candidate], (Relation.DERIVED, Relation.CONTAINS, Relation.SAME))
            describer.load(reached)
            ends = [one for one in reached if one in describer.nodes and describer.kind(one) in ("row", "file")]
            if not ends:
                ends = self._joined(candidate)
            for one in ends or [candidate]:
                names[describer.node(one).name] = None
        return list(names)

    def _joined(self, candidate: int) -> list[int]:
        """What a candidate without a source of its own joins by its text."""
        indexes = [one for one in self.walk.strict if self.walk.kinds.get(one) == "index"]
        for choice in self.walk.joins.resolve([candidate], indexes):
            self.walk.choices[choice.document] = choice
        found = self.walk.choices.get(candidate)
        if found is None:
            return []
        joined = [found.source] if found.source is not None else found.candidates
        self.describer.load(joined)
        return joined

    def _datasets(self, rows: Iterable[int]) -> None:
        describer = self.describer
        for row in rows:
            place = describer.rows.get(row)
            if place is None:
                continue
            dataset, position, _ = place
            name = describer.id(row)
            node = describer.node(dataset, self.nodes[name].role)
            known = self.nodes.get(node.id)
            if known is None or (known.role != "lineage" and node.role == "lineage"):
                self.nodes[node.id] = node
            self.edges.append(Edge(name, node.id, "part_of", "declared", detail={"position": position}))

    def _facets(self, root: Node | None) -> None:
        """Code and environment of every run on the way, and of whoever wrote the indexes."""
        walk, describer = self.walk, self.describer
        effects: dict[int, str] = {}
        runs: dict[int, str] = {}
        for span, run in walk.spans(walk.strict).items():
            runs.setdefault(run, describer.id(span))
        if root is not None and root.run_id is not None:
            number = self.connection.execute(
                sa.select(catalog.run.c.id).where(catalog.run.c.run_id == bytes.fromhex(root.run_id))
            ).scalar_one()
            runs[number] = root.id
        made = [
            one for one in walk.strict if one in describer.nodes and describer.kind(one) in ("index", "file", "model")
        ]
        makers = edges_from(self.connection, made, (Relation.MADE_BY,))
        for span, run in walk.spans({row.dst for row in makers}).items():
            effects[span] = describer.id(next(row.src for row in makers if row.dst == span))
            runs.setdefault(run, effects[span])
        if not runs:
            return
        query = sa.select(catalog.run.c.id, catalog.run.c.process_id).where(catalog.run.c.id.in_(list(runs)[:900]))
        for number, process_id in self.connection.execute(query).all():
            self._facets_of(runs[number], process_id)

    def _facets_of(self, effect: str, process_id: bytes) -> None:
        packed = self.connection.execute(
            sa.select(catalog.run.c.facets).where(catalog.run.c.run_id == process_id)
        ).scalar()
        facets: dict[str, bytes] = msgspec.msgpack.decode(packed) if packed else {}
        for facet in ("code", "environment"):
            if facet not in facets:
                continue
            digest = Digest(facets[facet])
            if str(digest) not in self.nodes:
                number = self.connection.execute(
                    sa.select(catalog.node.c.id).where(catalog.node.c.key == bytes(digest))
                ).scalar()
                if number is None:
                    continue
                self.describer.load([number])
                self.nodes[str(digest)] = self.describer.node(number)
            elif self.nodes[str(digest)].role != "lineage":
                self.nodes[str(digest)].role = "lineage"
            self.edges.append(Edge(effect, str(digest), "used", "declared"))

    def _ranges(self) -> None:
        """Name a document or chunk by its source's name and range."""
        sources: dict[str, Edge] = {}
        for edge in self.edges:
            effect = self.nodes.get(edge.effect)
            if effect is not None and effect.kind in ("document", "chunk") and edge.relation in _SOURCE_EDGES:
                sources.setdefault(edge.effect, edge)
        for name in sources:
            source, span, seen = name, None, set()
            while source in sources and source not in seen:
                seen.add(source)
                edge = sources[source]
                if edge.relation == "derived_from" and edge.offsets and span is None:
                    span = edge.offsets
                source = edge.cause
            found = self.nodes.get(source)
            if found is not None and found.kind in ("row", "file"):
                label = f"{found.name} {span[0]}:{span[1]}" if span else found.name
                self.nodes[name].detail.setdefault("label", self.nodes[name].name)
                self.nodes[name].name = label
            elif found is not None and found.kind in ("document", "chunk"):
                found.detail.setdefault(
                    "note", "met no dataset: declare where it comes from with clew.dataset(name, rows)"
                )
        for node in self.nodes.values():
            if node.kind in ("document", "chunk") and node.id not in sources:
                choice = any(edge.effect == node.id and edge.candidates for edge in self.edges)
                if not choice:
                    node.detail.setdefault(
                        "note", "met no dataset: declare where it comes from with clew.dataset(name, rows)"
                    )
