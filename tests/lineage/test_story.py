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


def test_what_a_short_answer_may_come_of_is_told_where_nothing_else_is_known() -> None:
    """No text of five characters is known by its content, and so nothing leads from it to the model."""
    nodes = [
        Node("run", "workflow", "ask"),
        Node("answer", "value", "answer", detail={"text": "hello"}),
        Node("call", "llm", "small", span_id="call", role="possible"),
        Node("b3:small", "model", "small", digest="b3:small", role="possible"),
    ]
    nodes.append(Node("again", "llm", "small", span_id="again", role="possible"))
    told = Lineage("run", {node.id: node for node in nodes}, [], possible=["call", "b3:small", "again"])
    assert "possible (" in text(told)
    assert text(told).endswith("--all shows how): llm small")
    known = Node("other", "tool", "search", span_id="other")
    assert "possible" not in text(Lineage("run", {**told.nodes, "other": known}, [], possible=["call"]))
