"""The story of a lineage, as a person reads it: first what the answer stands on, then how it came about."""

from __future__ import annotations

from typing import Any

from clew.lineage.graph import Edge, Lineage, Node

SHOWN = 8
_WEIGHT = {"row": 0, "file": 0, "document": 1, "chunk": 1, "message": 2, "value": 3, "prompt": 4, "tool": 5, "model": 6}
_SIGN = {"contained": "⊃ ", "content": "= ", "inferred": "~ ", "declared": ""}
_STANDS_ON = ("row", "file", "dataset", "index", "model", "prompt", "tool", "code", "environment")
_SOURCES = ("document", "chunk")
_CALLS = ("llm", "tool", "retriever", "reranker", "chain")
_PLUMBING = ("holds", "same_as")
_TOLD_FIELDS = ("id", "title", "module", "path", "line")


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
        story = _Story(lineage, everything)
        story.stands_on(top)
        story.grow(top.add(Text("how", style="bold")), lineage.root)
    return Group(top, *_notes(lineage))


def text(lineage: Lineage, *, everything: bool = False) -> str:
    """The story as plain text, 120 columns wide."""
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    Console(file=out, width=120, color_system=None).print(tree(lineage, everything=everything))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


class _Story:
    def __init__(self, lineage: Lineage, everything: bool) -> None:
        self.lineage = lineage
        self.everything = everything
        self.told: set[str] = set()
        self.causes: dict[str, list[Edge]] = {}
        for edge in lineage.edges:
            if not edge.coarse or everything:
                self.causes.setdefault(edge.effect, []).append(edge)

    # -- what the answer stands on

    def stands_on(self, top: Any) -> None:
        """One line for each thing that was used, by kind."""
        from rich.text import Text

        for edge in self.causes.get(self.lineage.root, ()):
            node = self.lineage.nodes[edge.cause]
            if edge.relation == "answered":
                top.add(Text.assemble(("answer  ", "cyan"), _excerpt(node, 240) or node.name))
        for kind in _STANDS_ON:
            told = dict.fromkeys(
                (node.name, _facts(node)) for node in self.lineage.find(kind)
            )  # a tool and its calls: once
            for name, facts in list(told)[: None if self.everything else SHOWN]:
                line = Text.assemble((f"{kind}  ", "cyan"), (name, "bold"), ("  " + facts, "dim"))
                top.add(line)
            if len(told) > SHOWN and not self.everything:
                top.add(Text(f"{kind}  … {len(told) - SHOWN} more (--all)", style="dim"))

    # -- how it came about

    def grow(self, branch: Any, name: str) -> None:
        """The causes of a node, and theirs."""
        self.told.add(name)
        edges = [edge for edge in self._plain(name, set()) if self._shown(edge)]
        edges.sort(key=lambda edge: (_WEIGHT.get(self.lineage.nodes[edge.cause].kind, 7), edge.offsets or (0,)))
        limit = len(edges) if self.everything else SHOWN
        for edge in edges[:limit]:
            node = self.lineage.nodes[edge.cause]
            told = edge.cause in self.told
            twig = branch.add(self._line(edge, node, told))
            self.told.add(edge.cause)
            if not told and (node.kind not in _SOURCES or self.everything or self._source(node.id) is None):
                self.grow(twig, edge.cause)
        if len(edges) > limit:
            branch.add(f"… {len(edges) - limit} more (--all)")

    def _shown(self, edge: Edge) -> bool:
        node = self.lineage.nodes.get(edge.cause)
        if node is None or (node.role != "lineage" and not self.everything):
            return False
        return self.everything or node.kind not in ("code", "environment", "dataset")

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

    def _source(self, name: str) -> Node | None:
        """The row or file that a document or chunk comes from, where it is one alone."""
        found: dict[str, Node] = {}
        frontier, seen = [name], {name}
        while frontier:
            for edge in self.causes.get(frontier.pop(), ()):
                node = self.lineage.nodes.get(edge.cause)
                if node is None or edge.cause in seen:
                    continue
                seen.add(edge.cause)
                if edge.candidates:
                    return None
                if node.kind in ("row", "file"):
                    found[node.id] = node
                elif node.kind in _SOURCES:
                    frontier.append(edge.cause)
        return next(iter(found.values())) if len(found) == 1 else None

    def _line(self, edge: Edge, node: Node, told: bool) -> Any:
        from rich.text import Text

        line = Text(f"{edge.relation.replace('_', ' ')} ", style="dim")
        line.append(_SIGN.get(edge.evidence, ""), style="yellow" if edge.evidence == "inferred" else "green")
        line.append(f"{node.kind} ", style="cyan")
        line.append(node.name, style="bold" if node.kind in ("row", "model", *_SOURCES) else "")
        if edge.candidates:
            line.append(f": {', '.join(edge.candidates[:4])}", style="yellow")
        if edge.offsets and edge.relation == "contains":
            line.append(f" at [{edge.offsets[0]}, {edge.offsets[1]})", style="dim")
        if edge.detail.get("short"):
            line.append(" (short)", style="dim")
        source = self._source(node.id) if node.kind in _SOURCES and not self.everything else None
        facts = _facts(source, named=False) if source is not None else "" if told else _facts(node)
        excerpt = _excerpt(node) if source is not None else ""
        shown = ", ".join(part for part in (facts, excerpt) if part)
        if shown:
            line.append(f"  {shown}", style="dim")
        if told:
            line.append("  (above)", style="dim")
        return line


