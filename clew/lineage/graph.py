"""The lineage graph that `why` and `impact` answer with: one shape in Python, in JSON and on the screen.

    {"schema": "clew/1", "root": id, "nodes": {id: {...}}, "edges": [{"from", "to", "relation", "evidence", ...}],
     "possible": [id], "considered": [id], "complete": bool, "next"?: cursor}

Edges point from effect to cause.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

SCHEMA = "clew/1"


@dataclasses.dataclass
class Node:
    """A span or an artifact. `role` is "lineage", "possible" (reached only coarsely) or "considered" (not reached)."""

    id: str
    kind: str
    name: str
    digest: str | None = None
    span_id: str | None = None
    run_id: str | None = None
    role: str = "lineage"
    detail: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The node as it stands in the JSON."""
        found: dict[str, Any] = {"kind": self.kind, "name": self.name, "role": self.role}
        for field in ("digest", "span_id", "run_id"):
            if getattr(self, field) is not None:
                found[field] = getattr(self, field)
        if self.detail:
            found["detail"] = self.detail
        return found


@dataclasses.dataclass
class Edge:
    """`offsets`: (start, end) in the effect's text, then in the cause's where known. `candidates`: names of the things
    one of which is the cause; such an edge is not walked."""

    effect: str
    cause: str
    relation: str
    evidence: str
    offsets: tuple[int, ...] | None = None
    coarse: bool = False
    candidates: list[str] | None = None
    candidate_count: int | None = None
    detail: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The edge as it stands in the JSON."""
        found: dict[str, Any] = {
            "from": self.effect,
            "to": self.cause,
            "relation": self.relation,
            "evidence": self.evidence,
        }
        if self.offsets is not None:
            found["offsets"] = list(self.offsets)
        if self.coarse:
            found["coarse"] = True
        if self.candidates is not None:
            found["candidates"] = self.candidates
            found["candidate_count"] = self.candidate_count
        found.update(self.detail)
        return found


@dataclasses.dataclass
class Lineage:
    """The answer to a lineage question. Prints as a tree; renders as HTML in notebooks."""

    root: str
    nodes: dict[str, Node]
    edges: list[Edge]
    possible: list[str] = dataclasses.field(default_factory=list)
    considered: list[str] = dataclasses.field(default_factory=list)
    complete: bool = True
    next: str | None = None
    question: str = "why"

    def find(self, kind: str | None = None, *, role: str | None = "lineage", name: str | None = None) -> list[Node]:
        """Nodes of a kind; of role "lineage" unless another, or None for all, is asked for."""
        return [
            node
            for node in self.nodes.values()
            if (kind is None or node.kind == kind)
            and (role is None or node.role == role)
            and (name is None or node.name == name)
        ]

    def causes(self, node: str) -> Iterator[Edge]:
        """Edges that lead from a node to its causes."""
        return (edge for edge in self.edges if edge.effect == node)

    def to_dict(self) -> dict[str, Any]:
        """The JSON shape."""
        found: dict[str, Any] = {
            "schema": SCHEMA,
            "root": self.root,
            "nodes": {name: node.to_dict() for name, node in self.nodes.items()},
            "edges": [edge.to_dict() for edge in self.edges],
            "possible": self.possible,
            "considered": self.considered,
            "complete": self.complete,
        }
        if self.next is not None:
            found["next"] = self.next
        return found

    def __str__(self) -> str:
        from clew.lineage.story import text

        return text(self)

    def __rich__(self) -> Any:
        from clew.lineage.story import tree

        return tree(self)

    def _repr_html_(self) -> str:
        from clew.lineage.picture import html

        return html(self)
