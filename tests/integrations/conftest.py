"""A tracer of its own for every test, and the reference agent where the checkout has it beside itself."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from opentelemetry import trace

import clew
from clew.integrations.langchain import open_runs
from clew.tracer.init import Tracer
from tests.integrations.log_reader import Content, read

BENCH = Path(os.environ.get("CLEW_BENCH", Path(__file__).parents[3] / "shared" / "bench"))


@pytest.fixture
def tracer(tmp_path: Path) -> Iterator[Tracer]:
    """A running tracer; at the end no run is open and nothing went wrong inside clew."""
    started = clew.init(project="observers", store=tmp_path / "store")
    assert started is not None
    before = set(open_runs._spans)
    try:
        yield started
        assert set(open_runs._spans) <= before
        assert not started.faults.counts
    finally:
        open_runs._spans.clear()
        clew.shutdown()


def log(tracer: Tracer) -> Content:
    """Everything the tracer wrote so far."""
    return read(tracer.folder.log)


def traced(**more: Any) -> Any:
    """A config with the callback."""
    return {"callbacks": [clew.callback()], **more}


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The reference agent: 23 LangChain runs, one embedding, and three spans of the user's own."""
    path = BENCH / "reference_agent.py"
    if not path.exists():
        pytest.skip(f"the reference agent is not at {path}; CLEW_BENCH names its folder")
    spec = importlib.util.spec_from_file_location("reference_agent", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.USER_SPAN = lambda name: trace.get_tracer("user").start_as_current_span(name)  # type: ignore[attr-defined]
    return module
