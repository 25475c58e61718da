"""An agent with 29 calls, of which one thing changes: only what the change touches goes live, however it is run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import clew
from tests.replay.conftest import Caching, program

CASES = (
    "nothing",
    "final prompt",
    "one branch prompt",
    "one retrieval differs",
    "planner prompt",
    "planner prompt, same plan",
    "one branch prompt, same summary",
    "clock",
)
CALLS = 29
STATE = {"question": "Q"}


@pytest.fixture(scope="session")
def planner() -> ModuleType:
    module = program("planner_agent")
    sys.modules["planner_agent"] = module
    return module


def invoked(graph: Any) -> str:
    return str(graph.invoke(STATE)["answer"])


def awaited(graph: Any) -> str:
    return str(asyncio.run(graph.ainvoke(STATE))["answer"])


def streamed(graph: Any) -> str:
    parts = list(graph.stream(STATE, stream_mode=["messages", "values"]))
    assert any(mode == "messages" for mode, _ in parts)
    return str(parts[-1][1]["answer"])


def streamed_async(graph: Any) -> str:
    async def collected() -> list[Any]:
        return [part async for part in graph.astream(STATE, stream_mode=["messages", "values"])]

    return str(asyncio.run(collected())[-1][1]["answer"])


WAYS = [invoked, awaited, streamed, streamed_async]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("case", CASES)
def test_only_what_the_change_touches_goes_live(
    planner: ModuleType, caching: Caching, monkeypatch: pytest.MonkeyPatch, case: str, way: Callable[[Any], str]
) -> None:
    assert set(planner.EXPECTED) == set(CASES)
    recorded, changed, expected = planner.EXPECTED[case]
    monkeypatch.setattr(planner, "NOW", lambda: 1_750_000_000_000_000_000)
    is_async = way in (awaited, streamed_async)

    def answer(config: Any) -> tuple[str, int]:
        planner.LIVE.clear()
        return way(planner.build(config, is_async=is_async)), sum(planner.LIVE.values())

    plain, _ = answer(changed)
    with caching(clew.Cache(retriever=True, tools={"search": "pure", "check": "pure"})):
        assert answer(recorded)[1] == CALLS
        assert answer(changed) == (plain, expected)


def test_what_another_process_was_answered_is_served(planner: ModuleType, caching: Caching) -> None:
    cache = clew.Cache(retriever=True, tools={"search": "pure", "check": "pure"})
    with caching(cache):
        first = invoked(planner.build())
    planner.LIVE.clear()
    with caching(cache):  # nothing is remembered from the first one
        assert streamed(planner.build()) == first
    assert not planner.LIVE