def _excerpt(node: Node, width: int = 60) -> str:
    shown = " ".join(str(node.detail.get("text", "")).split())
    return f"“{shown[:width]}{'…' if len(shown) > width else ''}”" if shown else ""


def _facts(node: Node | None, *, named: bool = True) -> str:
    """The few short things worth knowing of a node."""
    if node is None:
        return ""
    detail = node.detail
    parts = []
    fields = detail.get("fields")
    if isinstance(fields, dict):
        parts += [f"{key}={value}" for key, value in fields.items() if key in _TOLD_FIELDS]
    if named and node.kind in ("message", "value", *_SOURCES):
        parts.append(_excerpt(node))
    if detail.get("session"):
        parts.append(f"session {detail['session']}")
    if node.span_id and detail.get("status") not in (None, "ok"):
        parts.append(str(detail["status"]))
    if node.kind in ("code", "environment", "model", "index", "dataset", "file", "prompt") and node.digest:
        parts.append(node.digest[:11])
    if node.kind == "workflow" and node.run_id:
        parts.append(f"run {node.run_id}")
    if detail.get("note") and node.kind in ("document", "chunk", "workflow", "row"):
        parts.append(f"({detail['note']})")
    return ", ".join(part for part in parts if part)


def _notes(lineage: Lineage) -> list[str]:
    notes = []
    possible = [lineage.nodes[one] for one in lineage.possible if lineage.nodes[one].kind == "row"]
    if possible:
        notes.append(_listed("possible", possible, "seen by code that reworked its input; not counted as used"))
    calls = [lineage.nodes[one] for one in lineage.possible if lineage.nodes[one].kind in _CALLS]
    if calls and not any(node.kind in _CALLS and node.span_id for node in lineage.find() if node.id != lineage.root):
        notes.append(
            _listed("possible", calls, "by code that reworked it, or too short to be known by; --all shows how")
        )
    considered = [lineage.nodes[one] for one in lineage.considered if lineage.nodes[one].kind == "row"]
    if considered:
        notes.append(_listed("considered", considered, "retrieved, but not part of the answer"))
    if not lineage.complete:
        notes.append(f"there is more: --after {lineage.next}")
    return notes


def _listed(label: str, nodes: list[Node], meaning: str) -> str:
    names = list(dict.fromkeys(node.name if node.kind == "row" else f"{node.kind} {node.name}" for node in nodes))
    return f"{label} ({meaning}): {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"


def _impact(lineage: Lineage, top: Any, everything: bool) -> None:
    limit = 10_000 if everything else SHOWN
    runs = [node for node in lineage.nodes.values() if node.kind == "workflow" and node.id != lineage.root]
    others: dict[str, list[Node]] = {}
    for node in lineage.nodes.values():
        if node.kind != "workflow" and node.id != lineage.root:
            others.setdefault(node.kind, []).append(node)
    answers = top.add(f"answers: {len(runs)}{'' if lineage.complete else ' and more'}")
    for run in runs[:limit]:
        answers.add(f"{run.name}  {_facts(run)}")
    if len(runs) > limit:
        answers.add(f"… {len(runs) - limit} more (--all)")
    for kind, nodes in sorted(others.items(), key=lambda pair: _WEIGHT.get(pair[0], 7)):
        twig = top.add(f"{kind}: {len(nodes)}")
        for node in nodes[:limit]:
            twig.add(f"{node.name}  {_facts(node)}".rstrip())
        if len(nodes) > limit:
            twig.add(f"… {len(nodes) - limit} more (--all)")
