"""`clew diff` as it is run: what it prints, and the status it ends with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli import bed
from tests.cli.bed import clew

DIFFERENT, TROUBLE = 1, 2

HELPED = """
import sys, clew
from helper import greeting
clew.init("docs-qa", store=sys.argv[1])

@clew.trace("say", kind="llm")
def say(prompt):
    return f"{greeting} {prompt}"

with clew.run("hello") as run:
    run.output(say("you"))
"""


def diff(*arguments: str, store: Path) -> subprocess.CompletedProcess[str]:
    return clew("diff", *arguments, "--store", str(store))


@pytest.fixture
def runs(store: Path) -> dict[str, str]:
    """Session -> run."""
    finished = clew("runs", "--json", "--store", str(store))
    return {run["session"]: run["run_id"] for run in json.loads(finished.stdout)}


def test_a_run_and_itself_end_with_status_0(store: Path, runs: dict[str, str]) -> None:
    finished = diff(runs["s-1"], runs["s-1"][:20], store=store)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("equal")


def test_runs_that_differ_end_with_status_1_and_say_where(store: Path, runs: dict[str, str]) -> None:
    finished = diff(runs["s-1"], runs["s-2"], store=store)
    assert finished.returncode == DIFFERENT, finished.stderr
    assert not finished.stderr
    lines = finished.stdout.splitlines()
    assert lines[0].startswith("different  they part at 1 step; 0 of 3 steps are equal; the answers differ")
    assert "\x1b" not in finished.stdout
    assert any("retriever answer/search  asked otherwise" in line for line in lines)
    assert any(line.endswith("question: [-a refund-]{+an invoice+}") for line in lines)
    assert any("follows from retriever search" in line for line in lines)


def test_the_json_is_all_that_is_printed(store: Path, runs: dict[str, str]) -> None:
    finished = diff(runs["s-1"], runs["s-2"], "--json", store=store)
    assert finished.returncode == DIFFERENT
    told: Any = json.loads(finished.stdout)
    assert told["schema"] == "clew/1"
    assert told["equal"] is False
    assert (told["a"]["run_id"], told["b"]["run_id"]) == (runs["s-1"], runs["s-2"])
    session = next(facet for facet in told["facets"] if facet["name"] == "session")
    assert session["changes"] == [
        {"side": "session", "path": "session", "a": "s-1", "b": "s-2", "diff": ["@@ -1 +1 @@", "-s-1", "+s-2"]}
    ]


def test_what_cannot_be_compared_ends_with_status_2(store: Path, runs: dict[str, str], tmp_path: Path) -> None:
    for arguments in ((runs["s-1"], "nobody"), (runs["s-1"],), (runs["s-1"], "dataset/handbook")):
        finished = diff(*arguments, store=store)
        assert finished.returncode == TROUBLE
        assert finished.stderr.startswith("clew: ")
        assert not finished.stdout
    assert diff("a", "b", store=tmp_path / "nowhere").returncode == TROUBLE


def test_programs_of_different_shape_are_compared(store: Path, runs: dict[str, str]) -> None:
    finished = diff(runs["s-1"], runs["s-3"], "--all", store=store)
    assert finished.returncode == DIFFERENT, finished.stderr
    assert "only in a" in finished.stdout
    assert "only in b" in finished.stdout


def test_a_run_whose_process_was_killed_is_named(store: Path, runs: dict[str, str]) -> None:
    bed.program(bed.KILLED, store)
    finished = diff(runs["s-1"], "doomed", store=store)
    assert finished.returncode == DIFFERENT, finished.stderr
    assert "was killed" in finished.stdout


def test_code_that_changed_on_disk_is_a_facet(tmp_path: Path) -> None:
    store, folder = tmp_path / "store", tmp_path / "program"
    folder.mkdir()
    for greeting in ("Hello", "Good morning"):
        (folder / "helper.py").write_text(f"# a helper\ngreeting = {greeting!r}\n")
        (folder / f"{greeting.split()[-1]}.txt").write_text("only one of the two runs has seen the other's")
        assert bed.program(HELPED, store).returncode == 0
    found = json.loads(clew("runs", "--json", "--store", str(store)).stdout)
    second, first = (run["run_id"] for run in found)
    finished = diff(first, second, "--json", store=store)
    told = json.loads(finished.stdout)
    assert [told["steps"][number - 1]["state"] for number in told["divergences"]] == ["answered otherwise"]
    facets = {facet["name"]: facet for facet in told["facets"]}
    changed = {change["path"]: change for change in facets["code"]["changes"]}
    assert set(changed) == {"helper.py", "morning.txt"}
    assert "a" not in changed["morning.txt"]
    assert changed["helper.py"]["diff"][-2:] == ["-greeting = 'Hello'", "+greeting = 'Good morning'"]
    assert facets["environment"]["equal"]
    assert facets["entry"]["equal"]
    text = diff(first, second, store=store).stdout
    assert "~ helper.py  +1 -1 lines" in text
    assert "+ morning.txt" in text
    assert "{+Good morning+}" in diff(first, second, "--content", store=store).stdout
