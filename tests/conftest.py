"""What tests of a running tracer share: a store of their own, and OpenTelemetry left as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from opentelemetry import trace

import clew
from clew.lineage import index
from clew.lineage.reader import Reader
from clew.store.folder import Folder, writing_to
from clew.tracer.init import Tracer

hypothesis.settings.register_profile("clew", deadline=None)  # machines are noisy
hypothesis.settings.load_profile("clew")


@pytest.fixture(autouse=True, scope="module")
def no_store_is_left() -> Iterator[None]:
    """A process remembers which store it writes to, and its queries mean that one: not those of the next module."""
    yield
    clew.shutdown()
    writing_to(None)


@pytest.fixture
def clean_tracing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No tracer before the test and none after it; the program's own OpenTelemetry provider stays out of it."""
    clew.shutdown()
    before = trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE._done
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE._done = None, False
    for name in ("CLEW_STORE", "CLEW_DISABLED", "CLEW_CATALOG", "CLEW_CACHE", "CLEW_RECORD", "CLEW_REPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    clew.shutdown()
    writing_to(None)
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE._done = before


@pytest.fixture
def tracer(clean_tracing: None, tmp_path: Path) -> Iterator[Tracer]:
    """A running tracer whose store is `tmp_path/store`."""
    started = clew.init("tests", store=tmp_path / "store")
    assert started is not None
    yield started
    clew.shutdown()
    index.forget(started.folder)


@pytest.fixture
def reader(tracer: Tracer) -> Iterator[Reader]:
    """The tracer's store, to read: each query catches up with what was traced before it."""
    with clew.open(tracer.folder.path) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty store."""
    return Folder(tmp_path / "store", create=True)
