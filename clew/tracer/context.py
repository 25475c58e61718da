"""Which span is current: carried in OpenTelemetry's own context, so that it goes wherever that goes.

Threads and executors carry it through opentelemetry-instrumentation-threading, asyncio tasks by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from clew.tracer.light import LightSpan

if TYPE_CHECKING:
    from clew.tracer.span import OpenSpan

_KEY = otel_context.create_key("clew-span")
(_CURRENT,) = trace.set_span_in_context(trace.INVALID_SPAN, Context())  # under which OpenTelemetry keeps its own


def enclosing(context: Context | None = None) -> OpenSpan | None:
    """The innermost span of clew's own around here; spans of other libraries may stand between."""
    return otel_context.get_value(_KEY, context)  # type: ignore[return-value]


def parent_here(owner: OpenSpan | None) -> trace.Span:
    """The OpenTelemetry span under which a child of `owner` starts here.

    That is the user's own span, if one is open inside `owner` at this place; else `owner`; with no owner, whatever is
    current.
    """
    if owner is None:
        return trace.get_current_span()
    here = otel_context.get_current()
    if type(here.get(_CURRENT)) is LightSpan or here.get(_KEY) is not owner:
        return owner.otel  # a light span is none of the user's
    current = trace.get_current_span(here)
    return current if current.get_span_context().is_valid else owner.otel


def entered(span: OpenSpan, more: Mapping[str, object] = MappingProxyType({})) -> Context:
    """A context in which `span` is current, and what else is to be."""
    return Context({**otel_context.get_current(), **more, _KEY: span, _CURRENT: span.otel})


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
