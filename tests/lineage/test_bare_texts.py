"""A retriever of one's own that returns bare texts: they are documents, and lead to the rows whose text they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage

import clew
from tests.lineage.lineage_bed import Fake, choices, prose, rows, rows_of, traced, used

BODIES = [str(row["body"]) for row in rows()]
FORMS: dict[str, Callable[[str, str], Any]] = {
    "list": lambda one, other: [one, other],
    "tuple": lambda one, other: (one, other),
    "dict": lambda one, other: {"first": one, "scores": [0.5], "rest": [other]},
    "list of scored texts": lambda one, other: [(one, 0.9), (other, 0.1)],
    "text beside a document": lambda one, other: [one, Document(other)],
    "document beside a text": lambda one, other: [Document(one), other],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_bare_texts_that_a_retriever_returned_lead_to_their_rows(form: str, tmp_path: Path) -> None:
    @clew.trace(kind="retriever")
    def look_up(query: str) -> Any:
        return FORMS[form](BODIES[1], BODIES[2])

    with traced(tmp_path):
        clew.dataset("handbook", rows())
        with clew.run("ask") as run:
            look_up("remote work?")
            run.output(Fake().invoke([HumanMessage(f"Well? {BODIES[1]}")]).content)
        lineage = clew.why(run)
    assert used(lineage) == ["h1"]
    assert rows_of(lineage, "considered") == ["h2"]
    assert choices(lineage) == []
    assert [node.name for node in lineage.find("retriever") if node.span_id]


def test_a_single_text_a_stream_of_texts_and_none_at_all_are_retrieved_too(tmp_path: Path) -> None:
    @clew.trace(kind="retriever")
    def one(query: str) -> str:
        return BODIES[0]

    @clew.trace(kind="retriever")
    def stream(query: str) -> Any:
        yield from BODIES[1:3]

    @clew.trace(kind="reranker")
    def none(query: str, found: list[str]) -> list[str]:
        return []

    with traced(tmp_path):
        clew.dataset("handbook", rows())
        with clew.run("ask") as run:
            found = [one("x"), *stream("x")]
            assert none("x", found) == []
            run.output(Fake().invoke([HumanMessage(f"Well? {found[0]} and {found[2]}")]).content)
        lineage = clew.why(run)
    assert used(lineage) == ["h0", "h2"]
    assert rows_of(lineage, "considered") == ["h1"]


def test_a_retriever_that_returned_nothing_or_numbers_brought_no_documents(tmp_path: Path) -> None:
    @clew.trace(kind="retriever")
    def look_up(found: Any) -> Any:
        return found

    with traced(tmp_path):
        with clew.run("ask") as run:
            for found in (None, [], [None], 3, [1, 2], {"a": None}):
                assert look_up(found) is found
            run.output(Fake().invoke([HumanMessage("Well? Nothing at all was found, it seems.")]).content)
        lineage = clew.why(run)
    assert [node.name for node in lineage.nodes.values() if node.kind in ("document", "chunk")] == []


def test_a_bare_text_of_two_rows_is_one_of_two(tmp_path: Path) -> None:
    @clew.trace(kind="retriever")
    def look_up(query: str) -> list[str]:
        return [BODIES[1]]

    with traced(tmp_path):
        handbook = rows()
        handbook[7]["body"] = BODIES[1]
        clew.dataset("handbook", handbook)
        with clew.run("ask") as run:
            run.output(Fake().invoke([HumanMessage(f"Well? {look_up('x')[0]}")]).content)
        lineage = clew.why(run)
    assert used(lineage) == []
    assert (2, ["dataset/handbook@1[1]", "dataset/handbook@1[7]"]) in [
        (n, sorted(names)) for n, names in choices(lineage)
    ]


def test_a_bare_text_that_met_no_dataset_says_so_with_the_remedy(tmp_path: Path) -> None:
    @clew.trace(kind="retriever")
    def look_up(query: str) -> list[str]:
        return [prose("of nobody")]

    with traced(tmp_path):
        with clew.run("ask") as run:
            run.output(Fake().invoke([HumanMessage(f"Well? {look_up('x')[0]}")]).content)
        lineage = clew.why(run)
    [document] = lineage.find("document")
    assert "clew.dataset(" in document.detail["note"]
