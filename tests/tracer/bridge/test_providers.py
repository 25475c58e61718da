"""The bridge finds their provider whenever and however it comes."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
)

from tests.tracer.bridge.bed import World, before_and_after


@pytest.mark.parametrize("list_of_tracers", [True, False])
def test_tracers_obtained_before_are_reached(
    world: World, monkeypatch: pytest.MonkeyPatch, list_of_tracers: bool
) -> None:
    theirs = world.theirs(ALWAYS_OFF)
    early = theirs.get_tracer("early")
    proxy = trace.get_tracer("proxy")
    if not list_of_tracers:  # as in SDKs that keep none
        monkeypatch.setattr(theirs, "_tracers", None, raising=False)
    trace.set_tracer_provider(theirs)
    world.bridge.install()
    ids = set()
    for _ in range(2):
        random.seed(42)
        ids.add(early.start_span("early").get_span_context().trace_id)
    early.start_span("early").end()
    if list_of_tracers:
        proxy.start_span("proxy").end()
        assert world.sink.names == ["early", "proxy"]
    assert len(ids) == 2
    assert world.sink.names[0] == "early"
    assert world.exported == []


def test_a_tracer_taken_before_any_provider_follows_ours_then_theirs_and_loses_nothing(world: World) -> None:
    tracer = trace.get_tracer("module level")
    world.bridge.install()
    tracer.start_span("alone").end()
    trace.set_tracer_provider(world.theirs())
    tracer.start_span("bridged").end()
    assert world.exported == ["bridged"]
    world.bridge.uninstall()
    tracer.start_span("after us").end()
    assert world.exported == ["bridged", "after us"]
    assert world.sink.names == ["alone", "bridged"]
    assert {span.resource.attributes["service.name"] for span in world.exporter.get_finished_spans()} == {"shop"}


def test_a_later_provider_is_accepted_without_a_warning_and_a_second_one_refused_as_ever(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.bridge.install()
    assert trace.get_tracer_provider() is world.provider
    theirs = world.theirs()
    with caplog.at_level(logging.DEBUG):
        trace.set_tracer_provider(theirs)
    assert caplog.records == []
    assert trace.get_tracer_provider() is theirs
    trace.set_tracer_provider(world.theirs())
    assert [record.message for record in caplog.records] == ["Overriding of current TracerProvider is not allowed"]
    assert trace.get_tracer_provider() is theirs


@pytest.mark.parametrize("missing", ["_set_tracer_provider", None])
def test_a_provider_that_comes_around_the_setter_is_noticed_at_the_next_span(
    world: World, monkeypatch: pytest.MonkeyPatch, missing: str | None
) -> None:
    with monkeypatch.context() as without:
        if missing:
            without.delattr(trace, missing)
        world.bridge.install()
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", world.theirs())
        world.provider.start_span("ours").end()
    assert world.exported == ["ours"]
    world.bridge.uninstall()
    world.provider.start_span("after").end()
    assert world.exported == ["ours"]


class NotTheSdks(trace.TracerProvider):
    def get_tracer(self, *arguments: Any, **named: Any) -> trace.Tracer:
        return trace.NoOpTracer()


@before_and_after
@pytest.mark.parametrize("make", [trace.NoOpTracerProvider, trace.ProxyTracerProvider, NotTheSdks])
def test_a_provider_that_is_not_the_sdks_counts_as_none_and_stays(
    world: World, when: str, make: Callable[[], trace.TracerProvider]
) -> None:
    foreign = make()
    if when == "after":
        world.bridge.install()
    trace.set_tracer_provider(foreign)
    world.bridge.install()
    assert trace.get_tracer_provider() is foreign
    span = world.provider.start_span("ours")
    span.end()
    assert span.context.trace_flags.sampled
    assert world.provider.user is None
    assert world.faults == []
    world.bridge.uninstall()
    assert trace.get_tracer_provider() is foreign


def test_their_provider_switched_off_gets_nothing_from_us(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    world.bridged("before")
    world.provider.start_span("ours").end()
    assert world.exported == []
