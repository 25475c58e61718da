"""`clew cache` and `clew gc` of cached answers: what calls asked of the cache, why, and what is given up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.bed import clew, program

SOURCE = """
import sys, clew
from langchain_core.tools import tool
from tests.replay.conftest import Counted

clew.init("p", store=sys.argv[1], cache=True)
clew.instrument()
for _ in range(3):
    Counted().invoke("hello")
Counted(finish_reason="length").invoke("hello")

@tool
def unknown(x: int) -> int:
    "Nobody knows."
    return x

unknown.invoke({"x": 1})
"""


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("cached") / "store"
    assert program(SOURCE, store).returncode == 0
    return store


def test_stats_say_what_was_served_and_what_it_saved(cached: Path) -> None:
    done = clew("cache", "stats", "--json", "--price", "counted=1,2", "--store", str(cached))
    found = json.loads(done.stdout)
    assert found["actions"] == 1
    models = {one["kind"]: one for one in found["calls"]}
    assert set(models) == {"llm", "tool"}
    llm = models["llm"]
    assert (llm["hits"], llm["misses"], llm["passed"]) == (2, 2, 1)
    assert (llm["saved_input_tokens"], llm["saved_output_tokens"]) == (14, 6)
    assert llm["saved_money"] == pytest.approx((14 * 1 + 6 * 2) / 1e6)
    assert llm["saved_seconds"] > 0
    assert (models["tool"]["hits"], models["tool"]["misses"], models["tool"]["passed"]) == (0, 0, 1)


def test_stats_as_text_are_a_table(cached: Path) -> None:
    done = clew("cache", "stats", "--store", str(cached))
    assert done.stdout.startswith("1 answers, 0.0 MB\n")
    assert "llm   counted" in done.stdout
    assert "50%" in done.stdout


def test_a_price_that_is_none_is_wrong_usage(cached: Path) -> None:
    done = clew("cache", "stats", "--price", "gpt-4o=cheap", "--store", str(cached))
    assert done.returncode == 2
    assert "no price" in done.stderr


def spans(store: Path) -> list[dict[str, Any]]:
    run = json.loads(clew("runs", "--all", "--json", "--store", str(store)).stdout)[0]["run_id"]
    return list(json.loads(clew("show", run, "--json", "--store", str(store)).stdout)["spans"])


def test_explain_tells_what_a_span_asked(cached: Path) -> None:
    first, second, _, cut, tool = spans(cached)
    done = clew("cache", "explain", first["span_id"], "--store", str(cached))
    assert done.stdout.startswith(f"miss: span {first['span_id']}\nnobody had asked this before\nllm chat counted\n")
    found = json.loads(clew("cache", "explain", second["span_id"][:8], "--json", "--store", str(cached)).stdout)
    assert (found["schema"], found["outcome"]) == ("clew/1", "hit")
    assert found["performed"]["span_id"] == first["span_id"]
    assert "it ended by length" in clew("cache", "explain", cut["span_id"], "--store", str(cached)).stdout
    assert clew("cache", "explain", tool["span_id"], "--store", str(cached)).stdout.startswith("bypass: ")
    key = clew("cache", "explain", found["key"][:10], "--store", str(cached)).stdout
    assert key.startswith(f"stored: key {found['key']}\n")


def test_explain_of_a_run_has_a_line_for_each_call_that_asked(cached: Path) -> None:
    first, second, third, cut, tool = spans(cached)
    run = first["run_id"]
    lines = clew("cache", "explain", run, "--store", str(cached)).stdout.splitlines()
    assert lines[0].startswith(f"run {run} (")
    assert lines[0].endswith("): 1 miss, 2 hit, 1 refused, 1 bypass")
    assert [line.split()[:2] for line in lines[1:]] == [
        [outcome, span["span_id"]]
        for outcome, span in zip(
            ("miss", "hit", "hit", "refused", "bypass"), (first, second, third, cut, tool), strict=True
        )
    ]
    assert "llm Counted (counted) at Counted: nobody had asked this before" in lines[1]
    assert "nothing says what the tool 'unknown' does" in lines[5]
    found = json.loads(clew("cache", "explain", run[:12], "--json", "--store", str(cached)).stdout)
    assert (found["schema"], found["run_id"]) == ("clew/1", run)
    assert [one["outcome"] for one in found["calls"]] == ["miss", "hit", "hit", "refused", "bypass"]
    assert found["calls"][4]["name"] == "unknown"
    assert found["calls"][4]["path"] == "unknown"


def test_explain_of_a_run_says_in_which_part_a_miss_differs_from_the_nearest(tmp_path: Path) -> None:
    source = SOURCE.replace('Counted(finish_reason="length").invoke("hello")', 'Counted().invoke("goodbye")')
    store = tmp_path / "store"
    assert program(source.replace("for _ in", 'with clew.run("asked"):\n  for _ in'), store).returncode == 0
    lines = clew("cache", "explain", "asked", "--store", str(store)).stdout.splitlines()
    assert lines[0].endswith("(asked): 1 miss, 2 hit")
    (process,) = [
        one for one in json.loads(clew("runs", "--all", "--json", "--store", str(store)).stdout) if one["process"]
    ]
    lines = clew("cache", "explain", process["run_id"], "--store", str(store)).stdout.splitlines()
    assert lines[0].endswith(": 2 miss, 2 hit, 1 bypass")
    assert "nobody had asked this before; the nearest, of span " in lines[4]
    assert lines[4].endswith("differs in messages")


def test_stats_say_why_calls_passed(cached: Path) -> None:
    done = clew("cache", "stats", "--store", str(cached))
    below = done.stdout[done.stdout.index("passed, because:") :]
    assert "  1 llm: it ended by length" in below
    assert "  1 tool: nothing says what the tool 'unknown' does: see clew.effect" in below
    found = json.loads(clew("cache", "stats", "--json", "--store", str(cached)).stdout)["reasons"]
    assert [(one["kind"], one["count"]) for one in found] == [("llm", 1), ("tool", 1)]


def test_explain_of_nothing_is_one_line_and_an_error(cached: Path) -> None:
    for wrong, said in (("feedfeedfeed", "no key of the cache and no span"), ("handbook", "4 hex digits")):
        done = clew("cache", "explain", wrong, "--store", str(cached))
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_gc_says_which_answers_go(cached: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(cached, store)
    planned = clew("gc", "--cache-bytes", "1B", "--dry-run", "--store", str(store)).stdout
    assert "would go: 1 cached answers" in planned
    assert "would go: saves least for its bytes" in planned
    assert clew("cache", "stats", "--store", str(store)).stdout.startswith("1 answers")
    found = json.loads(clew("gc", "--cache-bytes", "1B", "--expired", "--json", "--store", str(store)).stdout)
    assert [(one["kind"], one["model"], one["reason"], one["count"]) for one in found["forgotten"]] == [
        ("llm", "counted", "evicted", 1)
    ]
    assert (found["processes"], found["actions"], found["actions_bytes"]) == ([], 0, 0)
    assert clew("cache", "stats", "--store", str(store)).stdout.startswith("0 answers")
    assert clew("doctor", "--rebuild", "--store", str(store)).returncode == 0
    assert clew("cache", "stats", "--store", str(store)).stdout.startswith("0 answers")
    assert "removed: 0 cached answers" in clew("gc", "--expired", "--store", str(store)).stdout


@pytest.mark.parametrize("wrong", [[], ["--cache-bytes", "much"], ["--older-than", "soon"], ["--dry-run"]])
def test_gc_that_is_not_told_what_may_go_is_wrong_usage(cached: Path, wrong: list[str]) -> None:
    done = clew("gc", *wrong, "--store", str(cached))
    assert done.returncode == 2
    assert done.stdout == ""
