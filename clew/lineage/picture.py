"""A lineage as a picture: SVG in columns by distance from the answer, and HTML around it for notebooks."""

from __future__ import annotations

from html import escape

from clew.lineage.graph import Lineage

_COLUMN, _ROW, _BOX_WIDTH, _BOX_HEIGHT = 230, 46, 200, 34
_MAX_NODES = 120
_COLOUR = {
    "row": "#2e7d32",
    "dataset": "#1b5e20",
    "document": "#558b2f",
    "chunk": "#558b2f",
    "llm": "#6a1b9a",
    "model": "#4527a0",
    "retriever": "#1565c0",
    "index": "#0d47a1",
    "prompt": "#ad1457",
    "tool": "#ef6c00",
    "code": "#455a64",
    "environment": "#455a64",
}


def columns(lineage: Lineage) -> dict[str, int]:
    """Each shown node's distance from the root, along edges that are not coarse."""
    causes: dict[str, list[str]] = {}
    for edge in lineage.edges:
        if not edge.coarse:
            causes.setdefault(edge.effect, []).append(edge.cause)
    found = {lineage.root: 0}
    frontier = [lineage.root]
    while frontier and len(found) < _MAX_NODES:
        following = []
        for name in frontier:
            for cause in causes.get(name, ()):
                node = lineage.nodes.get(cause)
                if cause not in found and node is not None and node.role == "lineage" and len(found) < _MAX_NODES:
                    found[cause] = found[name] + 1
                    following.append(cause)
        frontier = following
    return found


def svg(lineage: Lineage) -> str:
    """The picture. Whatever came from data is escaped."""
    placed = columns(lineage)
    rows: dict[int, int] = {}
    at: dict[str, tuple[int, int]] = {}
    for name, column in placed.items():
        row = rows.get(column, 0)
        rows[column] = row + 1
        at[name] = (12 + column * _COLUMN, 12 + row * _ROW)
    width = 24 + (max(rows, default=0) + 1) * _COLUMN
    height = 24 + max(rows.values(), default=1) * _ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="11">'
    ]
    for edge in lineage.edges:
        if edge.effect in at and edge.cause in at and not edge.coarse:
            x1, y1 = at[edge.effect]
            x2, y2 = at[edge.cause]
            start, end, middle = x1 + _BOX_WIDTH, x2, (x1 + _BOX_WIDTH + x2) // 2
            a, b = y1 + _BOX_HEIGHT // 2, y2 + _BOX_HEIGHT // 2
            dash = ' stroke-dasharray="4 3"' if edge.evidence == "inferred" else ""
            title = f"{edge.relation} ({edge.evidence})"
            parts.append(
                f'<path d="M{start} {a} C{middle} {a} {middle} {b} {end} {b}" fill="none" stroke="#90a4ae"{dash}>'
                f"<title>{escape(title)}</title></path>"
            )
    for name, (x, y) in at.items():
        node = lineage.nodes[name]
        colour = _COLOUR.get(node.kind, "#37474f")
        label = node.name if len(node.name) <= 30 else node.name[:29] + "…"
        parts.append(
            f"<g><title>{escape(f'{node.kind} {node.name} {node.digest or node.span_id or node.id}')}</title>"
            f'<rect x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="5" fill="{colour}" '
            f'fill-opacity="0.12" stroke="{colour}"/><text x="{x + 8}" y="{y + 14}" fill="{colour}">{escape(node.kind)}</text>'
            f'<text x="{x + 8}" y="{y + 27}" fill="currentColor">{escape(label)}</text></g>'
        )
    return "".join(parts) + "</svg>"


def html(lineage: Lineage) -> str:
    """The picture and the story, for a notebook's cell."""
    story = f"<details><summary>story</summary><pre>{escape(str(lineage))}</pre></details>"
    return f'<div style="overflow-x:auto">{svg(lineage)}{story}</div>'
