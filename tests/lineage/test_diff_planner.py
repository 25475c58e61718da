"""The planner agent of the bench: a diff finds exactly the calls that must go live after a change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import clew
from tests.lineage.diff_bed import newest
from tests.lineage.lineage_bed import traced
from tests.replay.conftest import program

PARTED = {
    "nothing": [],
    "final prompt": [("asked otherwise", "llm", "Planner/conclude/brain-1")],
    "one branch prompt": [("asked otherwise", "llm", "Planner/research[2]/brain-1")],
    "one retrieval differs": [("answered otherwise", "retriever", "Planner/research[4]/Library")],
    "planner prompt": [("asked otherwise", "llm", "Planner/plan/brain-1")],
    "planner prompt, same plan": [("asked otherwise", "llm", "Planner/plan/brain-1")],
    "one branch prompt, same summary": [("asked otherwise", "llm", "Planner/research[2]/brain-1")],
    "clock": [],
}


@pytest.fixture
def store(clean_tracing: None, tmp_path: Path) -> Iterator[Path]:
    with traced(tmp_path) as folder:
        yield folder


@pytest.mark.parametrize("case", PARTED)
def test_what_was_asked_otherwise_is_what_goes_live(store: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    planner = program("planner_agent")
    monkeypatch.setattr(planner, "NOW", lambda: 1_750_000_000_000_000_000)
    assert set(planner.EXPECTED) == set(PARTED)
    recorded, changed, live = planner.EXPECTED[case]
    runs = []
    for config in (recorded, changed):
        planner.build(config).invoke({"question": "Q"})
        runs.append(newest(store))
    found = clew.diff(*runs, store=store)
    calls = [pair for pair in found.pairs() if pair.step.kind in ("llm", "tool", "retriever")]
    assert len(calls) == 29
    assert [(pair.state, pair.step.kind, pair.step.span.path) for pair in found.divergences] == PARTED[case]
    # the program's own count of the retriever holds its edition, which its query does not tell
    assert sum(pair.state != "equal" for pair in calls) == live
    assert all((pair.follows is None) == pair.first for pair in calls if pair.state != "equal")
    assert found.equal == (live == 0)
