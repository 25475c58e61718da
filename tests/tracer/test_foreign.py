"""Plain OpenTelemetry spans land as they are and nest, whatever they hold."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, StatusCode

import clew
from clew.lineage.reader import Reader
from clew.tracer.init import Tracer


@pytest.mark.parametrize(
    ("attributes", "kind", "expected"),
    [
        ({}, SpanKind.INTERNAL, "chain"),
        ({}, SpanKind.CLIENT, "io"),
        ({"openinference.span.kind": "RETRIEVER"}, SpanKind.INTERNAL, "retriever"),
        ({"gen_ai.operation.name": "execute_tool"}, SpanKind.INTERNAL, "tool"),
        ({"openinference.span.kind": "nonsense", "gen_ai.operation.name": "chat"}, SpanKind.CLIENT, "llm"),
    ],
)
def test_its_kind_is_read_from_the_conventions(
    reader: Reader, attributes: dict[str, str], kind: SpanKind, expected: str
) -> None:
    trace.get_tracer("theirs").start_span("s", attributes=attributes, kind=kind).end()
    assert reader.spans()[0].kind == expected


def test_everything_it_carries_is_kept(tracer: Tracer, reader: Reader) -> None:
    theirs = trace.get_tracer("theirs")
    with theirs.start_as_current_span("first") as first:
        pass
    with theirs.start_as_current_span("name", links=[Link(first.get_span_context())]) as span:
        for number in range(300):
            span.set_attribute(f"key.{number}", number)
        span.set_attribute("list", ["a", "b"])
        span.set_attribute("long", "x" * 5000)
        span.add_event("happened", {"n": 1}, timestamp=5)
        span.update_name("renamed")
        span.set_status(StatusCode.ERROR, "it failed")
    found = reader.spans()[1]
    assert (found.name, found.status, found.scope) == ("renamed", "error", "theirs")
    assert found.attributes["key.0"] == 0
    assert found.attributes["key.299"] == 299
    assert (found.attributes["list"], len(found.attributes["long"])) == (["a", "b"], 5000)
    assert found.attributes["exception.message"] == "it failed"
    assert found.events == [["happened", 5, {"n": 1}]]
    assert [link[1] for link in found.links] == [f"{first.get_span_context().span_id:016x}"]
    assert tracer.faults.counts == {}


def test_it_nests_both_ways(reader: Reader) -> None:
    theirs = trace.get_tracer("theirs")
    with (
        theirs.start_as_current_span("outside"),
        clew.run("run"),
        theirs.start_as_current_span("inside"),
        clew.trace("deep"),
    ):
        pass
    spans = {span.name: span for span in reader.spans()}
    parents = [spans[name].parent_id for name in ("run", "inside", "deep")]
    assert parents == [spans[name].span_id for name in ("outside", "run", "inside")]
    assert len({span.trace_id for span in spans.values()}) == 1
    assert spans["inside"].path == "run/inside"
    assert spans["outside"].run_id != spans["run"].run_id == spans["inside"].run_id


def test_text_that_no_store_can_hold_becomes_escapes(tracer: Tracer, reader: Reader) -> None:
    trace.get_tracer("theirs").start_span("a\0b", attributes={"x": "c\0d"}).end()
    (span,) = reader.spans()
    assert (span.name, span.path, span.attributes["x"]) == ("a\\x00b", "a\\x00b", "c\\x00d")
    assert tracer.faults.counts == {}
