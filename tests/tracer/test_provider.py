"""Our provider by itself: ids, limits, parents, the sampled flag, what the sink is told, faults."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from clew.tracer import identifier
from clew.tracer.identifier import IdGenerator
from clew.tracer.provider import Provider


@dataclass
class Sink:
    """Remembers what it was told; the trace as a value."""

    started: list[sdk.ReadableSpan] = field(default_factory=list)
    ended: list[sdk.ReadableSpan] = field(default_factory=list)

    def on_start(self, span: sdk.ReadableSpan, parent_context: Context | None) -> None:
        self.started.append(span)

    def on_end(self, span: sdk.ReadableSpan) -> None:
        self.ended.append(span)


class BrokenSink:
    def on_start(self, span: sdk.ReadableSpan, parent_context: Context | None) -> None:
        raise OSError("disk full")

    def on_end(self, span: sdk.ReadableSpan) -> None:
        raise OSError("disk full")


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def faults() -> list[tuple[str, BaseException]]:
    return []


@pytest.fixture
def provider(sink: Sink, faults: list[tuple[str, BaseException]]) -> Iterator[Provider]:
    provider = Provider(sink, lambda where, error: faults.append((where, error)))
    yield provider
    provider.shutdown()
    assert faults == []


def test_ids_ignore_random_seed() -> None:
    generator = IdGenerator()
    ids = set()
    for _ in range(3):
        random.seed(42)
        ids |= {generator.generate_trace_id(), generator.generate_span_id()}
    assert len(ids) == 6
    assert generator.is_trace_id_random()


def test_an_id_is_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, draws = [0, 7], [bytes(16), (9).to_bytes(16, "big")]
    monkeypatch.setattr(identifier._own, "getrandbits", lambda bits: numbers.pop(0))
    monkeypatch.setattr("os.urandom", lambda size: draws.pop(0))
    assert IdGenerator().generate_span_id() == 7
    assert IdGenerator().generate_trace_id() == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_draws_ids_of_its_own() -> None:
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, identifier.new_span_id())
        os._exit(0)
    own = identifier.new_span_id()
    os.waitpid(child, 0)
    assert os.read(reading, 8) != own
    os.close(reading)
    os.close(writing)


def test_roots_after_the_same_seed_are_different_traces(provider: Provider) -> None:
    traces = set()
    for _ in range(4):
        random.seed(42)
        span = provider.start_span("root")
        traces.add(span.context.trace_id)
        span.end()
    assert len(traces) == 4


def test_our_own_span_is_a_real_sdk_span_that_the_sink_is_not_told(provider: Provider, sink: Sink) -> None:
    span = provider.start_span(
        "chat", kind=SpanKind.CLIENT, attributes={"a": 1}, links=[Link(SpanContext(1, 2, False))], start_time=1_000
    )
    span.set_status(StatusCode.ERROR, "no")
    span.end(2_000)
    assert isinstance(span, sdk.Span)
    assert (span.name, span.kind, dict(span.attributes or {})) == ("chat", SpanKind.CLIENT, {"a": 1})
    assert (span.start_time, span.end_time, span.status.description) == (1_000, 2_000, "no")
    assert [link.context.span_id for link in span.links] == [2]
    assert sink.started == sink.ended == []


def test_a_span_that_others_make_on_our_provider_reaches_the_sink_at_start_and_end(
    provider: Provider, sink: Sink
) -> None:
    with provider.get_tracer("lib", "1.2").start_as_current_span("theirs") as span:
        assert sink.started == [span]
        assert sink.ended == []
        span.set_attribute("k", "v")
    (ended,) = sink.ended
    assert (ended.name, dict(ended.attributes or {})) == ("theirs", {"k": "v"})
    assert ended.instrumentation_scope is not None
    assert (ended.instrumentation_scope.name, ended.instrumentation_scope.version) == ("lib", "1.2")


def test_an_exception_in_a_span_of_others_is_recorded_once_unless_they_say_no(provider: Provider, sink: Sink) -> None:
    tracer = provider.get_tracer("lib")
    with pytest.raises(KeyError), tracer.start_as_current_span("loud"):
        raise KeyError("x")
    with pytest.raises(KeyError), tracer.start_span("quiet", record_exception=False, set_status_on_exception=False):
        raise KeyError("x")
    loud, quiet = sink.ended
    assert ([event.name for event in loud.events], loud.status.status_code) == (["exception"], StatusCode.ERROR)
    assert (list(quiet.events), quiet.status.status_code) == ([], StatusCode.UNSET)


def in_a_process_of_its_own(program: str, **environment: str) -> str:
    search_path = os.pathsep.join(sys.path)
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": search_path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_limits_hold_thousands_and_no_variable_of_the_users_applies() -> None:
    counts = ("ATTRIBUTE", "SPAN_ATTRIBUTE", "EVENT_ATTRIBUTE", "LINK_ATTRIBUTE", "SPAN_EVENT", "SPAN_LINK")
    environment = {f"OTEL_{name}_COUNT_LIMIT": "1" for name in counts}
    environment |= {f"OTEL_{name}_VALUE_LENGTH_LIMIT": "1" for name in ("ATTRIBUTE", "SPAN_ATTRIBUTE")}
    program = """
        from opentelemetry.trace import Link, SpanContext
        from clew.tracer.provider import Provider
        two = {"a": "xy", "b": "xy"}
        links = [Link(SpanContext(1, n, False), two) for n in range(1, 200)]
        span = Provider(None, print).start_span("wide", attributes={"kind": "LLM"}, links=links)
        span.set_attributes({f"a{n}": n for n in range(3_000)})
        for _ in range(200):
            span.add_event("e", two)
        print(span.attributes["kind"], len(span.attributes), len(span.events), len(span.links))
        print(span.events[0].attributes, span.links[0].attributes)
    """
    assert in_a_process_of_its_own(program, **environment).splitlines() == [
        "LLM 3001 200 199",
        "{'a': 'xy', 'b': 'xy'} {'a': 'xy', 'b': 'xy'}",
    ]


def test_a_processor_added_to_our_provider_is_shut_down_at_exit() -> None:
    program = """
        from opentelemetry.sdk.trace import SpanProcessor
        from clew.tracer.provider import Provider
        class Buffering(SpanProcessor):
            def shutdown(self):
                print("flushed")
        provider = Provider(None, print)
        provider.add_span_processor(Buffering())
        provider.add_span_processor(Buffering())
    """
    assert in_a_process_of_its_own(program) == "flushed\nflushed\n"


def test_the_sdk_switch_does_not_stop_our_provider(monkeypatch: pytest.MonkeyPatch, sink: Sink) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    provider = Provider(sink, lambda where, error: None)
    provider.get_tracer("lib").start_span("theirs").end()
    assert [span.name for span in sink.ended] == ["theirs"]
    assert provider.start_span("ours").is_recording()


def test_parent_is_a_span_context_or_a_context_or_none(provider: Provider) -> None:
    root = provider.start_span("root")
    ambient = trace.set_span_in_context(root)
    by_context = provider.start_span("child", parent=ambient)
    by_span_context = provider.start_span("child", parent=root.get_span_context())
    for child in (by_context, by_span_context):
        assert child.context.trace_id == root.context.trace_id
        assert child.parent == root.get_span_context()
    token = context.attach(ambient)
    try:
        other = provider.start_span("another root")
    finally:
        context.detach(token)
    assert other.parent is None
    assert other.context.trace_id != root.context.trace_id


@pytest.mark.parametrize("flags", [TraceFlags(0), TraceFlags(1)])
def test_a_child_of_a_remote_parent_follows_its_flag_and_is_recorded(provider: Provider, flags: TraceFlags) -> None:
    remote = SpanContext(0xABC, 0xDEF, True, flags, TraceState([("vendor", "1")]))
    span = provider.start_span("child", parent=remote)
    assert span.is_recording()
    assert (span.context.trace_id, span.context.trace_flags) == (0xABC, flags)
    assert span.context.trace_state == {"vendor": "1"}
    assert span.parent is not None
    assert span.parent.is_remote


def test_a_root_has_the_flags_that_the_sdk_gives_a_sampled_root(provider: Provider) -> None:
    usual = sdk.TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False).get_tracer("app").start_span("root")
    flags = provider.start_span("root").context.trace_flags
    assert flags.sampled
    assert flags == usual.get_span_context().trace_flags


def test_processors_added_to_our_provider_get_ours_and_others_spans(provider: Provider) -> None:
    exporter = InMemorySpanExporter()
    seen_baggage: list[object] = []

    class Baggage(sdk.SpanProcessor):
        def on_start(self, span: sdk.Span, parent_context: Context | None = None) -> None:
            seen_baggage.append(baggage.get_baggage("user", parent_context))

    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.add_span_processor(Baggage())
    token = context.attach(baggage.set_baggage("user", "ada"))
    try:
        ours = provider.start_span("ours")
        provider.get_tracer("lib").start_span("theirs").end()
        ours.end()
    finally:
        context.detach(token)
    assert [span.name for span in exporter.get_finished_spans()] == ["theirs", "ours"]
    assert seen_baggage == ["ada", "ada"]


def test_a_fault_in_the_sink_or_a_processor_is_reported_and_goes_no_further() -> None:
    faults: list[str] = []
    provider = Provider(BrokenSink(), lambda where, error: faults.append(f"{where}: {error}"))

    class Broken(sdk.SpanProcessor):
        def on_end(self, span: sdk.ReadableSpan) -> None:
            raise RuntimeError("processor")

    provider.get_tracer("lib").start_span("theirs").end()
    assert faults == ["sink.on_start: disk full", "sink.on_end: disk full"]
    faults.clear()
    provider.add_span_processor(Broken())
    provider.start_span("ours").end()
    assert faults == ["processor.on_end: processor"]
    provider.shutdown()
