"""The bridge to the user's provider, set before and after ours is installed: real SDK objects on both sides."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.span import TraceState
from opentelemetry.util._once import Once
from opentelemetry.util.types import Attributes

from clew.tracer.bridge import Bridge
from clew.tracer.provider import Provider


@dataclass
class Sink:
    started: list[str] = field(default_factory=list)
    ended: list[sdk.ReadableSpan] = field(default_factory=list)

    def on_start(self, span: sdk.ReadableSpan, parent_context: Context | None) -> None:
        self.started.append(span.name)

    def on_end(self, span: sdk.ReadableSpan) -> None:
        self.ended.append(span)

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.ended]


class BrokenSink:
    def on_start(self, span: sdk.ReadableSpan, parent_context: Context | None) -> None:
        raise OSError("disk full")

    def on_end(self, span: sdk.ReadableSpan) -> None:
        raise OSError("disk full")


class Everything(sdk.SpanProcessor):
    """A processor that does not look at the sampled flag, as span metrics do not."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def on_start(self, span: sdk.Span, parent_context: Context | None = None) -> None:
        self.calls.append(("start", span.name))
        span.set_attribute("stamped", "by theirs")

    def on_end(self, span: sdk.ReadableSpan) -> None:
        self.calls.append(("end", span.name))


class RecordOnly(Sampler):
    def should_sample(self, *arguments: Any, **named: Any) -> SamplingResult:
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self) -> str:
        return "RecordOnly"


class Failing(Sampler):
    def should_sample(self, *arguments: Any, **named: Any) -> SamplingResult:
        raise RuntimeError("sampler")

    def get_description(self) -> str:
        return "Failing"


class AsksTheParent(Sampler):
    """Drops roots, and samples whatever stands below a span that records."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
    ) -> SamplingResult:
        recording = trace.get_current_span(parent_context).is_recording()
        return SamplingResult(Decision.RECORD_AND_SAMPLE if recording else Decision.DROP, attributes)

    def get_description(self) -> str:
        return "AsksTheParent"


class Counting(IdGenerator):
    def __init__(self) -> None:
        self.n = 0

    def generate_span_id(self) -> int:
        self.n += 1
        return self.n

    generate_trace_id = generate_span_id


class World:
    """One process: our provider and bridge, perhaps a provider of the user's, and what each of them saw."""

    def __init__(self) -> None:
        self.sink = Sink()
        self.faults: list[str] = []
        self.provider = Provider(self.sink, lambda where, error: self.faults.append(f"{where}: {error}"))
        self.bridge = Bridge(self.provider)
        self.exporter = InMemorySpanExporter()

    def theirs(self, sampler: Sampler = ALWAYS_ON, **settings: Any) -> sdk.TracerProvider:
        resource = Resource({"service.name": "shop"})
        provider = sdk.TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False, **settings)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        return provider

    def bridged(self, when: str, sampler: Sampler = ALWAYS_ON, **settings: Any) -> sdk.TracerProvider:
        theirs = self.theirs(sampler, **settings)
        if when == "after":
            self.bridge.install()
        trace.set_tracer_provider(theirs)
        self.bridge.install()
        return theirs

    @property
    def exported(self) -> list[str]:
        return [span.name for span in self.exporter.get_finished_spans()]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    setter = trace._set_tracer_provider
    world = World()
    yield world
    world.bridge.uninstall()
    assert trace._set_tracer_provider is setter


before_and_after = pytest.mark.parametrize("when", ["before", "after"])


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
