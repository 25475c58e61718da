"""The story of a lineage: a tree that a person reads from the answer down, shortest first."""

from __future__ import annotations

from typing import Any

from clew.lineage.graph import Edge, Lineage, Node

SHOWN = 12
_WEIGHT = {"row": 0, "document": 1, "chunk": 1, "file": 1, "message": 2, "value": 3, "prompt": 4, "tool": 5, "model": 6}
_SIGN = {"contained": "⊃", "content": "=", "inferred": "~", "declared": ""}
_PLUMBING = ("holds", "same_as")


def tree(lineage: Lineage, *, everything: bool = False) -> Any:
    """A `rich` renderable. `everything` shows what is shortened otherwise."""
    from rich.console import Group
    from rich.text import Text
    from rich.tree import Tree

    root = lineage.nodes[lineage.root]
    top = Tree(Text.assemble((root.name, "bold"), "  ", (_facts(root), "dim")))
    if lineage.question == "impact":
        _impact(lineage, top, everything)
    else:
        _Story(lineage, everything).grow(top, lineage.root)
    return Group(top, *_notes(lineage))


def text(lineage: Lineage, *, everything: bool = False) -> str:
    """The story as plain text."""
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    Console(file=out, width=120, color_system=None).print(tree(lineage, everything=everything))
    return out.getvalue().rstrip("\n")


class _Story:
    def __init__(self, lineage: Lineage, everything: bool) -> None:
        self.lineage = lineage
        self.everything = everything
        self.told: set[str] = set()
        self.causes: dict[str, list[Edge]] = {}
        for edge in lineage.edges:
            if not edge.coarse or everything:
                self.causes.setdefault(edge.effect, []).append(edge)

    def grow(self, branch: Any, name: str) -> None:
        self.told.add(name)
        edges = [edge for edge in self._plain(name, set()) if self._shown(edge)]
        edges.sort(key=lambda edge: (_WEIGHT.get(self.lineage.nodes[edge.cause].kind, 7), edge.offsets or (0,)))
        limit = len(edges) if self.everything else SHOWN
        for edge in edges[:limit]:
            node = self.lineage.nodes[edge.cause]
            told = edge.cause in self.told
            twig = branch.add(_line(edge, node, told))
            if not told:
                self.grow(twig, edge.cause)
        if len(edges) > limit:
            branch.add(f"… {len(edges) - limit} more (--all)")

    def _shown(self, edge: Edge) -> bool:
        node = self.lineage.nodes.get(edge.cause)
        return node is not None and (node.role == "lineage" or self.everything)

    def _plain(self, name: str, seen: set[str]) -> list[Edge]:
        """Causes of a node, with lists and sameness passed through: they are how, not what."""
        found = []
        for edge in self.causes.get(name, ()):
            node = self.lineage.nodes.get(edge.cause)
            if node is None or edge.cause in seen:
                continue
            seen.add(edge.cause)
            passed = edge.relation in _PLUMBING and node.kind in ("value", "message") and not edge.candidates
            inner = self._plain(edge.cause, seen) if passed and not self.everything else []
            found.extend(inner if inner else [edge])
        return found


def _line(edge: Edge, node: Node, told: bool) -> Any:
    from rich.text import Text

    line = Text(f"{edge.relation.replace('_', ' ')} ", style="dim")
    sign = _SIGN.get(edge.evidence, "")
    if sign:
        line.append(f"{sign} ", style="green" if edge.evidence != "inferred" else "yellow")
    line.append(f"{node.kind} ", style="cyan")
    line.append(node.name, style="bold" if node.kind in ("row", "dataset", "model") else "")
    if edge.candidates:
        line.append(f": {', '.join(edge.candidates[:4])}", style="yellow")
    if edge.offsets and edge.relation == "contains":
        line.append(f" at [{edge.offsets[0]}, {edge.offsets[1]})", style="dim")
    facts = _facts(node)
    if facts and not told:
        line.append(f"  {facts}", style="dim")
    if told:
        line.append("  (above)", style="dim")
    return line


def _facts(node: Node) -> str:
    """The one short thing worth knowing of a node."""
    detail = node.detail
    parts = []
    fields = detail.get("fields")
    if isinstance(fields, dict):
        parts += [f"{key}={value}" for key, value in fields.items() if key in ("path", "line", "module", "id", "title")]
    if node.kind in ("message", "value", "document", "chunk") and detail.get("text"):
        shown = " ".join(str(detail["text"]).split())
        parts.append(f"“{shown[:70]}{'…' if len(shown) > 70 else ''}”")
    if detail.get("session"):
        parts.append(f"session {detail['session']}")
    if node.span_id and detail.get("status") not in (None, "ok"):
        parts.append(str(detail["status"]))
    if node.kind in ("code", "environment", "model", "index", "dataset", "file") and node.digest:
        parts.append(node.digest[:11])
    if detail.get("note") and node.kind in ("document", "chunk", "workflow", "row"):
        parts.append(f"({detail['note']})")
    return ", ".join(parts)


def _notes(lineage: Lineage) -> list[str]:
    notes = []
    possible = [lineage.nodes[one] for one in lineage.possible if lineage.nodes[one].kind == "row"]
    if possible:
        notes.append(_listed("possible", possible, "reached only through code that reworked its input; not counted as used"))
    considered = [lineage.nodes[one] for one in lineage.considered if lineage.nodes[one].kind == "row"]
    if considered:
        notes.append(_listed("considered", considered, "retrieved, but not part of the answer"))
    if not lineage.complete:
        notes.append(f"there is more: --after {lineage.next}")
    return notes


def _listed(label: str, nodes: list[Node], meaning: str) -> str:
    names = ", ".join(node.name for node in nodes[:8])
    return f"{label} ({meaning}): {names}{f' and {len(nodes) - 8} more' if len(nodes) > 8 else ''}"


def _impact(lineage: Lineage, top: Any, everything: bool) -> None:
    limit = 10_000 if everything else SHOWN
    runs = [node for node in lineage.nodes.values() if node.kind == "workflow" and node.id != lineage.root]
    others: dict[str, list[Node]] = {}
    for node in lineage.nodes.values():
        if node.kind != "workflow" and node.id != lineage.root:
            others.setdefault(node.kind, []).append(node)
    answers = top.add(f"answers: {len(runs)}{'' if lineage.complete else ' and more'}")
    for run in runs[:limit]:
        answers.add(f"{run.name}  run {run.run_id}")
    if len(runs) > limit:
        answers.add(f"… {len(runs) - limit} more (--all)")
    for kind, nodes in sorted(others.items(), key=lambda pair: _WEIGHT.get(pair[0], 7)):
        twig = top.add(f"{kind}: {len(nodes)}")
        for node in nodes[:limit]:
            twig.add(f"{node.name}  {_facts(node)}".rstrip())
        if len(nodes) > limit:
            twig.add(f"… {len(nodes) - limit} more (--all)")
