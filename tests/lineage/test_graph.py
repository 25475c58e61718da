"""The lineage graph's shape in JSON and HTML."""

from __future__ import annotations

import json
import re

from clew.lineage.graph import Edge, Lineage, Node

EVIL = "<script>alert(\"x\")</script> & 'co'"


def graph() -> Lineage:
    nodes = [
        Node("r", "workflow", EVIL, run_id="r", detail={"status": "ok"}),
        Node("s:message:0", "message", "message", digest="b3:" + "a" * 64, run_id="r", detail={"text": EVIL}),
        Node("5" * 16, "llm", "Fake", span_id="5" * 16, run_id="r"),
        Node(
            "b3:" + "b" * 64, "row", "dataset/handbook@1[7]", digest="b3:" + "b" * 64, detail={"fields": {"id": EVIL}}
        ),
        Node("p", "row", f"dataset/{EVIL}@1[8]", role="possible"),
        Node("c", "row", "dataset/handbook@1[9]", role="considered"),
        Node("s:message:0?12", "value", "one of 2", detail={"candidates": ["a", EVIL]}),
    ]
    edges = [
        Edge("r", "s:message:0", "answered", "declared"),
        Edge("s:message:0", "5" * 16, "generated_by", "declared"),
        Edge("5" * 16, "b3:" + "b" * 64, "contains", "contained", (12, 40, 0, 28), detail={"short": True}),
        Edge("5" * 16, "p", "reworked", "declared", coarse=True),
        Edge("s:message:0", "s:message:0?12", "one_of", "content", (12, 40), candidates=["a", EVIL], candidate_count=2),
    ]
    return Lineage("r", {node.id: node for node in nodes}, edges, ["p"], ["c"])


def test_the_json_has_the_one_shape() -> None:
    found = json.loads(json.dumps(graph().to_dict()))
    assert list(found) == ["schema", "root", "nodes", "edges", "possible", "considered", "complete"]
    assert found["schema"] == "clew/1"
    assert found["root"] in found["nodes"]
    assert found["complete"] is True
    assert found["possible"] == ["p"]
    assert found["considered"] == ["c"]
    for node in found["nodes"].values():
        assert (
            {"kind", "name", "role"} <= set(node) <= {"kind", "name", "role", "digest", "span_id", "run_id", "detail"}
        )
        assert node["role"] in ("lineage", "possible", "considered")
    for edge in found["edges"]:
        assert {edge["from"], edge["to"]} <= set(found["nodes"])
        assert edge["evidence"] in ("declared", "content", "contained", "inferred")


def test_what_an_edge_does_not_have_is_not_in_its_json() -> None:
    first, _, contained, coarse, choice = graph().to_dict()["edges"]
    assert set(first) == {"from", "to", "relation", "evidence"}
    assert contained["offsets"] == [12, 40, 0, 28]
    assert contained["short"] is True
    assert coarse["coarse"] is True
    assert (choice["candidate_count"], choice["candidates"]) == (2, ["a", EVIL])


def test_a_cursor_is_there_only_when_there_is_more() -> None:
    whole, part = graph(), graph()
    part.complete, part.next = False, "12-3"
    assert "next" not in whole.to_dict()
    assert part.to_dict()["next"] == "12-3"
    assert part.to_dict()["complete"] is False


def test_find_takes_nodes_of_role_lineage_unless_asked_for_others() -> None:
    found = graph()
    assert [node.name for node in found.find("row")] == ["dataset/handbook@1[7]"]
    assert len(found.find("row", role=None)) == 3
    assert [node.id for node in found.find(role="possible")] == ["p"]
    assert [node.id for node in found.find(name="Fake")] == ["5" * 16]


def test_html_escapes_whatever_a_program_or_a_document_said() -> None:
    html = graph()._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert EVIL not in html
    assert not re.search(r"\son\w+\s*=", html)


def test_the_text_form_names_the_rows_by_role() -> None:
    text = str(graph())
    assert "dataset/handbook@1[7]" in text
    considered = text[text.index("considered") :]
    assert "dataset/handbook@1[9]" in considered
    assert "dataset/handbook@1[7]" not in considered
    assert "one of 2" in text
