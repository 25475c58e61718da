"""Datasets: which row of which version a document is from, whatever it was made of and whoever declared it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from langchain_core.documents import Document
from sqlalchemy import event
from sqlalchemy.engine import Engine

import clew
from clew.lineage import index
from clew.store.folder import Folder
from tests.lineage.lineage_bed import (
    QUESTION,
    Given,
    about,
    agent,
    documents,
    in_a_process,
    prose,
    rows,
    rows_of,
    traced,
    used,
    vector_store,
)


def test_a_document_that_met_no_dataset_says_so_with_the_remedy(tmp_path: Path) -> None:
    with traced(tmp_path):
        agent(Given(found=documents(rows(2)[:1]))).invoke({"question": QUESTION})
        lineage = clew.why()
    [document] = lineage.find("document")
    assert "clew.dataset(" in document.detail["note"]
    assert lineage.find("row", role=None) == []


def test_documents_made_of_several_fields_lead_to_their_rows(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = clew.dataset("handbook", rows(), key="id")
        made = [
            one.to_langchain()
            for one in handbook.documents(text=lambda row: f"{row['title'].upper()}: {row['body'].upper()}")
        ]
        store = vector_store(made)
        agent(store.as_retriever(search_kwargs={"k": 3}), keep=lambda it: "REMOTE WORK" in it.page_content).invoke(
            {"question": QUESTION}
        )
        lineage = clew.why()
    assert used(lineage) == ["h1"]
    assert any(edge.relation == "derived_from" and edge.evidence == "declared" for edge in lineage.edges)


def test_documents_of_two_fields_lead_to_their_rows_without_a_word(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        made = [Document(f"{row['title']}\n\n{row['body']}") for row in handbook]
        agent(Given(found=made[:3]), keep=about("remote work")).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h1"]
    assert rows_of(lineage, "considered") == ["h0", "h2"]


def test_files_of_a_glob_are_rows_that_their_documents_lead_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = tmp_path / "docs" / "deep"
    docs.mkdir(parents=True)
    for row in rows(4):
        (docs / f"{row['id']}.md").write_text(f"# {row['title']}\n\n{row['body']}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with traced(tmp_path):
        clew.dataset("notes", "docs/**/*.md")
        loaded = [
            Document(path.read_text(encoding="utf-8"), metadata={"source": str(path)})
            for path in sorted(docs.glob("*.md"))
        ]
        agent(Given(found=loaded), keep=about("remote work")).invoke({"question": QUESTION})
        lineage = clew.why()
        by_path = clew.impact("docs/deep/h1.md")
    [row] = lineage.find("row")
    assert row.name == "dataset/notes@1[1]"
    assert row.detail["fields"]["path"] == "docs/deep/h1.md"
    assert lineage.root in by_path.nodes


def test_a_row_is_named_by_the_version_that_was_current_when_the_run_began(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        retriever = Given(found=documents(handbook[1:2]))
        agent(retriever).invoke({"question": QUESTION})
        clew.dataset("handbook", [*rows(1, "n"), *handbook])
        agent(retriever).invoke({"question": QUESTION})
        newer, older = [clew.why(run.run_id) for run in clew.open(tmp_path / "store").runs()]
    assert [node.name for node in older.find("row")] == ["dataset/handbook@1[1]"]
    assert [node.name for node in newer.find("row")] == ["dataset/handbook@2[2]"]
    assert [node.name for node in newer.find("dataset")] == ["dataset/handbook@2"]


def test_an_index_of_the_first_version_leads_to_it_after_the_second_was_declared(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        store = vector_store(documents(handbook))
        changed = [dict(row) for row in handbook]
        changed[1]["body"] = prose("new", subject="remote work")
        clew.dataset("handbook", changed)
        agent(store.as_retriever(search_kwargs={"k": 1})).invoke({"question": "remote work"})
        lineage = clew.why()
    assert used(lineage) == ["h1"]
    [row] = lineage.find("row")
    assert row.name == "dataset/handbook@1[1]"


def test_rows_declared_by_one_process_are_reached_from_another_without_an_id(tmp_path: Path) -> None:
    in_a_process(tmp_path, 'clew.dataset("handbook", rows())')
    body = """
    with clew.run("asked"):
        found = Given(found=documents(rows(3))).invoke("x")
        Fake().invoke([HumanMessage("Well? " + found[1].page_content)])
    """
    in_a_process(tmp_path, body)
    with clew.open(tmp_path / "store") as store:
        lineage = store.why("asked")
        assert json.loads(json.dumps(lineage.to_dict())) == lineage.to_dict()
    assert used(lineage) == ["h1"]
    assert rows_of(lineage, "considered") == ["h0", "h2"]
    assert {node.kind for node in lineage.find()} >= {"code", "environment"}


def test_what_a_process_declared_is_looked_up_many_at_once(tmp_path: Path) -> None:
    """An indexer that has seen nothing of a process reads its dataset, and what was made of it, again."""
    count = 3000
    said: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        said.append(statement)

    with traced(tmp_path) as path:
        body = "What this row says is long enough to be a text of its own, and is told by its number. " * 4
        numbers = [{"id": f"h{number}", "text": f"{number} {body}"} for number in range(count)]
        declared = clew.dataset("numbers", numbers)
        made = [one.to_langchain() for one in declared.documents(text=lambda row: str(row["text"]).upper())]
        with clew.open(path) as opened:
            assert opened.runs() == []  # it is indexed
        index.forget(Folder(path))
        event.listen(Engine, "before_cursor_execute", note)
        try:
            agent(Given(found=made[5:6])).invoke({"question": QUESTION})
            lineage = clew.why()
        finally:
            event.remove(Engine, "before_cursor_execute", note)
    assert used(lineage) == ["h5"]
    assert any("FROM blob" in one for one in said)
    assert len(said) < count / 5
