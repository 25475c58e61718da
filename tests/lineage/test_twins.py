"""Twins: rows, or whole datasets, of the same text are told apart by what else is known, or shown as one of several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

import clew
from tests.lineage.lineage_bed import (
    QUESTION,
    BagOfWords,
    Given,
    Stripped,
    about,
    agent,
    choices,
    documents,
    rows,
    rows_of,
    traced,
    used,
    vector_store,
)


def twins(*, key: str | None = None) -> list[dict[str, Any]]:
    """Eight rows, the last of which says the same as the second."""
    handbook = rows(7)
    handbook.append({"id": "h7", "title": "Remote Work (copy)", "body": handbook[1]["body"]})
    clew.dataset("handbook", handbook, key=key)
    return handbook


@pytest.mark.parametrize("twin", [1, 7])
@pytest.mark.parametrize("by", ["id", "metadata"])
def test_a_twin_is_told_from_its_double_by_id_or_metadata(by: str, twin: int, tmp_path: Path) -> None:
    with traced(tmp_path):
        made = [
            Document(row["body"], id=row["id"]) if by == "id" else Document(row["body"], metadata={"row": row["id"]})
            for row in twins()
        ]
        vector_store(made)
        agent(Given(found=[made[twin], made[0]])).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h0", f"h{twin}"]
    assert choices(lineage) == []
    assert rows_of(lineage, "considered") == []


@pytest.mark.parametrize("twin", ["h1", "h7"])
def test_of_twins_that_were_both_found_the_wrong_one_is_never_said_to_be_used(twin: str, tmp_path: Path) -> None:
    """Their text stands in the prompt once, and nothing in it says whose it is."""
    with traced(tmp_path):
        retriever = vector_store(documents(twins())).as_retriever(search_kwargs={"k": 4})
        agent(retriever, keep=lambda document: document.id == twin).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) in ([], [twin])
    assert used(lineage) or ONE_OF_TWO in [(count, sorted(names)) for count, names in choices(lineage)]


def test_of_twins_that_both_stand_in_the_prompt_both_are_used(tmp_path: Path) -> None:
    with traced(tmp_path):
        store = vector_store(documents(twins()))
        agent(store.as_retriever(search_kwargs={"k": 4}), keep=about("remote work")).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h1", "h7"]


ONE_OF_TWO = (2, ["dataset/handbook@1[1]", "dataset/handbook@1[7]"])


def test_twins_whose_metadata_the_retriever_drops_are_shown_as_one_of_two(tmp_path: Path) -> None:
    with traced(tmp_path):
        retriever = vector_store(documents(twins())).as_retriever(search_kwargs={"k": 1})
        agent(Stripped(inner=retriever)).invoke({"question": "remote work"})
        lineage = clew.why()
    assert used(lineage) == []
    assert ONE_OF_TWO in [(count, sorted(names)) for count, names in choices(lineage)]
    assert rows_of(lineage, "possible") == []


def test_twins_indexed_without_metadata_or_ids_are_shown_as_one_of_two(tmp_path: Path) -> None:
    with traced(tmp_path):
        store = vector_store([Document(row["body"]) for row in twins()])
        agent(store.as_retriever(search_kwargs={"k": 1})).invoke({"question": "remote work"})
        lineage = clew.why()
    assert used(lineage) == []
    assert ONE_OF_TWO in [(count, sorted(names)) for count, names in choices(lineage)]


def test_a_row_beside_twins_without_metadata_is_still_found(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = twins()
        retriever = Given(found=[Document(handbook[1]["body"]), Document(handbook[3]["body"])])
        agent(retriever).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h3"]
    assert ONE_OF_TWO in [(count, sorted(names)) for count, names in choices(lineage)]


def test_a_row_that_stands_twice_in_its_dataset_is_one_row_of_two_places(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows(4)
        handbook.append(dict(handbook[1]))
        clew.dataset("handbook", handbook)
        agent(Given(found=[Document(handbook[1]["body"])])).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h1"]
    [row] = lineage.find("row")
    assert row.name == "dataset/handbook@1[1]"
    assert row.detail["places"] == 2


def test_a_short_field_that_is_equal_by_chance_joins_nothing(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows(4)
        clew.dataset("handbook", handbook)
        clew.dataset("cities", [{"id": "c0", "name": "Parental Leave"}, {"id": "c1", "name": "Remote Work"}])
        agent(Given(found=[Document("Remote Work"), *documents(handbook[2:3])])).invoke({"question": "Whither?"})
        lineage = clew.why()
    assert used(lineage) == ["h2"]
    assert choices(lineage) == []
    assert not any("cities" in node.name for node in lineage.nodes.values())


def test_a_short_field_joins_where_the_row_key_agrees(tmp_path: Path) -> None:
    with traced(tmp_path):
        clew.dataset("cities", [{"id": "c0", "name": "Athens"}, {"id": "c1", "name": "Knossos"}], key="id")
        agent(Given(found=[Document("Knossos", id="c1")])).invoke({"question": "Whither shall we go?"})
        lineage = clew.why()
    assert used(lineage) == ["c1"]


class Bare(InMemoryVectorStore):
    """Finds documents and drops their ids."""

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return [Document(one.page_content) for one in super().similarity_search(query, k, **kwargs)]


@pytest.mark.parametrize("answering", ["handbook", "mirror"])
def test_a_text_of_two_datasets_is_that_of_the_index_that_answered(answering: str, tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows(4)
        mirror = [{**row, "id": f"m{row['id']}", "title": "Mirror"} for row in handbook]
        stores = {"handbook": Bare(BagOfWords()), "mirror": Bare(BagOfWords())}
        declared = {name: clew.dataset(name, data) for name, data in (("handbook", handbook), ("mirror", mirror))}
        for name, data in declared.items():
            stores[name].add_documents([one.to_langchain() for one in data.documents("body", id="id")])
        agent(stores[answering].as_retriever(search_kwargs={"k": 1})).invoke({"question": "remote work"})
        lineage = clew.why()
    assert used(lineage) == ["h1" if answering == "handbook" else "mh1"]
    assert choices(lineage) == []


def test_a_text_of_two_datasets_that_a_retriever_of_the_users_stripped_is_never_said_to_be_the_wrong_one(
    tmp_path: Path,
) -> None:
    with traced(tmp_path):
        handbook = rows(4)
        mirror = [{**row, "id": f"m{row['id']}", "title": "Mirror"} for row in handbook]
        clew.dataset("handbook", handbook)
        store = vector_store([one.to_langchain() for one in clew.dataset("mirror", mirror).documents("body", id="id")])
        agent(Stripped(inner=store.as_retriever(search_kwargs={"k": 1}))).invoke({"question": "remote work"})
        lineage = clew.why()
    assert used(lineage) in ([], ["mh1"])
    assert used(lineage) or any("dataset/mirror@1[1]" in names for _, names in choices(lineage))


def test_a_text_of_two_datasets_without_an_index_is_one_of_two(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows(4)
        clew.dataset("handbook", handbook)
        clew.dataset("mirror", [{**row, "id": f"m{row['id']}", "title": "Mirror"} for row in handbook])
        agent(Given(found=[Document(handbook[1]["body"])])).invoke({"question": "remote work"})
        lineage = clew.why()
    assert used(lineage) == []
    assert (2, ["dataset/handbook@1[1]", "dataset/mirror@1[1]"]) in [
        (n, sorted(names)) for n, names in choices(lineage)
    ]
