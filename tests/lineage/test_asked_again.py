"""The very same prompt asked again: its rows are those of this round, branch or turn, not of the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.prompts import ChatPromptTemplate

import clew
from tests.lineage.lineage_bed import Fake, Given, choices, documents, prose, rows, rows_of, traced, used

SAME = "The answer is the very same, whatever it was made of."


def said(text: str, answer: str) -> str:
    return str(Fake(reply=lambda messages: answer).invoke([HumanMessage(text)]).content)


def polished(text: str, number: int) -> str:
    return said(f"Polish: {text}", f"It was polished as number {number} of them all.")


def rendered(text: str, number: int) -> str:
    template: Any = ChatPromptTemplate.from_template("Polish it, please, and say no more: {text}")
    return str((template | Fake(reply=lambda messages: f"Number {number} of all.")).invoke({"text": text}).content)


@pytest.mark.parametrize(("polish", "answer"), [(polished, SAME), (rendered, SAME), (rendered, "yes")])
def test_a_round_that_asks_the_same_leads_to_what_it_was_made_of_there(
    tmp_path: Path, polish: Any, answer: str
) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)

        @clew.trace
        def work(number: int) -> str:
            found = Given(found=documents(handbook[number : number + 1])).invoke("Which is it?")
            return str(polish(said(f"Read: {found[0].page_content}", answer), number))

        with clew.run("ask") as run:
            made = [work(number) for number in range(3)]
            run.output(made[2])
        lineage = clew.why(run)
    assert used(lineage) == ["h2"]
    assert rows_of(lineage, "considered") == ["h0", "h1"]


def test_rounds_that_nothing_tells_apart_are_a_choice(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        with clew.run("ask") as run:
            for number in range(2):
                found = Given(found=documents(handbook[number : number + 1])).invoke("Which is it?")
                last = polished(said(f"Read: {found[0].page_content}", SAME), number)
            run.output(last)
        lineage = clew.why(run)
    assert used(lineage) == []
    assert [count for count, _ in choices(lineage)] == [2]


@pytest.mark.parametrize("twins", [False, True])
def test_a_turn_that_asks_the_same_leads_to_its_own_rows(tmp_path: Path, twins: bool) -> None:
    with traced(tmp_path):
        handbook = [{"id": f"h{number}", "body": prose("twin" if twins else number)} for number in range(3)]
        clew.dataset("handbook", handbook)
        turns = []
        for number in range(3):
            with clew.run("turn", session="talk") as run:
                found = Given(found=documents(handbook[number : number + 1])).invoke("Which is it?")
                run.output(polished(said(f"Read: {found[0].page_content}", SAME), number))
            turns.append(run)
        assert [used(clew.why(run)) for run in turns] == [["h0"], ["h1"], ["h2"]]


def test_what_is_asked_again_for_the_same_causes_is_the_same(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        with clew.run("ask") as run:
            found = Given(found=documents(handbook[:2])).invoke("Which is it?")
            for number in range(3):
                said(prose(number), f"Something else that is said, number {number} of it.")
                last = said(f"Read: {found[1].page_content}", f"It is number {number} of them.")
            run.output(last)
        lineage = clew.why(run)
        assert used(lineage) == ["h1"]
        spans = {node.id for node in lineage.find("llm")}
        assert spans


def test_a_question_asked_again_is_not_made_of_a_document_that_quotes_it(tmp_path: Path) -> None:
    question = "How do I get a parking space for the visitors of my own team?"
    with traced(tmp_path):
        handbook = [{"id": "h0", "body": f"Question: {question} Answer: {prose(0)}"}, *rows(2)[1:]]
        clew.dataset("handbook", handbook)
        with clew.run("ask") as run:
            said(question, "parking")
            found = Given(found=documents(handbook)).invoke("parking")
            answer = Fake().invoke([HumanMessage(f"Context: {found[1].page_content}"), HumanMessage(question)])
            run.output(answer.content)
        lineage = clew.why(run)
    assert used(lineage) == ["h1"]
