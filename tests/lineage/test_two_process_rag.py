"""The test bed for lineage by content: one process indexes, another answers, and neither passes an id to the other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import clew
from clew.lineage.graph import Lineage
from tests.lineage.lineage_bed import choices, kinds, rows_of, used

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT.parent / "shared" / "bench" / "two_process_rag.py"

pytestmark = pytest.mark.skipif(
    not PROGRAM.is_file(), reason="the program two_process_rag.py is not beside the checkout"
)

QUESTIONS = (
    "Which desk handles parental leave?",
    "rooms remote fire plants copy?",
    "parental keeps writing drills?",
    "letter desk travel rule home?",
    "Which desk handles remote work?",
    "How long does the board keep the letter on office plants?",
    "meeting rooms security badges appeal?",
    "laptop repair laptop repair?",
    "Which desk answers about fire drills within eight days?",
    "Remote Work (copy)",
    "Is there anything at all about bicycles?",
    "travel expenses and parental leave, decision in writing?",
)


def program(store: Path, *arguments: str) -> str:
    process = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        env={**os.environ, "CLEW_STORE": str(store), "TRACED": "1", "PYTHONPATH": str(ROOT)},
        cwd=store.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "clew:" not in process.stderr, process.stderr
    return process.stdout


@dataclass
class Asked:
    """What the program said of itself, and what lineage says of it."""

    truth: dict[str, Any]
    lineage: Lineage


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Asked]:
    folder = tmp_path_factory.mktemp("desk")
    store, index = folder / "store", folder / "kb.json"
    program(store, "index", str(index))
    truths = {question: json.loads(program(store, "ask", str(index), question)) for question in QUESTIONS}
    with clew.open(store) as reader:
        runs = [run for run in reversed(reader.runs()) if run.name == "DeskAgent"]
        assert len(runs) == len(QUESTIONS)
        found = {
            question: Asked(truths[question], reader.why(run.run_id))
            for question, run in zip(QUESTIONS, runs, strict=True)
        }
        before = {question: json.dumps(one.lineage.to_dict()) for question, one in found.items()}
    for file in store.glob("catalog.sqlite*"):
        file.unlink()
    with clew.open(store) as reader:  # made again from the logs
        for question, one in found.items():
            run = one.lineage.nodes[one.lineage.root].run_id
            assert json.dumps(reader.why(run).to_dict(), sort_keys=True) == json.dumps(
                json.loads(before[question]), sort_keys=True
            ), question
    shutil.rmtree(store)
    return found


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_rows_of_role_lineage_are_exactly_those_in_the_last_prompt(asked: dict[str, Asked], question: str) -> None:
    one = asked[question]
    assert used(one.lineage) == one.truth["used"]


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_was_rejected_is_considered(asked: dict[str, Asked], question: str) -> None:
    one = asked[question]
    considered = rows_of(one.lineage, "considered")
    assert set(considered) >= set(one.truth["rejected"])
    assert set(considered).isdisjoint(one.truth["used"])


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_twin_is_no_more_than_considered(asked: dict[str, Asked], question: str) -> None:
    one = asked[question]
    for twin in set(one.truth["twins"]) - set(one.truth["used"]):
        assert twin not in rows_of(one.lineage) + rows_of(one.lineage, "possible")
    assert choices(one.lineage) == []


@pytest.mark.parametrize("question", QUESTIONS)
def test_payroll_is_nowhere(asked: dict[str, Asked], question: str) -> None:
    said = json.dumps(asked[question].lineage.to_dict())
    assert "payroll" not in said
    assert "earns" not in said


@pytest.mark.parametrize("question", QUESTIONS)
def test_models_prompt_index_code_environment_and_dataset_are_reached(asked: dict[str, Asked], question: str) -> None:
    one = asked[question]
    models = {node.name for node in one.lineage.find("model")}
    assert "Reader" in models
    assert kinds(one.lineage) >= {"prompt", "code", "environment", "llm", "model"}
    if one.truth["used"]:
        assert models == {"Reader", "BagOfWords"}
        assert kinds(one.lineage) >= {"row", "dataset", "chunk", "document", "index", "file", "retriever"}
        assert [node.name for node in one.lineage.find("dataset")] == ["dataset/handbook@1"]
        assert [row.name for row in one.lineage.find("row")] == [
            f"dataset/handbook@1[{row.detail['fields']['id'][1:]}]" for row in one.lineage.find("row")
        ]


def test_the_questions_have_what_they_are_asked_for(asked: dict[str, Asked]) -> None:
    truths = [one.truth for one in asked.values()]
    assert any(truth["tries"] > 1 and truth["used"] for truth in truths)
    assert any(set(truth["twins"]) & set(truth["rejected"]) for truth in truths)
    assert any(truth["used"] and truth["rejected"] for truth in truths)


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_first_retrieval_of_a_rewritten_question_is_not_used_for_itself(
    asked: dict[str, Asked], question: str
) -> None:
    one = asked[question]
    retrievals = [node for node in one.lineage.find("retriever") if node.span_id]
    assert len(retrievals) <= 1
