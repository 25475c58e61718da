"""Plain OpenTelemetry spans, the user's and other libraries', as they land in the log: nothing of them is dropped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from clew.store.record import SpanEnd, SpanStart
from clew.tracer import context
from clew.tracer.capture import Batch

if TYPE_CHECKING:
    from clew.tracer.init import Tracer

_OPENINFERENCE = {
    "LLM": "llm",
    "EMBEDDING": "embedding",
    "CHAIN": "chain",
    "RETRIEVER": "retriever",
    "RERANKER": "reranker",
    "TOOL": "tool",
    "AGENT": "agent",
    "EVALUATOR": "eval",
    "PROMPT": "prompt",
}
_OPERATION = {
    "chat": "llm",
    "text_completion": "llm",
    "generate_content": "llm",
    "embeddings": "embedding",
    "retrieval": "retriever",
    "execute_tool": "tool",
    "invoke_agent": "agent",
    "invoke_workflow": "workflow",
}


def kind_of(attributes: Any, span_kind: SpanKind) -> str:
    """The glossary's kind of another library's span."""
    openinference = attributes.get("openinference.span.kind")
    if openinference in _OPENINFERENCE:
        return _OPENINFERENCE[openinference]
    operation = attributes.get("gen_ai.operation.name")
    if operation in _OPERATION:
        return _OPERATION[operation]
    return "chain" if span_kind is SpanKind.INTERNAL else "io"


def _moment(value: Any) -> int:
    """A time as the log holds it, in ns since 1970. OpenTelemetry takes whatever a program says; what is none is now."""
    if isinstance(value, (int, float)) and -(1 << 63) <= value < 1 << 63:
        return int(value)
    return time.time_ns()


class ForeignSpans:
    """The provider's sink (`provider.SpanSink`). Faults are counted by the provider, which calls it guarded."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def on_start(self, span: ReadableSpan, parent_context: Context | None) -> None:
        """Log that a span began, in the run it stands in."""
        tracer = self._tracer
        owner = context.enclosing(parent_context)
        run = owner.run if owner is not None else tracer.process_run
        ids = span.get_span_context()
        assert ids is not None
        batch = Batch(tracer.gate)
        scope = span.instrumentation_scope
        attributes = dict(span.attributes or {})
        name = batch.gate.name(str(span.name))
        batch.record(
            SpanStart(
                ids.trace_id.to_bytes(16, "big"),
                ids.span_id.to_bytes(8, "big"),
                span.parent.span_id.to_bytes(8, "big") if span.parent else None,
                run.run_id,
                kind_of(attributes, span.kind),
                name,
                f"{owner.path}/{name}" if owner else name,
                _moment(span.start_time),
                [],
                batch.attributes(attributes),
                batch.gate.name(str(scope.name)) if scope else "",
            )
        )
        batch.commit()

    def on_end(self, span: ReadableSpan) -> None:
        """Log that it ended, with what it carried."""
        ids = span.get_span_context()
        assert ids is not None
        batch = Batch(self._tracer.gate)
        attributes = batch.attributes(dict(span.attributes or {}))
        status = "error" if span.status.status_code is StatusCode.ERROR else "ok"
        if span.status.description:
            attributes.update(batch.attributes({"exception.message": span.status.description}))
        events = [
            [batch.plain(e.name), _moment(e.timestamp), batch.attributes(dict(e.attributes or {}))] for e in span.events
        ]
        links = [
            (link.context.trace_id.to_bytes(16, "big"), link.context.span_id.to_bytes(8, "big"), "link")
            for link in span.links
        ]
        batch.record(
            SpanEnd(
                ids.trace_id.to_bytes(16, "big"),
                ids.span_id.to_bytes(8, "big"),
                _moment(span.end_time),
                status,
                [],
                [],
                attributes,
                links,
                batch.gate.name(str(span.name)),
                True,
                events,
            )
        )
        batch.commit()
