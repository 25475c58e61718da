"""What one traced function returns and the next is given is one value, whatever its shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import clew
from clew.lineage.graph import Lineage
from tests.lineage.lineage_bed import Given, documents, rows, rows_of, traced, used


@dataclass
class Finding:
    label: str
    score: float


@clew.trace("second")
def second(value: Any) -> int:
    return len(str(value))


def leads(lineage: Lineage, effect: str, cause: str) -> bool:
    """Whether what the function `effect` was given, or what it holds, was made by the function `cause`."""
    spans = {node.id: node.name for node in lineage.nodes.values() if node.span_id}
    given = {edge.cause for edge in lineage.edges if spans.get(edge.effect) == effect and edge.relation == "used"}
    given |= {edge.cause for edge in lineage.edges if edge.effect in given and edge.relation == "holds"}
    return any(edge.effect in given and spans.get(edge.cause) == cause for edge in lineage.edges)


@pytest.mark.parametrize(
    "make",
    [
        lambda body: {"city": "Paris", "count": 3},
        lambda body: {"note": body.upper(), "count": 3},
        lambda body: [body[:8].upper(), 5],
        lambda body: (body[:8].upper(), 5),
        lambda body: Finding("short", 0.5),
        lambda body: [{"label": "short"}],
    ],
    ids=["a dict", "a dict with a text", "a list", "a tuple", "a dataclass", "a list of dicts"],
)
def test_the_next_function_leads_to_the_one_before(tmp_path: Path, make: Callable[[str], Any]) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        first = clew.trace("first")(lambda found: make(found[0].page_content))
        with clew.run("ask") as run:
            run.output(second(first(Given(found=documents(handbook[:1])).invoke("Which?"))))
        lineage = clew.why(run)
    assert leads(lineage, "second", "first")
    assert used(lineage) == []
    assert rows_of(lineage, "possible") == ["h0"]


def test_a_value_that_is_passed_on_unchanged_has_one_maker(tmp_path: Path) -> None:
    with traced(tmp_path):
        first = clew.trace("first")(lambda: {"city": "Paris"})
        same = clew.trace("same")(lambda value: value)
        with clew.run("ask") as run:
            run.output(second(same(first())))
        lineage = clew.why(run)
    assert leads(lineage, "second", "first")
    assert not leads(lineage, "second", "same")


def test_two_functions_that_make_equal_values_are_not_taken_for_each_other(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        grade = clew.trace("grade")(lambda found: {"fits": bool(found)})
        with clew.run("ask") as run:
            grade(Given(found=documents(handbook[:1])).invoke("Which?"))
            run.output(grade(Given(found=documents(handbook[1:2])).invoke("And which?")))
        lineage = clew.why(run)
    assert used(lineage) == []
    assert rows_of(lineage, "possible") == ["h0", "h1"]


def test_of_a_dict_only_the_text_that_was_handed_on_is_used(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        parts = clew.trace(lambda found: {"one": found[0].page_content, "other": f"So: {found[1].page_content}"})
        framed = clew.trace(lambda given: f"It is said: {given['other'][4:]}")
        with clew.run("ask") as run:
            run.output(framed(parts(Given(found=documents(handbook[:2])).invoke("Which?"))))
        lineage = clew.why(run)
    assert used(lineage) == ["h1"]


def test_documents_that_a_function_loads_are_found_in_what_is_made_of_them(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = clew.dataset("handbook", rows(), key="id")
        load = clew.trace(lambda: list(handbook.documents(text="body"))[:4])
        framed = clew.trace(lambda found: f"It is said: {found[2].text}")
        with clew.run("ask") as run:
            run.output(framed(load()))
        lineage = clew.why(run)
    assert used(lineage) == ["h2"]
