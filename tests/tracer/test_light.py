"""What a program says of clew's own span through OpenTelemetry's API is recorded, whether or not anybody exports it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("nobody may read me")


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("mute")

    __repr__ = __str__


def raised(error: BaseException) -> BaseException:
    """The error as it is once it was raised, with its traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def cyclic() -> BaseException:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


ODD: dict[str, Callable[[Any], object]] = {
    "a key that is a number": lambda span: span.set_attribute(3, "x"),
    "a key that is None": lambda span: span.set_attribute(None, "x"),
    "a key that is a tuple": lambda span: span.set_attributes({("a", 1): "x", "b": 2}),
    "a key of bytes": lambda span: span.set_attribute(b"\xff", "x"),
    "a key with a lone surrogate": lambda span: span.set_attribute("\ud800", "\udfff"),
    "an object": lambda span: span.set_attribute("odd", object()),
    "an object without a text": lambda span: span.set_attribute("odd", Mute()),
    "a huge number": lambda span: span.set_attribute("odd", 2**4000),
    "no number": lambda span: span.set_attribute("odd", float("nan")),
    "a list of everything": lambda span: span.set_attribute("odd", [1, "a", None, Mute(), 2**70, [b"\xff"]]),
    "nothing": lambda span: span.set_attribute("odd", None),
    "an exception that cannot be read": lambda span: span.record_exception(Unspeakable("x")),
    "an exception with its cause in a circle": lambda span: span.record_exception(cyclic()),
    "a group of exceptions": lambda span: span.record_exception(
        raised(ExceptionGroup("several", [ValueError("one"), ExceptionGroup("more", [KeyError("two")])]))
    ),
    "a wish to stop": lambda span: span.record_exception(raised(KeyboardInterrupt())),
    "an exception with odd attributes": lambda span: span.record_exception(ValueError("x"), {3: Mute(), "a": 2**70}),
    "an event with odd attributes": lambda span: span.add_event("event", {3: Mute(), "a": {"b": object()}}),
    "an event at an odd time": lambda span: span.add_event("event", None, 2**70),
    "a link to nothing": lambda span: span.add_link(trace.INVALID_SPAN_CONTEXT),
    "a link with numbers that are too large": lambda span: span.add_link(SpanContext(2**200, 2**100, False)),
    "an empty name": lambda span: span.update_name(""),
    "a name with a lone surrogate": lambda span: span.update_name("\ud800\0"),
    "a status of nothing": lambda span: span.set_status(StatusCode.UNSET, "why?"),
    "a status with a description that is no text": lambda span: span.set_status(Status(StatusCode.ERROR, 3)),  # type: ignore[arg-type]
    "a success with a description": lambda span: span.set_status(StatusCode.OK, "all went well"),
    "an end of the program's own": lambda span: span.end(),
}


@pytest.mark.parametrize("odd", ODD)
def test_whatever_is_said_of_a_span_its_end_and_all_else_that_was_said_is_recorded(
    exporter: InMemorySpanExporter | None, tmp_path: Path, odd: str
) -> None:
    tracer = clew.init("tests", store=tmp_path / "store")
    assert tracer is not None
    with clew.run("run") as run:
        here = trace.get_current_span()
        here.set_attribute("before", 1)
        try:
            ODD[odd](here)
        except Exception:  # the SDK's own, which the program would see without clew too
            assert exporter is not None
        here.set_attribute("after", 2)
        run.output("an answer")
    with clew.open(tmp_path / "store") as reader:
        (span,) = reader.spans()
        assert json.dumps(json.loads(json.dumps(span.to_dict()))) == json.dumps(span.to_dict())
        (of_run,) = reader.runs()
    assert span.end_ns is not None
    assert span.status in ("ok", "error")
    assert of_run.status == span.status
    assert [slot.value for slot in span.generated] == ["an answer"]
    assert span.attributes["before"] == 1
    assert "after" in span.attributes or odd == "an end of the program's own"


@pytest.mark.parametrize("key", ["note", "password"])
def test_a_secret_said_in_bytes_is_redacted(said: Said, key: str) -> None:
    def say(span: trace.Span) -> None:
        span.set_attribute(key, KEY.encode())
        span.add_event("event", {key: KEY.encode(), "more": [KEY.encode()]})

    found = said(say)
    assert KEY not in str(found.to_dict())
    assert found.attributes[key].startswith("secret:")


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


def test_what_can_be_no_attribute_is_passed_over_while_nobody_exports(clean_tracing: None, tmp_path: Path) -> None:
    clew.init("tests", store=tmp_path / "store")
    with clew.run("run"):
        span: Any = trace.get_current_span()
        span.set_attribute([1], 2)
        span.set_attributes(None)
        span.add_event("odd", 3)
        span.set_attribute("even", 4)
    with clew.open(tmp_path / "store") as reader:
        (found,) = reader.spans()
    assert found.attributes["even"] == 4
    assert [(event[0], event[2]) for event in found.events] == [("odd", {})]
