"""Where `why` may start, and where its walk stops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage

import clew
from clew.lineage.graph import Lineage
from clew.store.errors import Ambiguous, NotFound
from tests.lineage.lineage_bed import Fake, Given, agent, documents, rows, rows_of, traced, used, vector_store

QUESTION = "Who decides on remote work and fire drills?"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lineage]:
    folder = tmp_path_factory.mktemp("walk")
    with traced(folder) as store:
        handbook = rows()
        clew.dataset("handbook", handbook, key="id")
        index = vector_store(documents(handbook))
        index.dump(str(folder / "index.json"))
        agent(index.as_retriever(search_kwargs={"k": 3}), keep=lambda it: it.id == "h1").invoke({"question": QUESTION})
        lineage = clew.why()
    return store, lineage


def test_a_run_may_be_named_by_id_prefix_or_name(asked: tuple[Path, Lineage]) -> None:
    store, lineage = asked
    for name in (lineage.root, lineage.root[:31], "Desk", None):
        assert clew.why(name, store=store).to_dict() == lineage.to_dict()


def test_a_span_leads_to_what_it_used(asked: tuple[Path, Lineage]) -> None:
    store, lineage = asked
    [model] = [node for node in lineage.find("llm") if node.span_id]
    assert model.span_id is not None
    found = clew.why(model.span_id, store=store)
    assert found.root == model.span_id
    assert used(found) == ["h1"]


def test_a_digest_or_its_prefix_is_an_artifact(asked: tuple[Path, Lineage]) -> None:
    store, lineage = asked
    [row] = lineage.find("row")
    assert row.digest is not None
    for name in (row.digest, row.digest[:20], row.digest.removeprefix("b3:")[:16]):
        assert rows_of(clew.why(name, store=store)) == ["h1"]


def test_a_ref_and_a_row_may_be_named(asked: tuple[Path, Lineage]) -> None:
    store, _ = asked
    for name in ("dataset/handbook@1", "dataset/handbook", "handbook"):
        found = clew.why(name, store=store)
        assert found.nodes[found.root].name == "dataset/handbook@1"
        assert rows_of(found, role="lineage") == []  # a dataset is never expanded into its members
    for name in ("dataset/handbook@1[1]", "handbook[1]"):
        assert rows_of(clew.why(name, store=store)) == ["h1"]


def test_a_file_may_be_named_by_its_path(asked: tuple[Path, Lineage]) -> None:
    store, _ = asked
    found = clew.why(str(store.parent / "index.json"), store=store)
    assert found.nodes[found.root].kind == "file"
    assert [node.name for node in found.find("model")] == ["BagOfWords"]
    assert found.find("row", role=None) == []  # an index is never expanded into its members


def test_an_index_is_a_node_and_its_other_members_are_not(asked: tuple[Path, Lineage]) -> None:
    _, lineage = asked
    assert len(lineage.find("index")) == 1
    assert rows_of(lineage) == ["h1"]
    assert len(lineage.find("row", role=None)) == 3  # the one used and the two considered


def test_a_document_leads_to_its_row_and_not_through_the_span_that_made_it(asked: tuple[Path, Lineage]) -> None:
    store, lineage = asked
    [document] = lineage.find("document")
    found = clew.why(document.digest, store=store)
    assert rows_of(found) == ["h1"]
    assert not [node for node in found.nodes.values() if node.kind in ("llm", "retriever", "node", "workflow")]


def test_what_is_not_there_says_what_is_close(asked: tuple[Path, Lineage]) -> None:
    store, _ = asked
    with pytest.raises(NotFound, match=r"'dataset/handbok'.*close: dataset/handbook"):
        clew.why("dataset/handbok", store=store)
    with pytest.raises(NotFound, match="no row 99"):
        clew.why("dataset/handbook@1[99]", store=store)
    with pytest.raises(NotFound, match="clew runs"):
        clew.why("zzzzzzzzzzzzzzzzzzzz", store=store)


def test_a_prefix_that_fits_several_lists_them(tmp_path: Path) -> None:
    with traced(tmp_path) as store:
        for _ in range(2):
            with clew.run("again"):
                Fake().invoke([HumanMessage("Say it once more, will you? And then again.")])
        first, second = (run.run_id for run in clew.open(store).runs())
    common = next(first[:size] for size in range(32, 0, -1) if first[:size] == second[:size])
    with pytest.raises(Ambiguous) as raised:
        clew.why(common, store=store)
    assert first in str(raised.value)
    assert second in str(raised.value)


def test_a_store_without_runs_says_so(tmp_path: Path) -> None:
    with traced(tmp_path):
        clew.dataset("handbook", rows(2))
        with pytest.raises(NotFound, match="no run"):
            clew.why()


def test_another_output_of_a_run_may_be_asked_for(asked: tuple[Path, Lineage]) -> None:
    store, lineage = asked
    found = clew.why(lineage.root, store=store, output="found")
    assert len(rows_of(found)) == 3
    with pytest.raises(NotFound, match=r"wrote no output 'nothing'.*answer"):
        clew.why(lineage.root, store=store, output="nothing")


def test_a_catalog_made_again_from_the_logs_answers_the_same(tmp_path: Path) -> None:
    with traced(tmp_path) as store:
        handbook = rows()
        clew.dataset("handbook", handbook)
        agent(Given(found=documents(handbook[:3])), keep=lambda it: it.id != "h1").invoke({"question": QUESTION})
        with clew.run("outside"):
            agent(Given(found=documents(handbook[3:5]))).invoke({"question": QUESTION})
    with clew.open(store) as reader:
        runs = [run.run_id for run in reader.runs()]
        before = [reader.why(run).to_dict() for run in runs]
    for file in store.glob("catalog.sqlite*"):
        file.unlink()
    with clew.open(store) as reader:
        assert [run.run_id for run in reader.runs()] == runs
        after = [reader.why(run).to_dict() for run in runs]
    as_text = [[json.dumps(one, sort_keys=True) for one in some] for some in (before, after)]
    assert as_text[0] == as_text[1]


def test_why_right_after_a_run_knows_code_and_environment(tmp_path: Path) -> None:
    tracer = clew.init(project="truth", store=tmp_path / "store")
    assert tracer is not None
    try:
        with clew.run("at once") as run:
            run.output("an answer that nobody waited for")
        found = clew.why(run)
    finally:
        clew.shutdown()
    assert {node.kind for node in found.find()} >= {"code", "environment"}
