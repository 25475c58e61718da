"""What a program says of clew's own span through OpenTelemetry's API is recorded, whether or not anybody exports it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import clew
from clew.lineage.reader import Reader
from clew.lineage.view import SpanView
from clew.tracer.init import Tracer
from clew.tracer.light import LightSpan

OTHER = SpanContext(7, 8, False, TraceFlags(1))
KEY = "sk-proj-" + "aB3dE5gH7jK9mN1pQ3sT5vX7z" * 2


@pytest.fixture(params=["light", "exported"])
def exporter(request: pytest.FixtureRequest, clean_tracing: None) -> InMemorySpanExporter | None:
    """With the program's own provider, our spans are the SDK's; without, they are light."""
    if request.param == "light":
        return None
    found = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(found))
    trace.set_tracer_provider(provider)
    return found


@pytest.fixture
def said(exporter: InMemorySpanExporter | None, tmp_path: Path) -> Callable[[Callable[[trace.Span], None]], SpanView]:
    """The record of a run during which something was said of its span."""

    def record(say: Callable[[trace.Span], None]) -> SpanView:
        tracer = clew.init("tests", store=tmp_path / "store")
        assert tracer is not None
        with clew.run("run"):
            here = trace.get_current_span()
            assert isinstance(here, LightSpan) == (exporter is None)
            say(here)
        assert tracer.faults.counts == {}
        with clew.open(tmp_path / "store") as reader:
            (span,) = reader.spans()
            json.dumps(span.to_dict())
            return span

    return record


Said = Callable[[Callable[[trace.Span], None]], SpanView]


def test_attributes_and_a_name(said: Said, exporter: InMemorySpanExporter | None) -> None:
    def say(span: trace.Span) -> None:
        span.set_attribute("tenant", "blue")
        span.set_attributes({"size": 3, "tags": ["a", "b"], "key": KEY})
        span.update_name("renamed")

    found = said(say)
    assert (found.name, found.path) == ("renamed", "run")
    assert [found.attributes[key] for key in ("tenant", "size", "tags", "clew.kind")] == [
        "blue",
        3,
        ["a", "b"],
        "workflow",
    ]
    assert KEY not in str(found.attributes)
    if exporter is not None:
        (exported,) = exporter.get_finished_spans()
        attributes = exported.attributes or {}
        assert (exported.name, attributes["tenant"], attributes["clew.kind"]) == ("renamed", "blue", "workflow")


def test_events_links_and_exceptions(said: Said, exporter: InMemorySpanExporter | None) -> None:
    def say(span: trace.Span) -> None:
        span.add_event("happened", {"n": 1}, timestamp=5)
        span.add_link(OTHER)
        span.record_exception(ValueError(f"no {KEY}"))

    found = said(say)
    assert found.events[0] == ["happened", 5, {"n": 1}]
    name, _, told = found.events[1]
    assert (name, told["exception.type"]) == ("exception", "ValueError")
    assert told["exception.message"].startswith("no secret:")
    assert "ValueError" in told["exception.stacktrace"]
    assert [(link[0], link[1]) for link in found.links] == [(f"{7:032x}", f"{8:016x}")]
    assert found.status == "ok"
    if exporter is not None:
        (exported,) = exporter.get_finished_spans()
        assert len(exported.links) == 1
        assert [event.name for event in exported.events] == ["happened", "exception"]


@pytest.mark.parametrize("status", [StatusCode.ERROR, Status(StatusCode.ERROR, "it failed")])
def test_a_status(said: Said, status: Status | StatusCode) -> None:
    found = said(lambda span: span.set_status(status, *([] if isinstance(status, Status) else ["it failed"])))
    assert (found.status, found.attributes["exception.message"]) == ("error", "it failed")


def test_nothing_is_said_of_an_ended_span(tracer: Tracer, reader: Reader) -> None:
    with clew.run("run"):
        span = trace.get_current_span()
        assert span.is_recording()
    assert not span.is_recording()
    span.set_attribute("late", 1)
    span.add_event("late")
    span.end()
    (found,) = reader.spans()
    assert "late" not in found.attributes
    assert found.events == []


def test_its_ids_propagate(tracer: Tracer, reader: Reader) -> None:
    carrier: dict[str, str] = {}
    with clew.run("run"):
        TraceContextTextMapPropagator().inject(carrier)
    (span,) = reader.spans()
    _, trace_id, span_id, flags = carrier["traceparent"].split("-")
    assert (trace_id, span_id, int(flags, 16) & 1) == (span.trace_id, span.span_id, 1)


def test_a_remote_parent_is_continued(tracer: Tracer, reader: Reader) -> None:
    remote = trace.NonRecordingSpan(SpanContext(5, 6, True, TraceFlags(0)))
    with trace.use_span(remote), clew.run("run"):
        inside = trace.get_current_span().get_span_context()
        with clew.trace("deep"):
            deep = trace.get_current_span().get_span_context()
    spans = {span.name: span for span in reader.spans()}
    assert (spans["run"].parent_id, spans["run"].trace_id) == (f"{6:016x}", f"{5:032x}")
    assert inside.trace_flags == deep.trace_flags == 0
    assert spans["deep"].parent_id == f"{inside.span_id:016x}"
