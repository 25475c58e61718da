"""Which span is current: carried in OpenTelemetry's own context, so that it goes wherever that goes.

Threads and executors carry it through opentelemetry-instrumentation-threading, asyncio tasks by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

if TYPE_CHECKING:
    from clew.tracer.span import OpenSpan

_KEY = otel_context.create_key("clew-span")


def enclosing(context: Context | None = None) -> OpenSpan | None:
    """The innermost span of clew's own around here; spans of other libraries may stand between."""
    return otel_context.get_value(_KEY, context)  # type: ignore[return-value]


def parent_here(owner: OpenSpan | None) -> Any:
    """The OpenTelemetry span under which a child of `owner` starts here.

    That is the user's own span, if one is open inside `owner` at this place; else `owner`; with no owner, whatever is
    current.
    """
    current = trace.get_current_span()
    if owner is None:
        return current
    if current is not owner.otel and current.get_span_context().is_valid and enclosing() is owner:
        return current
    return owner.otel


def entered(span: OpenSpan, base: Context | None = None) -> Context:
    """A context in which `span` is current."""
    return trace.set_span_in_context(span.otel, otel_context.set_value(_KEY, span, base))


@contextmanager
def current(span: OpenSpan | None) -> Iterator[None]:
    """Make `span` current inside. Enter and leave in one and the same context (never over a yield to the user)."""
    if span is None:
        yield
        return
    token = otel_context.attach(entered(span))
    try:
        yield
    finally:
        otel_context.detach(token)
