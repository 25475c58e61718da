"""`clew cache stats`: what calls asked of the cache, and what it saved them."""

from __future__ import annotations

import json
from pathlib import Path

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
