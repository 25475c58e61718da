"""What a program's code makes of what it saw leads to that, in whatever shape it is handed on: exactly what stands in
it word for word, and what it reworked as possible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, StateGraph

import clew
from clew.lineage.graph import Lineage
from tests.lineage.lineage_bed import Fake, Given, choices, documents, rows, rows_of, traced, used

Shape = Callable[[list[str]], Any]
SHAPES: dict[str, Shape] = {
    "a text": "\n".join,
    "a list of texts": list,
    "a list in a list": lambda texts: [texts],
    "a document": lambda texts: Document("\n".join(texts)),
    "documents": lambda texts: [Document(one) for one in texts],
    "a message in a list": lambda texts: [HumanMessage("\n".join(texts))],
    "a dict with a list": lambda texts: {"notes": texts, "count": len(texts)},
    "a dict with documents": lambda texts: {"notes": [Document(one) for one in texts]},
    "dicts in a list": lambda texts: [{"note": one} for one in texts],
    "pairs": lambda texts: [(one, 0.5) for one in texts],
}


def texts_in(value: Any) -> list[str]:
    """Every text in what a shape made."""
    if isinstance(value, (list, tuple)):
        return [text for one in value for text in texts_in(one)]
    if isinstance(value, dict):
        return texts_in(list(value.values()))
    if isinstance(value, (Document, HumanMessage)):
        return [str(getattr(value, "page_content", None) or value.text)]
    return [value] if isinstance(value, str) else []


def by_a_node(rework: Callable[[list[Document]], Any], read: Callable[[Any], str]) -> Lineage:
    """retrieve and rework in one node, answer in the next."""

    class State(TypedDict, total=False):
        question: str
        work: Any
        answer: str

    handbook = rows()
    clew.dataset("handbook", handbook)
    retriever = Given(found=documents(handbook[:3]))
    graph = StateGraph(State)
    graph.add_node("rework", lambda state: {"work": rework(retriever.invoke(state["question"]))})
    graph.add_node("answer", lambda state: {"answer": Fake().invoke([HumanMessage(read(state["work"]))]).content})
    graph.add_edge(START, "rework").add_edge("rework", "answer").add_edge("answer", END)
    graph.compile(name="Desk").invoke({"question": "Which of them is it?"})
    return clew.why()


def by_a_function(rework: Callable[[list[Document]], Any], read: Callable[[Any], str]) -> Lineage:
    """The same with a traced function."""
    handbook = rows()
    clew.dataset("handbook", handbook)
    retriever = Given(found=documents(handbook[:3]))

    @clew.trace
    def worked() -> Any:
        return rework(retriever.invoke("Which of them is it?"))

    with clew.run("ask") as run:
        run.output(read(worked()))
    return clew.why(run)


def by_a_generator(rework: Callable[[list[Document]], Any], read: Callable[[Any], str]) -> Lineage:
    """The same with one that yields."""
    handbook = rows()
    clew.dataset("handbook", handbook)
    retriever = Given(found=documents(handbook[:3]))

    @clew.trace
    def worked() -> Any:
        for one in retriever.invoke("Which of them is it?"):
            yield rework([one])

    with clew.run("ask") as run:
        run.output(read(list(worked())))
    return clew.why(run)


@pytest.mark.parametrize(
    ("way", "shape"),
    [(by_a_node, shape) for shape in SHAPES]
    + [(by_a_function, shape) for shape in ("a list of texts", "documents", "pairs")]
    + [(by_a_generator, shape) for shape in ("a text", "a document", "a dict with a list")],
)
def test_rows_whose_text_was_reworked_are_possible_in_every_shape(tmp_path: Path, way: Any, shape: str) -> None:
    with traced(tmp_path):
        lineage = way(
            lambda found: SHAPES[shape]([one.page_content.upper() for one in found]),
            lambda work: "Sum up: " + "\n".join(texts_in(work)),
        )
    assert used(lineage) == []
    assert rows_of(lineage, "possible") == ["h0", "h1", "h2"]
    assert choices(lineage) == []


@pytest.mark.parametrize("shape", ["a list of texts", "documents", "a dict with a list", "dicts in a list"])
def test_of_what_stands_there_word_for_word_only_what_was_handed_on_is_used(tmp_path: Path, shape: str) -> None:
    with traced(tmp_path):
        lineage = by_a_node(
            lambda found: SHAPES[shape]([f"Note: {one.page_content}" for one in found]),
            lambda work: "Sum up: " + "\n".join(texts_in(work)).split("Note: ")[2],
        )
    assert used(lineage) == ["h1"]


@pytest.mark.parametrize("way", [by_a_node, by_a_function])
def test_a_document_made_of_another_leads_to_it_in_its_own_run_alone(tmp_path: Path, way: Any) -> None:
    with traced(tmp_path):
        lineage = way(lambda found: [Document(found[0].page_content.upper())], lambda work: work[0].page_content)
        assert rows_of(lineage, "possible") == ["h0", "h1", "h2"]
        shouted = Document(rows(1)[0]["body"].upper())
        with clew.run("another") as run:
            run.output(Given(found=[shouted]).invoke("What is shouted?"))
        lineage = clew.why(run)
    assert rows_of(lineage, "possible") == rows_of(lineage, "considered") == used(lineage) == []


def test_what_is_too_short_to_be_told_by_its_content_leads_to_the_code_that_made_it(tmp_path: Path) -> None:
    with traced(tmp_path):
        lineage = by_a_function(lambda found: [one.page_content[:9].upper() for one in found], lambda work: work)
    assert used(lineage) == []
    assert rows_of(lineage, "possible") == ["h0", "h1", "h2"]
