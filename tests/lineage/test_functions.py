"""Traced functions are code that works on what it was given: what they return leads to it, exactly where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import clew
from clew.lineage.graph import Lineage
from tests.lineage.lineage_bed import prose, rows_of, traced, used


def book(count: int = 40) -> list[dict[str, Any]]:
    """Rows that share much of their wording."""
    return [
        {"id": f"r{n}", "text": f"Row {n} says: {prose(n, 1)} It is the answer to one question of the book."}
        for n in range(count)
    ]


def documents() -> list[Any]:
    return list(clew.dataset("book", book(), key="id").documents(text="text"))


@clew.trace
def joined(found: list[Any], count: int) -> str:
    return "\n".join(one.text for one in found[:count])


@clew.trace
def framed(text: str) -> str:
    return f"Answer: {text} (said by nobody in particular)"


@clew.trace
def quoted(one: Any) -> str:
    return "See " + str(one.text)[:60]


@clew.trace
def answered(found: list[Any]) -> str:
    return framed(joined(found, 2))


@clew.trace
def same(value: Any) -> Any:
    return value


@clew.trace
def yielded(found: list[Any]) -> Any:
    for one in found[:2]:
        yield one.text


def asked(folder: Path, ask: Any) -> Lineage:
    with traced(folder):
        with clew.run("ask") as run:
            run.output(ask(documents()))
        return clew.why(run)


@pytest.mark.parametrize(
    ("ask", "rows"),
    [
        (lambda found: joined(found[5:15], 2), ["r5", "r6"]),
        (lambda found: framed(joined(found[5:15], 1)), ["r5"]),
        (lambda found: quoted(found[30]), ["r30"]),
        (lambda found: answered(found[20:]), ["r20", "r21"]),
        (lambda found: same(joined(found[7:], 1)), ["r7"]),
        (lambda found: same(found[3]), ["r3"]),
        (lambda found: "; ".join(yielded(found[11:20])), ["r11", "r12"]),
        (lambda found: framed("nothing that stands in any row"), []),
    ],
)
def test_the_rows_that_stand_in_what_is_returned_are_used(tmp_path: Path, ask: Any, rows: list[str]) -> None:
    lineage = asked(tmp_path, ask)
    assert sorted(used(lineage)) == rows
    assert set(rows_of(lineage)) <= set(rows) | {f"r{n}" for n in range(40)}


def test_many_calls_in_one_run_each_lead_to_their_own_rows(tmp_path: Path) -> None:
    with traced(tmp_path), clew.run("all") as run:
        found = documents()
        texts = [framed(joined(found[number % 40 :], 1)) for number in range(60)]
        run.output(texts[33])
    with clew.open(tmp_path / "store" if (tmp_path / "store").is_dir() else tmp_path) as reader:
        assert used(clew.why(run.id, store=reader)) == ["r33"]
