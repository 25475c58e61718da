"""Texts that several sources share: what narrows them down, and what is left open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document

import clew
from clew.lineage.candidate import identities, scalars
from clew.lineage.source import Dataset, narrow
from tests.lineage.lineage_bed import Given, agent, choices, documents, prose, rows, traced, used

BODY = prose("body")
OTHER = prose("other")


def dataset(name: str, *members: dict[str, Any], first: int = 0, key: str | None = None) -> Dataset:
    return Dataset(name, list(enumerate(members, first)), key)


def test_a_row_that_the_document_names_comes_before_its_double() -> None:
    both = dataset("d", {"id": "a", "body": BODY}, {"id": "b", "body": BODY})
    assert narrow([0, 1], [both], BODY, ["b"]) == [1]
    assert narrow([0, 1], [both], BODY, ["elsewhere", "a"]) == [0]
    assert narrow([0, 1], [both], BODY, ["elsewhere"]) == [0, 1]
    assert narrow([0, 1], [both], BODY, []) == [0, 1]


def test_with_a_declared_key_other_fields_name_nothing() -> None:
    both = dataset("d", {"id": "a", "near": "b", "body": BODY}, {"id": "b", "near": "c", "body": BODY}, key="id")
    assert narrow([0, 1], [both], BODY, ["b"]) == [1]
    assert narrow([0, 1], [both], BODY, ["c"]) == [0, 1]


def test_a_row_that_explains_more_of_the_text_comes_first() -> None:
    both = dataset("d", {"title": "Leave", "body": BODY}, {"title": "Leave (copy)", "body": BODY})
    assert narrow([0, 1], [both], f"Leave (copy)\n\n{BODY}", []) == [1]


def test_of_two_versions_the_newest_is_meant() -> None:
    old = dataset("d", {"title": "A", "body": BODY})
    new = dataset("d", {"title": "B", "body": BODY}, first=1)
    other = dataset("e", {"title": "C", "body": BODY}, first=2)
    assert narrow([0, 1], [old, new], BODY, []) == [1]
    assert narrow([0, 1, 2], [old, new, other], BODY, []) == [1, 2]


def test_a_number_in_metadata_says_something_only_under_the_name_of_a_field() -> None:
    both = dataset("d", {"page": 3, "body": BODY}, {"page": 4, "floor": 3, "body": BODY})
    assert narrow([0, 1], [both], BODY, identities({"metadata": {"page": 3}})) == [0]
    assert narrow([0, 1], [both], BODY, identities({"metadata": {"rank": 3}})) == [0, 1]


def test_a_document_is_named_by_its_id_first_and_then_by_its_metadata() -> None:
    value = {
        "id": 7,
        "metadata": {"a": "x", "source": "docs/long.md", "page": 3, "seen": True, "none": None, "empty": ""},
    }
    assert identities(value) == ["7", "docs/long.md", "page=3", "x"]
    assert identities({"metadata": {"a": "x"}}) == ["x"]
    assert identities({"metadata": None}) == []
    assert identities("text") == []
    assert scalars({"id": 7, "a": "x", "b": True, "c": None, "d": ""}) == {"id=7", "7", "x"}


def test_a_text_of_twenty_five_rows_shows_the_first_twenty_and_says_how_many(tmp_path: Path) -> None:
    with traced(tmp_path):
        clew.dataset("copies", [{"id": f"c{number}", "body": BODY} for number in range(25)])
        agent(Given(found=[Document(BODY)])).invoke({"question": "Which of them is it?"})
        lineage = clew.why()
    assert used(lineage) == []
    [(count, names)] = choices(lineage)
    assert count == 25
    assert len(names) == 20


@pytest.mark.parametrize("twin", [0, 1])
def test_twins_made_of_two_fields_without_metadata_are_told_apart_by_the_other_field(twin: int, tmp_path: Path) -> None:
    with traced(tmp_path):
        pair = [{"id": "a", "title": "Leave", "body": BODY}, {"id": "b", "title": "Copy of it", "body": BODY}]
        clew.dataset("pair", pair)
        made = [Document(f"{row['title']}\n\n{row['body']}") for row in pair]
        agent(Given(found=made[twin : twin + 1])).invoke({"question": "Which of them is it?"})
        lineage = clew.why()
    assert used(lineage) == ["ab"[twin]]


def test_a_part_that_two_datasets_share_is_one_of_two_and_not_both(tmp_path: Path) -> None:
    with traced(tmp_path):
        for name in ("first", "second"):
            clew.dataset(name, [{"id": f"{name}-0", "body": BODY}, {"id": f"{name}-1", "body": prose(name)}])
        agent(Given(found=[Document(f"Page 1. {BODY} {OTHER}")])).invoke({"question": "Which of them is it?"})
        lineage = clew.why()
    assert used(lineage) == []
    assert (2, ["dataset/first@1[0]", "dataset/second@1[0]"]) in [(n, sorted(names)) for n, names in choices(lineage)]


def test_metadata_that_names_a_file_is_only_a_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("leave.md").write_text(BODY, encoding="utf-8")
    with traced(tmp_path):
        clew.artifact("file", Path("leave.md"), "leave.md")
        shown = Document(OTHER, metadata={"source": "leave.md"})  # not what stands in the file
        agent(Given(found=[shown])).invoke({"question": "Which of them is it?"})
        lineage = clew.why()
    edges = [edge for edge in lineage.edges if edge.evidence == "inferred"]
    assert [lineage.nodes[edge.cause].kind for edge in edges] == ["file"]


def test_rows_of_another_process_join_by_content_and_a_double_there_makes_one_of_two(tmp_path: Path) -> None:
    handbook = rows(3)
    with traced(tmp_path):
        clew.dataset("handbook", handbook)
    with traced(tmp_path):
        agent(Given(found=[Document(row["body"]) for row in handbook[:1]])).invoke({"question": "And now?"})
        assert used(clew.why()) == ["h0"]
    with traced(tmp_path):
        clew.dataset("mirror", [{"id": "m0", "body": handbook[0]["body"]}])
    with traced(tmp_path):
        agent(Given(found=[Document(row["body"]) for row in handbook[:2]])).invoke({"question": "And now again?"})
        lineage = clew.why()
    assert used(lineage) == ["h1"]
    assert (2, ["dataset/handbook@1[0]", "dataset/mirror@1[0]"]) in [
        (n, sorted(names)) for n, names in choices(lineage)
    ]


def test_a_document_with_an_id_joins_its_row_although_another_dataset_has_its_text(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows(3)
        clew.dataset("handbook", handbook)
        clew.dataset("mirror", [{"id": "m0", "body": handbook[0]["body"]}])
        agent(Given(found=documents(handbook[:1]))).invoke({"question": "And now?"})
        lineage = clew.why()
    assert used(lineage) == ["h0"]
    assert choices(lineage) == []
