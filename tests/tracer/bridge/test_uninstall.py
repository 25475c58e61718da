"""The bridge restores everything, and no fault of one side reaches the other."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ParentBased,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from opentelemetry.trace.span import TraceState

from clew.tracer.bridge import Bridge
from clew.tracer.provider import Provider
from tests.tracer.bridge.bed import BrokenSink, Everything, Failing, World, before_and_after


@before_and_after
def test_uninstall_restores_everything(world: World, when: str) -> None:
    sampler = ParentBased(ALWAYS_OFF)
    theirs = world.theirs(sampler)
    early, generator, active = theirs.get_tracer("early"), theirs.id_generator, theirs._active_span_processor
    hooks = dict(vars(active))
    setter = trace._set_tracer_provider
    if when == "after":
        world.bridge.install()
    trace.set_tracer_provider(theirs)
    world.bridge.install()
    late = theirs.get_tracer("late")
    late.start_span("while").end()
    world.bridge.uninstall()
    world.bridge.uninstall()
    assert trace.get_tracer_provider() is theirs
    assert trace._set_tracer_provider is setter
    assert isinstance(early, sdk.Tracer)
    assert isinstance(late, sdk.Tracer)
    for holder in (theirs, early, late):
        assert holder.sampler is sampler
        assert holder.id_generator is generator
    assert type(generator) is RandomIdGenerator
    assert vars(active) == hooks
    assert not late.start_span("after").is_recording()
    assert world.sink.names == ["while"]


def test_uninstall_without_a_provider_of_theirs_leaves_none_and_lets_one_be_set(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.bridge.install()
    tracer = trace.get_tracer("app")
    world.bridge.uninstall()
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    assert not tracer.start_span("to nobody").is_recording()
    trace.set_tracer_provider(world.theirs())
    tracer.start_span("to theirs").end()
    assert world.exported == ["to theirs"]
    assert world.sink.names == []
    assert caplog.records == []


def test_installing_twice_tells_the_sink_once_and_a_new_install_works(world: World) -> None:
    world.bridged("before")
    world.bridge.install()
    trace.get_tracer("app").start_span("first").end()
    world.bridge.uninstall()
    world.bridge.install()
    trace.get_tracer("app").start_span("second").end()
    world.provider.start_span("ours").end()
    assert world.sink.names == ["first", "second"]
    assert world.exported == ["first", "second", "ours"]


def test_a_wrapper_put_over_ours_survives_uninstall(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    original = trace._set_tracer_provider
    world.bridge.install()
    ours = trace._set_tracer_provider
    with monkeypatch.context() as tool:
        tool.setattr(trace, "_set_tracer_provider", lambda provider, log: ours(provider, log))
        world.bridge.uninstall()
        trace.set_tracer_provider(world.theirs(ALWAYS_OFF))
        assert not trace.get_tracer("app").start_span("after").is_recording()
    trace._set_tracer_provider = original
    assert world.sink.names == []


def test_what_others_kept_of_ours_only_passes_on_after_uninstall(world: World) -> None:
    theirs = world.bridged("before", ParentBased(ALWAYS_OFF))
    everything = Everything()
    theirs.add_span_processor(everything)
    active, sampler = theirs._active_span_processor, theirs.sampler
    hooks = {name: getattr(active, name) for name in ("on_start", "on_end")}
    dropped = world.provider.start_span("dropped")
    world.bridge.uninstall()
    theirs.sampler = sampler
    vars(active).update(hooks)
    remote = trace.set_span_in_context(NonRecordingSpan(SpanContext(0xABC, 0xDEF, True, TraceFlags(1))))
    theirs.get_tracer("late").start_span("sampled", remote).end()
    assert not theirs.get_tracer("late").start_span("root").is_recording()
    assert everything.calls == [("start", "sampled"), ("end", "sampled")]
    assert world.sink.started == world.sink.names == []
    child = world.provider.start_span("child", parent=dropped.get_span_context())
    assert type(child.context.trace_state) is TraceState


def test_our_provider_serves_again_after_a_new_install(world: World) -> None:
    world.bridge.install()
    tracer = trace.get_tracer("app")
    world.bridge.uninstall()
    world.bridge.install()
    tracer.start_span("again").end()
    assert world.sink.names == ["again"]


def test_our_span_open_at_uninstall_still_ends_in_their_exporter(world: World) -> None:
    world.bridged("before")
    span = world.provider.start_span("ours")
    world.bridge.uninstall()
    span.end()
    assert world.exported == ["ours"]


def test_a_fault_of_the_sink_never_reaches_their_program(world: World) -> None:
    faults: list[str] = []
    world.provider = Provider(BrokenSink(), lambda where, error: faults.append(f"{where}: {error}"))
    world.bridge = Bridge(world.provider)
    world.bridged("before")
    trace.get_tracer("app").start_span("theirs").end()
    assert world.exported == ["theirs"]
    assert faults == ["sink.on_start: disk full", "sink.on_end: disk full"]


def test_their_failing_sampler_costs_our_span_only_the_export(world: World) -> None:
    world.bridged("before", Failing())
    span = world.provider.start_span("ours", attributes={"a": 1})
    span.end()
    assert dict(span.attributes or {}) == {"a": 1}
    assert world.exported == []
    assert world.faults == ["bridge.sampler: sampler"]
    with pytest.raises(RuntimeError, match="sampler"):  # theirs fails for them as it does without us
        trace.get_tracer("app").start_span("theirs")


def test_their_failing_processor_does_not_break_our_span(world: World) -> None:
    class Broken(sdk.SpanProcessor):
        def on_start(self, span: sdk.Span, parent_context: Context | None = None) -> None:
            raise RuntimeError("processor")

    world.bridged("before").add_span_processor(Broken())
    world.provider.start_span("ours").end()
    assert world.faults == ["bridge.on_start: processor"]
    assert world.exported == ["ours"]


def test_a_provider_that_cannot_be_bridged_is_a_fault_and_ours_goes_on(world: World) -> None:
    theirs = world.theirs()
    del theirs._active_span_processor
    trace.set_tracer_provider(theirs)
    world.bridge.install()
    assert world.provider.start_span("ours").is_recording()
    (fault,) = world.faults
    assert fault.startswith("bridge.attach: ")
