"""A retriever of one's own says what it brought in many shapes: documents, rows, texts, and pairs with a score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

import clew
from tests.lineage.lineage_bed import Fake, choices, rows, rows_of, traced, used


def document(row: dict[str, Any]) -> clew.Document:
    return clew.Document(row["body"], {"seen": True})


@pytest.mark.parametrize(
    ("shape", "read"),
    [
        (lambda found: found, lambda found: found[1]["body"]),
        (tuple, lambda found: found[1]["body"]),
        (lambda found: [(one, 0.5) for one in found], lambda found: found[1][0]["body"]),
        (lambda found: [document(one) for one in found], lambda found: found[1].text),
        (lambda found: [(document(one), 0.5) for one in found], lambda found: found[1][0].text),
        (lambda found: [[document(one), 0.5] for one in found], lambda found: found[1][0].text),
        (lambda found: {"documents": [document(one) for one in found]}, lambda found: found["documents"][1].text),
        (lambda found: [one["body"] for one in found], lambda found: found[1]),
        (lambda found: [(one["body"], 0.5) for one in found], lambda found: found[1][0]),
        (lambda found: [{"text": one["body"], "file": "a.md"} for one in found], lambda found: found[1]["text"]),
        (lambda found: {"matches": [{"text": one["body"]} for one in found]}, lambda it: it["matches"][1]["text"]),
    ],
    ids=[
        "rows",
        "a tuple of rows",
        "rows and scores",
        "documents",
        "documents and scores",
        "lists of documents and scores",
        "documents in a dict",
        "texts",
        "texts and scores",
        "dicts with texts",
        "a dict of dicts with texts",
    ],
)
def test_what_it_brought_is_used_where_it_stands_in_a_prompt_and_else_considered(
    tmp_path: Path, shape: Any, read: Any
) -> None:
    with traced(tmp_path):
        handbook = list(clew.dataset("handbook", rows()))
        look = clew.trace("look", kind="retriever")(lambda query: shape(handbook[:3]))
        with clew.run("ask") as run:
            found = look("Which of them is it?")
            run.output(Fake().invoke([HumanMessage(f"Sum up: {read(found)}")]).content)
        lineage = clew.why(run)
    assert used(lineage) == ["h1"]
    assert rows_of(lineage, "considered") == ["h0", "h2"]
    assert choices(lineage) == []
    assert "look" in {node.name for node in lineage.find("retriever")}


@pytest.mark.parametrize("brought", [[("yes", 0.5)], ["yes"], [{"label": "yes", "score": 1}]])
def test_a_short_text_that_it_brought_is_not_taken_for_the_row_that_has_it_too(tmp_path: Path, brought: Any) -> None:
    with traced(tmp_path):
        clew.dataset("labels", [{"id": "h1", "label": "yes"}, {"id": "h2", "label": "no"}])
        look = clew.trace("look", kind="retriever")(lambda query: brought)
        with clew.run("ask") as run:
            look("Which of them is it?")
            run.output(Fake().invoke([HumanMessage("It says: yes")]).content)
        lineage = clew.why(run)
    assert lineage.find("row", role=None) == []


def test_that_it_brought_nothing_is_no_document(tmp_path: Path) -> None:
    with traced(tmp_path):
        look = clew.trace("look", kind="retriever")(lambda query: None)
        with clew.run("ask") as run:
            look("Which of them is it?")
            run.output("nothing was found, so nothing is said of it")
        lineage = clew.why(run)
    assert lineage.find("document", role=None) == []
