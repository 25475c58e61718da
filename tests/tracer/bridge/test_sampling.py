"""The bridge: our spans are sampled, cut and exported as theirs would be, and ours lose nothing."""

from __future__ import annotations

import random

import pytest
from opentelemetry import trace
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.span import TraceState

from tests.tracer.bridge.bed import AsksTheParent, Counting, Everything, RecordOnly, World, before_and_after


@before_and_after
def test_under_a_zero_percent_sampler_the_sink_sees_all_and_the_exporter_nothing(world: World, when: str) -> None:
    world.bridged(when, ParentBased(TraceIdRatioBased(0.0)))
    tracer = trace.get_tracer("app")
    with tracer.start_as_current_span("root", attributes={"a": 1}):
        ours = world.provider.start_span("ours", parent=trace.set_span_in_context(trace.get_current_span()))
        with trace.use_span(ours, end_on_exit=True), tracer.start_as_current_span("leaf"):
            pass
    assert world.sink.started == ["root", "leaf"]
    assert world.sink.names == ["leaf", "root"]
    assert dict(world.sink.ended[1].attributes or {}) == {"a": 1}
    assert not ours.context.trace_flags.sampled
    assert world.exported == []
    assert world.faults == []


@before_and_after
def test_a_processor_that_ignores_the_sampled_flag_sees_no_span_that_it_would_not_see_without_us(
    world: World, when: str
) -> None:
    theirs = world.bridged(when, ALWAYS_OFF)
    everything = Everything()
    theirs.add_span_processor(everything)
    trace.get_tracer("app").start_span("dropped").end()
    world.provider.start_span("ours").end()
    assert everything.calls == []
    assert world.sink.names == ["dropped"]


def test_what_their_sampler_only_records_still_reaches_their_processors(world: World) -> None:
    theirs = world.bridged("before", RecordOnly())
    everything = Everything()
    theirs.add_span_processor(everything)
    trace.get_tracer("app").start_span("theirs").end()
    ours = world.provider.start_span("ours", attributes={"a": 1})
    ours.end()
    assert everything.calls == [("start", "theirs"), ("end", "theirs"), ("start", "ours"), ("end", "ours")]
    assert ours.attributes == {"a": 1}  # although their sampler returned none
    assert world.exported == []


def test_a_sampler_that_asks_whether_the_parent_records_decides_as_it_would_without_us(world: World) -> None:
    world.bridged("before", AsksTheParent())
    with trace.get_tracer("app").start_as_current_span("root") as root:
        trace.get_tracer("app").start_span("child").end()
        ours = world.provider.start_span("ours", parent=trace.set_span_in_context(root))
        ours.end()
    assert world.exported == []
    assert world.sink.names == ["child", "root"]


def test_a_span_sampled_below_a_dropped_one_is_exported_with_the_plain_trace_state(world: World) -> None:
    everyone_below = ParentBased(ALWAYS_OFF, remote_parent_not_sampled=ALWAYS_OFF, local_parent_not_sampled=ALWAYS_ON)
    world.bridged("before", everyone_below)
    remote = SpanContext(0xABC, 0xDEF, True, TraceFlags(0), TraceState([("vendor", "1")]))
    with trace.get_tracer("app").start_as_current_span(
        "dropped", trace.set_span_in_context(NonRecordingSpan(remote))
    ) as dropped:
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        assert carrier["tracestate"] == "vendor=1"
        trace.get_tracer("app").start_span("sampled").end()
        world.provider.start_span("ours", parent=dropped.get_span_context()).end()
    assert world.exported == ["sampled", "ours"]
    assert all(span.context.trace_state == {"vendor": "1"} for span in world.exporter.get_finished_spans())
    assert {type(span.context.trace_state) for span in world.exporter.get_finished_spans()} == {TraceState}


@before_and_after
def test_our_spans_are_exported_with_their_resource(world: World, when: str) -> None:
    theirs = world.bridged(when)
    everything = Everything()
    theirs.add_span_processor(everything)
    span = world.provider.start_span("ours", kind=SpanKind.CLIENT, attributes={"a": 1}, start_time=1_000)
    assert everything.calls == [("start", "ours")]
    span.set_attribute("b", 2)
    span.set_attributes({"c": 3})
    span.add_event("event", {"x": 1})
    span.add_link(SpanContext(5, 6, False), {"y": 1})
    span.update_name("renamed")
    span.set_status(StatusCode.ERROR, "no")
    span.end(2_000)
    (exported,) = world.exporter.get_finished_spans()
    assert exported.resource.attributes["service.name"] == "shop"
    assert exported.context == span.context
    assert exported.context.trace_flags.sampled
    assert (exported.name, exported.kind, exported.status.description) == ("renamed", SpanKind.CLIENT, "no")
    assert (exported.start_time, exported.end_time) == (1_000, 2_000)
    assert dict(exported.attributes or {}) == {"a": 1, "stamped": "by theirs", "b": 2, "c": 3}
    assert dict(span.attributes or {}) == {"a": 1, "b": 2, "c": 3}
    assert exported.events[0].timestamp == span.events[0].timestamp
    assert [link.context.span_id for link in exported.links] == [6]
    assert exported.instrumentation_scope is not None
    assert exported.instrumentation_scope.name == "clew"
    assert world.sink.names == []


