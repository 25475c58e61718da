"""What a step puts into a constant of its code, however short, may have come of whatever the step saw."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import clew
from clew.lineage.graph import Lineage
from tests.lineage.lineage_bed import reached, traced

GERMAN = {"alpha beta": "Anfang und Ende"}
HEADING = "The answer that was found in the handbook:"
SENTENCE = (
    "The \"commission\" has looked at the request of the applicant, and it is of the opinion\n"
    "that all is well. "
    "There is no more to be said about the whole affair, and so the file was closed in the spring."
)  # fmt: skip


@clew.trace(kind="tool")
def words(question: str) -> str:
    return "alpha beta"


@clew.trace(kind="tool")
def count(question: str) -> str:
    return "4711"


@clew.trace(kind="tool")
def label(question: str) -> str:
    return "yes"


@clew.trace(kind="tool")
def unasked(question: str) -> str:
    return "nobody was given this"


def called(step: Callable[..., Any], *tools: Callable[[str], Any]) -> Lineage:
    """A run whose answer is what a traced function makes of what tools returned, beside a tool that it does not see."""
    with clew.run("ask") as run:
        unasked("Is there more?")
        run.output(clew.trace("step")(step)(*[tool("What is it?") for tool in tools]))
    return clew.why(run)


def tools_of(lineage: Lineage, role: str) -> list[str]:
    return sorted(node.name for node in lineage.find("tool", role=role) if node.span_id)


STEPS: dict[str, tuple[Callable[..., Any], list[Callable[[str], Any]]]] = {
    "words": (lambda one: "The answer is made of these words: " + " ".join(one.split()), [words]),
    "words first": (lambda one: f"{one}: of these words the whole answer is made", [words]),
    "words between": (lambda one: f"The answer that was found is {one}, and there is nothing else to say", [words]),
    "a number": (lambda number: f"What was found in all the files costs {int(number):,.2f} in all", [count]),
    "a label": (lambda one: f"To the question that was asked the answer is: {one}", [label]),
    "a label of the step": (
        lambda one: "To the question that was asked the answer is: " + ("yes" if "alpha" in one else "no"),
        [words],
    ),
    "a letter": (lambda one: f"To the question that was asked the answer is: {one[0]}", [label]),
    "JSON": (lambda one: json.dumps({"the answer to the question that was asked": one}), [words]),
    "two tools": (lambda one, number: f"The answer that was found is {one} and it costs {number}", [words, count]),
    "cut": (lambda one: "The answer that was found begins with these letters: " + one[:5], [words]),
    "upper case": (lambda one: "The answer that was found, in large letters: " + one.upper(), [words]),
    "translated": (lambda one: "The answer that was found, in another language: " + GERMAN[one], [words]),
    "in a dict": (lambda one: {"answer": f"The answer is made of these words: {one}"}, [words]),
    "in a list": (lambda one: [f"The answer is made of these words: {one}"], [words]),
}


@pytest.mark.parametrize("step", STEPS)
def test_what_is_put_into_a_constant_may_be_of_all_that_the_step_was_given(tmp_path: Path, step: str) -> None:
    make, tools = STEPS[step]
    with traced(tmp_path):
        lineage = called(make, *tools)
    assert tools_of(lineage, "possible") == sorted(one.__name__ for one in tools)
    assert tools_of(lineage, "lineage") == []
    assert not any(edge.relation == "contains" for edge in lineage.edges if edge.effect in reached(lineage))


@pytest.mark.parametrize(
    "step",
    [
        lambda one: "The answer to the question cannot be told.",
        lambda one: SENTENCE,
        lambda one: "The answer to the question cannot be told.\n- Ask again.\nOr ask somebody else who knows of it.",
    ],
    ids=["one", "several lines", "escapes"],
)
def test_a_text_that_is_constants_alone_is_of_nothing_that_the_step_was_given(tmp_path: Path, step: Any) -> None:
    with traced(tmp_path):
        lineage = called(step, words)
    assert tools_of(lineage, "possible") == []
    assert tools_of(lineage, "lineage") == []


@pytest.mark.parametrize(
    "step",
    [
        lambda one: HEADING + " Ask again.",
        lambda one: f"{HEADING} {'yes' if 'alpha' in one else 'no'}",
    ],
    ids=["another constant", "a choice"],
)
def test_a_short_constant_that_does_not_go_on_with_a_longer_one_may_have_been_chosen(
    tmp_path: Path, step: Callable[[str], str]
) -> None:
    with traced(tmp_path):
        lineage = called(step, words)
    assert tools_of(lineage, "possible") == ["words"]
