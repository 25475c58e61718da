"""A process that records, and the planner agent."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from tests.replay.conftest import program
from tests.replay.patches.bed import Recording


@pytest.fixture
def recording(request: pytest.FixtureRequest) -> Recording:
    """`with recording() as tracer`: the `recorded` of the other tests; here that is what was."""
    return request.getfixturevalue("recorded")  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def planner() -> ModuleType:
    module = program("planner_agent")
    sys.modules["planner_agent"] = module
    return module
