"""A text that several documents hold is no choice where these are one row; elsewhere it is, however short."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage

import clew
from tests.lineage.lineage_bed import Fake, Given, choices, documents, prose, rows, traced, used


def ask(text: str) -> str:
    return str(Fake().invoke([HumanMessage(text)]).content)


@clew.trace(kind="reranker")
def rerank(query: str, found: list[Document]) -> list[Document]:
    return [
        Document(one.page_content, metadata={**one.metadata, "score": 0.4 + number})
        for number, one in enumerate(reversed(found))
    ]


def test_a_document_made_anew_by_a_reranker_is_the_row_that_it_was(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        with clew.run("ask") as run:
            kept = rerank("which desk", Given(found=documents(handbook[:3])).invoke("which desk"))[:1]
            run.output(ask(f"Answer from: {kept[0].page_content}"))
        lineage = clew.why(run)
        touched = [run.id in clew.impact(f"dataset/handbook@1[{row}]").nodes for row in range(3)]
    assert used(lineage) == ["h2"]
    assert choices(lineage) == []
    assert touched == [False, False, True]


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("Ticket about the broken printer in room 1", "Ticket about the broken printer in room 12: paper jam upstairs"),
        ("Request for one of the company's laptop", "Request for one of the company's laptops: model and size"),
    ],
)
def test_a_longer_document_cut_within_what_would_be_a_word_of_the_shorter_is_the_longer(
    tmp_path: Path, short: str, long: str
) -> None:
    with traced(tmp_path):
        tickets = [{"id": "h0", "title": "a", "body": short}, {"id": "h1", "title": "b", "body": long}]
        clew.dataset("handbook", tickets, text="body", key="id")
        with clew.run("ask") as run:
            found = Given(found=documents(tickets)).invoke("which")
            run.output(ask("Heading: " + found[1].page_content.split(":")[0]))
        lineage = clew.why(run)
    assert used(lineage) == ["h1"]


def test_short_documents_of_one_text_are_a_choice(tmp_path: Path) -> None:
    @clew.trace("say", kind="tool")
    def say(text: str) -> str:
        return "The desk of it all is the following one: " + text

    with traced(tmp_path):
        desks = [{"id": f"h{number}", "title": "d", "body": body} for number, body in enumerate(["Desk 12 A"] * 2)]
        clew.dataset("handbook", desks, text="body", key="id")
        with clew.run("ask") as run:
            found = Given(found=documents(desks)).invoke("what")
            run.output(ask(say(found[1].page_content)))
        lineage = clew.why(run)
    assert used(lineage) == []
    assert {count for count, _ in choices(lineage)} == {2}


class Helper:
    @clew.trace
    def fetch(self, found: Given) -> None:
        self.found = found.invoke("which desk")

    @clew.trace
    def prompt(self) -> str:
        return "Context: " + self.found[1].page_content


def test_a_document_that_an_object_kept_is_found_in_what_its_method_returns(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        with clew.run("ask") as run:
            helper = Helper()
            helper.fetch(Given(found=documents(handbook[:3])))
            run.output(ask(helper.prompt()))
        lineage = clew.why(run)
    assert used(lineage) == ["h1"]


@pytest.mark.parametrize("shape", ["cut", "framed"])
def test_a_bare_text_that_holds_a_part_of_a_row_leads_to_it(tmp_path: Path, shape: str) -> None:
    body = prose("of the desk for parental leave") * 2

    @clew.trace(kind="retriever")
    def look_up(query: str) -> list[str]:
        return [body[:90] if shape == "cut" else f"# Title\n{body}\n"]

    with traced(tmp_path):
        clew.dataset("handbook", [{"id": "h0", "body": body}], text="body", key="id")
        with clew.run("ask") as run:
            run.output(ask(f"Well? {look_up('x')[0]}"))
        lineage = clew.why(run)
    assert used(lineage) == ["h0"]
