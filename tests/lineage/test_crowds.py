"""Crowds: a run that retrieved many documents of nearly the same text. What only one can be is found, and what many
can be is never said to be one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage

import clew
from clew.lineage.graph import Lineage
from clew.lineage.piece import Pieces
from tests.lineage.lineage_bed import Fake, Given, choices, documents, prose, rows_of, traced, used

CROWD = 100
SHARED = prose("what all of them say", 4)


def crowd(count: int = CROWD) -> list[dict[str, Any]]:
    """Rows that differ in one sentence in the middle."""
    return [{"id": f"c{number}", "body": f"{SHARED} {prose(number, 1)} {SHARED[::-1]}"} for number in range(count)]


def asked(folder: Path, context: str, count: int = CROWD) -> Lineage:
    """A run that retrieved the whole crowd and asked a model about `context`."""
    with traced(folder):
        clew.dataset("crowd", crowd(count))
        with clew.run("ask") as run:
            found = Given(found=documents(crowd(count))).invoke("x")
            assert len(found) == count
            run.output(Fake(reply=lambda messages: prose("said")).invoke([HumanMessage(context)]).content)
        return clew.why(run)


@pytest.mark.parametrize("stretch", [SHARED[:60], SHARED[20:], SHARED])
def test_a_stretch_that_a_whole_crowd_has_is_one_of_so_many_or_more(stretch: str, tmp_path: Path) -> None:
    lineage = asked(tmp_path, f"Well? {stretch}...")
    assert used(lineage) == []
    [edge] = [edge for edge in lineage.edges if edge.candidates is not None]
    assert edge.candidate_count is not None
    assert Pieces.TAKEN <= edge.candidate_count < CROWD
    assert edge.detail["candidate_count_at_least"]
    assert f"one of {edge.candidate_count} or more" in str(lineage)


def test_a_stretch_that_a_few_have_is_one_of_exactly_those(tmp_path: Path) -> None:
    lineage = asked(tmp_path, f"Well? {SHARED[:60]}...", Pieces.FEW)
    assert used(lineage) == []
    assert [count for count, _ in choices(lineage)] == [Pieces.FEW]
    assert "or more" not in str(lineage)


@pytest.mark.parametrize("number", [0, CROWD // 2, CROWD - 1])
def test_a_whole_document_of_a_crowd_is_found(number: int, tmp_path: Path) -> None:
    lineage = asked(tmp_path, f"Well? {crowd()[number]['body']} Think!")
    assert used(lineage) == [f"c{number}"]
    assert len(rows_of(lineage, "considered")) == CROWD - 1
    assert choices(lineage) == []


def test_several_whole_documents_of_a_crowd_are_found_beside_a_stretch_that_all_have(tmp_path: Path) -> None:
    bodies = [crowd()[number]["body"] for number in (7, 77)]
    lineage = asked(tmp_path, f"{bodies[0]}\n\n{bodies[1]}\n\nIn short: {SHARED[:50]}...")
    assert used(lineage) == ["c7", "c77"]
    assert all(count is not None and count > 1 for count, _ in choices(lineage))


def test_a_stretch_with_what_only_one_of_a_crowd_says_is_never_said_to_be_another(tmp_path: Path) -> None:
    body = crowd()[42]["body"]
    lineage = asked(tmp_path, f"Well? {body[100:-20]}...")
    assert used(lineage) in ([], ["c42"])
    assert used(lineage) or any("dataset/crowd@1[42]" in names for _, names in choices(lineage))


def test_documents_of_a_crowd_without_ids_lead_to_the_rows_whose_text_they_are(tmp_path: Path) -> None:
    with traced(tmp_path):
        clew.dataset("crowd", crowd())
        with clew.run("ask") as run:
            Given(found=[Document(row["body"]) for row in crowd()]).invoke("x")
            context = f"Well? {crowd()[3]['body']}"
            run.output(Fake(reply=lambda messages: prose("said")).invoke([HumanMessage(context)]).content)
        lineage = clew.why(run)
    assert used(lineage) == ["c3"]


def test_a_short_document_that_stands_whole_is_among_those_that_it_may_be(tmp_path: Path) -> None:
    """Those that stand in the prompt too share more with it."""
    short = SHARED[: len(SHARED) // 16 * 16]  # all its windows are windows of the crowd
    with traced(tmp_path):
        everything = [{"id": "short", "body": short}, *crowd()]
        clew.dataset("crowd", everything)
        with clew.run("ask") as run:
            found = Given(found=documents(everything)).invoke("x")
            context = "\n".join([*(one.page_content for one in found[1:11]), f"In short: {short}"])
            run.output(Fake(reply=lambda messages: prose("said")).invoke([HumanMessage(context)]).content)
        lineage = clew.why(run)
    assert [one for one in used(lineage) if one != "short"] == sorted(f"c{number}" for number in range(10))
    assert "short" in used(lineage) or any("dataset/crowd@1[0]" in names for _, names in choices(lineage))


def test_a_stretch_of_two_documents_is_not_said_to_be_of_one_because_a_crowd_hides_the_other(tmp_path: Path) -> None:
    def exactly(seed: str, length: int) -> str:
        return prose(seed, 6)[:length]

    one, other = exactly("one", 48), exactly("other", 48)
    first, second = exactly("first", 160), exactly("second", 160)
    bodies = [f"{first}{one}{prose(('first', number), 1)}" for number in range(20)]
    bodies += [f"{second}{exactly('pad', 48)}{other}{prose(('second', number), 1)}" for number in range(20)]
    bodies += [f"{first}{one}{other}{prose('seen', 1)}", f"{exactly('third', 160)}{one}{other}{prose('hidden', 1)}"]
    with traced(tmp_path):
        data = [{"id": f"b{number}", "body": body} for number, body in enumerate(bodies)]
        clew.dataset("crowd", data)
        with clew.run("ask") as run:
            Given(found=documents(data)).invoke("x")
            context = f"{first}\n{second}\n{one}{other}"
            run.output(Fake(reply=lambda messages: prose("said")).invoke([HumanMessage(context)]).content)
        lineage = clew.why(run)
    assert used(lineage) == []
    assert "or more" in str(lineage)
