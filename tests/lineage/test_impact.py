"""Forwards: which answers a row, a dataset, a model or a file touched."""

from __future__ import annotations

from pathlib import Path

import pytest

import clew
from clew.lineage.graph import Lineage
from tests.lineage.lineage_bed import Given, agent, documents, rows, traced, vector_store

QUESTION = "Who decides on remote work and fire drills?"


def runs(lineage: Lineage) -> set[str | None]:
    return {node.run_id for node in lineage.find("workflow")}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Three runs: the first used h0, the second h0 and h1, the third was shown h1 and used h2."""
    folder = tmp_path_factory.mktemp("impact")
    with traced(folder) as store:
        handbook = rows()
        clew.dataset("handbook", handbook)
        clew.dataset("unused", rows(2, "u"))
        made = documents(handbook)
        vector_store(made)
        agent(Given(found=made[:1])).invoke({"question": QUESTION})
        agent(Given(found=made[:2])).invoke({"question": QUESTION})
        agent(Given(found=made[1:3]), keep=lambda it: it.id == "h2").invoke({"question": QUESTION})
        found = [run.run_id for run in reversed(clew.open(store).runs())]
    return store, found


@pytest.mark.parametrize(("row", "numbers"), [(0, {0, 1}), (1, {1}), (2, {2}), (3, set())])
def test_a_row_touches_the_answers_that_used_it_and_no_other(
    row: int, numbers: set[int], desk: tuple[Path, list[str]]
) -> None:
    store, ids = desk
    found = clew.impact(f"dataset/handbook@1[{row}]", store=store)
    assert runs(found) == {ids[number] for number in numbers}
    assert found.question == "impact"
    assert found.complete


def test_impact_and_why_agree(desk: tuple[Path, list[str]]) -> None:
    store, ids = desk
    backwards = {(run, row.name) for run in ids for row in clew.why(run, store=store).find("row")}
    names = [f"dataset/handbook@1[{row}]" for row in range(8)]
    forwards = {(str(run), name) for name in names for run in runs(clew.impact(name, store=store))}
    assert forwards == backwards


def test_a_dataset_touches_what_its_rows_touched_and_its_indexes(desk: tuple[Path, list[str]]) -> None:
    store, ids = desk
    found = clew.impact("dataset/handbook@1", store=store)
    assert runs(found) == set(ids)
    assert len(found.find("index")) <= 1
    assert runs(clew.impact("dataset/unused@1", store=store)) == set()


def test_more_answers_than_asked_for_come_in_pages_that_miss_none(desk: tuple[Path, list[str]]) -> None:
    store, ids = desk
    seen: list[str | None] = []
    after = None
    for _ in range(len(ids)):
        page = clew.impact("dataset/handbook@1", store=store, limit=1, after=after)
        seen += runs(page)
        after = page.next
        assert page.complete == (after is None)
    assert after is None
    assert seen == list(reversed(ids))  # newest first


def test_a_wrong_limit_or_cursor_is_refused(desk: tuple[Path, list[str]]) -> None:
    store, _ = desk
    with pytest.raises(ValueError, match="at least 1"):
        clew.impact("dataset/handbook@1", store=store, limit=0)
    with pytest.raises(ValueError, match="no cursor"):
        clew.impact("dataset/handbook@1", store=store, after="yesterday")


def test_the_runs_that_used_two_rows_are_those_that_used_both(desk: tuple[Path, list[str]]) -> None:
    store, ids = desk
    reader = clew.open(store)
    both = reader.runs(used=["dataset/handbook@1[0]", "dataset/handbook@1[1]"])
    assert [run.run_id for run in both] == [ids[1]]
    assert [run.run_id for run in reader.runs(used=["dataset/handbook@1[3]"])] == []


def test_a_document_of_a_row_that_another_process_declared_is_touched(tmp_path: Path) -> None:
    handbook = rows(3)
    with traced(tmp_path):
        clew.dataset("handbook", handbook)
    with traced(tmp_path) as store:
        agent(Given(found=documents(handbook[:1]))).invoke({"question": QUESTION})
    [run] = clew.open(store).runs()
    assert runs(clew.impact("dataset/handbook@1[0]", store=store)) == {run.run_id}
    assert runs(clew.impact("dataset/handbook@1[1]", store=store)) == set()
