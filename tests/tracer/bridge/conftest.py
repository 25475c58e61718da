"""A program with OpenTelemetry, before and after ours is bridged to its provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.util._once import Once

from tests.tracer.bridge.bed import World


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    setter = trace._set_tracer_provider
    world = World()
    yield world
    world.bridge.uninstall()
    assert trace._set_tracer_provider is setter
