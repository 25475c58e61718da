"""A traced tool answers what it is asked; of the documents it works on, those count that stand in what it returns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage

import clew
from clew.lineage.graph import Lineage
from tests.lineage.lineage_bed import Fake, Given, choices, documents, rows, rows_of, traced, used

ALL = ["h0", "h1", "h2"]


def called(tool: Callable[[Any], Any], given: Callable[[list[Document]], Any], kind: str = "tool") -> Lineage:
    """A run that retrieves three documents and answers with what a traced tool makes of them."""
    handbook = rows()
    clew.dataset("handbook", handbook)
    with clew.run("ask") as run:
        found = Given(found=documents(handbook[:3])).invoke("Which of them is it?")
        run.output(clew.trace("tool", kind=kind)(tool)(given(found)))
    return clew.why(run)


def texts(found: list[Document]) -> list[str]:
    return [one.page_content for one in found]


@pytest.mark.parametrize("given", [list, texts, lambda found: {"found": found}], ids=["documents", "texts", "a dict"])
@pytest.mark.parametrize(
    ("make", "firm", "possible"),
    [
        (lambda bodies: bodies[1], ["h1"], []),
        (lambda bodies: f"See: {bodies[1]}", ["h1"], []),
        (lambda bodies: [bodies[1], bodies[2][:80]], ["h1", "h2"], []),
        (lambda bodies: {"best": bodies[1], "rest": bodies[0].upper()}, ["h1"], ["h0", "h2"]),
        (lambda bodies: bodies[1].upper(), [], ALL),
        (lambda bodies: "yes", [], ALL),
    ],
    ids=["whole", "framed", "a list", "a dict", "reworked", "short"],
)
def test_documents_given_to_a_tool_count_where_they_stand_in_its_result(
    tmp_path: Path, given: Any, make: Callable[[list[str]], Any], firm: list[str], possible: list[str]
) -> None:
    def tool(value: Any) -> Any:
        found = value["found"] if isinstance(value, dict) else value
        return make([getattr(one, "page_content", one) for one in found])

    with traced(tmp_path):
        lineage = called(tool, given)
    assert used(lineage) == firm
    assert rows_of(lineage, "possible") == possible
    assert rows_of(lineage, "considered") == [one for one in ALL if one not in (*firm, *possible)]
    assert choices(lineage) == []


def test_a_context_given_to_a_tool_as_one_text_counts_where_it_stands_in_its_result(tmp_path: Path) -> None:
    with traced(tmp_path):
        lineage = called(lambda context: context.partition("\n")[0], lambda found: "\n".join(texts(found)))
    assert used(lineage) == ["h0"]
    assert rows_of(lineage, "considered") == ["h1", "h2"]


def test_a_document_that_a_tool_passes_on_is_that_document(tmp_path: Path) -> None:
    with traced(tmp_path):
        lineage = called(lambda found: found[1:2], list)
    assert used(lineage) == ["h1"]
    assert rows_of(lineage, "considered") == ["h0", "h2"]


def test_what_a_reranker_left_out_is_considered(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        rerank = clew.trace("rerank", kind="reranker")(lambda query, found: found[1:])
        with clew.run("ask") as run:
            kept = rerank("Which?", Given(found=documents(handbook[:3])).invoke("Which of them is it?"))
            run.output(Fake().invoke([HumanMessage(f"Sum up: {kept[0].page_content}")]).content)
        lineage = clew.why(run)
    assert used(lineage) == ["h1"]
    assert rows_of(lineage, "considered") == ["h0", "h2"]


def test_what_a_tool_is_asked_leads_on_to_who_asked(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        asked = "select the decision from the register where the desk is open"
        query = clew.trace("query", kind="tool")(lambda sql: {"decisions": 3})
        with clew.run("ask") as run:
            found = Given(found=documents(handbook[:2])).invoke("Which of them is it?")
            said = Fake(reply=lambda messages: asked).invoke([HumanMessage(f"Ask of: {found[1].page_content}")])
            run.output(query(said.content))
        lineage = clew.why(run)
    assert {"query", "Fake"} <= {node.name for node in lineage.find() if node.span_id} | {
        node.name for node in lineage.find("model")
    }
    assert used(lineage) == ["h1"]
    assert rows_of(lineage, "considered") == ["h0"]
