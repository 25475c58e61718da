"""The story of a lineage, as a person reads it."""

from __future__ import annotations

from clew.lineage.graph import Lineage, Node
from clew.lineage.story import text


def test_a_tool_that_was_offered_and_called_is_told_once() -> None:
    nodes = [
        Node("run", "workflow", "ask"),
        Node("b3:offered", "tool", "weather", digest="b3:offered"),
        Node("b3:called", "tool", "weather", digest="b3:called"),
        Node("call", "tool", "weather", span_id="call"),
        Node("failed", "tool", "weather", span_id="failed", detail={"status": "error"}),
    ]
    lines = text(Lineage("run", {node.id: node for node in nodes}, [])).splitlines()
    assert [line for line in lines if "weather" in line] == ["├── tool  weather", "├── tool  weather  error"]