def test_a_change_after_the_end_warns_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.bridged("before")
    span = world.provider.start_span("ours")
    span.end()
    span.set_attribute("late", 1)
    assert [record.message for record in caplog.records] == ["Setting attribute on ended span."]


def test_a_processor_added_to_our_provider_follows_their_sampler_too(world: World) -> None:
    world.bridge.install()
    everything = Everything()
    world.provider.add_span_processor(everything)
    early = trace.get_tracer("app")
    world.bridged("after", ParentBased(ALWAYS_OFF))
    world.provider.start_span("dropped").end()
    early.start_span("dropped too").end()
    assert world.sink.names == ["dropped too"]
    remote = SpanContext(0xABC, 0xDEF, True, TraceFlags(1))
    world.provider.start_span("sampled", parent=remote).end()
    assert everything.calls == [("start", "sampled"), ("end", "sampled")]
    assert world.exported == ["sampled"]
    world.provider.shutdown()


def test_an_exception_in_our_span_is_exported_once(world: World) -> None:
    world.bridged("before")
    with pytest.raises(KeyError), trace.use_span(world.provider.start_span("ours"), end_on_exit=True):
        raise KeyError("x")
    (exported,) = world.exporter.get_finished_spans()
    assert [event.name for event in exported.events] == ["exception"]


@before_and_after
def test_their_small_limits_cut_their_view_and_not_ours(world: World, when: str) -> None:
    limits = sdk.SpanLimits(max_span_attributes=4, max_events=1, max_link_attributes=1, max_attribute_length=3)
    world.bridged(when, span_limits=limits)
    link = Link(SpanContext(1, 2, False), {"p": "long", "q": "longer"})
    span = world.provider.start_span("ours", attributes={f"a{n}": "value" for n in range(9)}, links=[link])
    span.set_attribute("last", "value")
    span.add_event("one")
    span.add_event("two")
    span.end()
    (exported,) = world.exporter.get_finished_spans()
    assert span.attributes is not None
    assert (len(span.attributes), len(span.events)) == (10, 2)
    assert (span.attributes["a0"], dict(span.links[0].attributes or {})) == ("value", {"p": "long", "q": "longer"})
    assert exported.attributes == {"a6": "val", "a7": "val", "a8": "val", "last": "val"}
    assert [event.name for event in exported.events] == ["two"]
    assert exported.links[0].attributes == {"q": "lon"}


@pytest.mark.parametrize("when", ["never", "before", "after"])
def test_a_seeded_program_gets_a_new_trace_id_for_each_root(world: World, when: str) -> None:
    if when == "never":
        world.bridge.install()
    else:
        world.bridged(when)
    tracer = trace.get_tracer("app")
    ids = set()
    for _ in range(3):
        random.seed(42)
        with tracer.start_as_current_span("theirs") as theirs:
            ids |= {theirs.get_span_context().trace_id, theirs.get_span_context().span_id}
        random.seed(42)
        ids |= {world.provider.start_span("ours").context.trace_id}
    assert len(ids) == 9


def test_an_id_generator_of_their_own_is_left(world: World) -> None:
    theirs = world.bridged("before", id_generator=Counting())
    assert trace.get_tracer("app").start_span("theirs").get_span_context().trace_id == 1
    assert isinstance(theirs.id_generator, Counting)
    assert world.provider.start_span("ours").context.trace_id > 1_000


@before_and_after
@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF, ParentBased(ALWAYS_ON)])
def test_their_spans_around_ours_and_ours_around_theirs_are_one_trace(
    world: World, when: str, sampler: Sampler
) -> None:
    world.bridged(when, sampler)
    tracer = trace.get_tracer("app")
    with tracer.start_as_current_span("outer") as outer:
        ours = world.provider.start_span("ours", parent=trace.set_span_in_context(outer))
        with trace.use_span(ours, end_on_exit=True), tracer.start_as_current_span("inner") as inner:
            deepest = world.provider.start_span("deepest", parent=inner.get_span_context())
            deepest.end()
    inner_ended, outer_ended = world.sink.ended
    assert outer_ended.parent is None
    assert ours.parent == outer_ended.context
    assert inner_ended.parent == ours.context
    assert deepest.parent == inner_ended.context
    assert len({span.context.trace_id for span in (outer_ended, ours, inner_ended, deepest)}) == 1
    assert world.exported == ([] if sampler is ALWAYS_OFF else ["deepest", "inner", "ours", "outer"])


@before_and_after
@pytest.mark.parametrize("flags", [TraceFlags(0), TraceFlags(1)])
def test_a_remote_parent_decides_as_their_sampler_lets_it(world: World, when: str, flags: TraceFlags) -> None:
    world.bridged(when, ParentBased(ALWAYS_ON))
    remote = SpanContext(0xABC, 0xDEF, True, flags)
    ours = world.provider.start_span("ours", parent=remote)
    ours.end()
    trace.get_tracer("app").start_span("theirs", trace.set_span_in_context(NonRecordingSpan(remote))).end()
    assert world.exported == (["ours", "theirs"] if flags else [])
    assert world.sink.names == ["theirs"]
    assert (ours.context.trace_id, ours.context.trace_flags, ours.parent) == (0xABC, flags, remote)
