"""The same request, and another key: what makes a cache useless without ever answering wrongly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import clew
from tests.replay.conftest import LIVE, Caching, live
from tests.replay.defects.provider import Provider, sent

ROOT = Path(__file__).parents[3]
Told = dict[str, list[Any]]


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[Told]:
    """What processes.py told, in three processes with one store, each with another hash seed."""
    folder, told = tmp_path_factory.mktemp("processes"), []
    for seed in ("0", "1", "4711"):
        done = subprocess.run(
            [sys.executable, "-B", str(Path(__file__).with_name("processes.py")), str(folder / "store")],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout.splitlines()[-1]))
    return told


def known_again(processes: list[Told], case: str, calls: int) -> None:
    """The first process asks the world `calls` times, the others never; all answer the same."""
    assert [told[case][1] for told in processes] == [calls, 0, 0]
    assert processes[0][case][0] == processes[1][case][0] == processes[2][case][0]


def test_langgraph_equal_values_that_are_shared_or_separate_objects(processes: list[Told]) -> None:
    """LangGraph: `default_cache_key` pickles, and a pickle tells whether two equal parts are one object."""
    known_again(processes, "shared_and_separate", 1)


def test_langgraph_sets_in_three_processes(processes: list[Told]) -> None:
    """LangGraph: the order of a set follows the hash seed: three processes, three keys."""
    known_again(processes, "sets", 7)


def test_langgraph_the_uuid_of_a_message(processes: list[Told]) -> None:
    """LangGraph: messages get a new id in each run, and it stood in the key."""
    known_again(processes, "message_ids", 1)
    known_again(processes, "agent", 3)


def test_langchain_an_option_that_is_an_object(processes: list[Told]) -> None:
    """LangChain: the repr of an object, with its address, stands in `llm_string`: three processes, three keys."""
    known_again(processes, "object_option", 1)
    known_again(processes, "object_field", 1)


def test_langchain_21695_the_schema_of_a_tool(processes: list[Told]) -> None:
    """langchain#21695, PR#31117: the schema that is made of a function drifted, and with it the key."""
    known_again(processes, "tool_schema", 1)
    known_again(processes, "structured", 1)


def test_a_model_that_is_made_anew_is_the_same_model(processes: list[Told]) -> None:
    """LangChain: clients in a model's fields are other objects in each process."""
    known_again(processes, "rebuilt", 1)
    known_again(processes, "completion", 1)


def test_the_id_of_a_tool_call_is_no_part_of_it(processes: list[Told]) -> None:
    """LangGraph: the provider's id of a tool call is new in each run."""
    known_again(processes, "tool_call", 1)


def test_a_cached_function_that_calls_another_is_known_again(processes: list[Told]) -> None:
    """Found beside them: what holds a cached function was said to have a state that cannot be seen."""
    known_again(processes, "nested", 2)


def test_litellm_the_order_of_keywords_and_of_dicts(processes: list[Told]) -> None:
    """LiteLLM: the order of keywords, and that of a dict, changed the key."""
    known_again(processes, "keywords", 3)


def test_inspect_ai_a_ttl_that_is_changed_drops_nothing(caching: Caching) -> None:
    """inspect_ai: the ttl is in the key, so whoever changes it starts with an empty cache."""

    def read(ttl: str) -> str:
        @clew.cached(effect="read", ttl=ttl, version="1")
        def page(url: str) -> str:
            return f"{live('page')}: {url}"

        return str(page("x"))

    for ttl in (None, "30d", "1h", 7200):
        with caching(clew.Cache(ttl=ttl)):
            assert sent(Provider())["number"] == 1
            assert [read(one) for one in ("1d", "2h", "30d")] == ["1: x"] * 3
    assert LIVE == {"llm": 1, "page": 1}


def test_inspect_ai_a_ttl_that_is_shortened_counts_for_what_was_kept_before(
    caching: Caching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other side of it: an answer that is older than the new ttl is none."""
    from clew.replay import cache

    now = [1_800_000_000_000_000_000]
    monkeypatch.setattr(cache.time, "time_ns", lambda: now[0])
    with caching(clew.Cache(ttl="30d")):
        assert sent(Provider())["number"] == 1
    now[0] += 7200 * 10**9
    with caching(clew.Cache(ttl="1h")):
        assert sent(Provider())["number"] == 2


def test_zipnn_and_epochs_have_their_tests_elsewhere() -> None:
    """ZipNN 0.5.4 overwrites the buffer it compresses. Nothing here compresses with it, or in place: no dependency of
    clew's may bring it in unseen."""
    text = (ROOT / "pyproject.toml").read_text()
    assert "zipnn" not in text.lower()
