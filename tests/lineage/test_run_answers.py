"""What a run answers with: what it said, else its last graph, else its last response."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage

import clew
from tests.lineage.lineage_bed import Fake, Given, agent, documents, numbered, rows, rows_of, traced, used


@pytest.mark.parametrize("said", [True, False])
def test_a_run_around_two_graphs_answers_with_what_it_said_or_with_the_last_graph(said: bool, tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        with clew.run("both") as run:
            first = agent(Given(found=documents(handbook[:1]))).invoke({"question": "First of all?"})
            agent(Given(found=documents(handbook[1:2]))).invoke({"question": "Second of all?"})
            if said:
                run.output(first["answer"])
        lineage = clew.why(run)
    assert lineage.root == run.id
    assert used(lineage) == (["h0"] if said else ["h1"])


def test_a_run_without_a_graph_answers_with_its_last_response(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        with clew.run("plain") as run:
            found = Given(found=documents(handbook[:2])).invoke("x")
            Fake().invoke([HumanMessage(numbered(found[1:]))])
        lineage = clew.why(run)
    assert used(lineage) == ["h1"]
    assert rows_of(lineage, "considered") == ["h0"]


def test_what_was_retrieved_outside_any_run_is_found_in_the_runs_prompt(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        found = Given(found=documents(handbook[:2])).invoke("x")
        with clew.run("later") as run:
            Fake().invoke([HumanMessage(numbered(found[:1]))])
        lineage = clew.why(run)
    assert used(lineage) == ["h0"]
