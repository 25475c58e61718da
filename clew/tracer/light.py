"""A span of clew's own while no processor reads it: its ids, and what the program says of it.

The SDK's span costs as much as all that clew records of a span's start, and a span context is made of Python. Where
nobody exports, only its ids are needed, for propagation and for the spans below it; and whatever the program says of
the current span through OpenTelemetry's API, which clew records as it would any other library's.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterable, Mapping
from time import time_ns
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.span import TraceState
from opentelemetry.trace.status import Status, StatusCode
from opentelemetry.util.types import AnyValue, Attributes

from clew.tracer.identifier import new_span_id, new_trace_id
from clew.tracer.sampler import plain_state

RANDOM_FLAG = getattr(TraceFlags, "RANDOM_TRACE_ID", 0)
_ROOT_FLAGS = TraceFlags.SAMPLED | RANDOM_FLAG
_KNOWN_FLAGS = TraceFlags.SAMPLED | 2


class Said:
    """What a program said of a span of clew's through OpenTelemetry's API."""

    __slots__ = ("attributes", "description", "events", "failed", "links", "name")

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}
        self.events: list[tuple[str, int, dict[str, Any]]] = []  # name, time in ns, attributes
        self.links: list[SpanContext] = []
        self.name: str | None = None
        self.failed: bool | None = None  # None: it said nothing of success or failure
        self.description: str | None = None

    def say(self, attributes: Mapping[str, AnyValue] | Iterable[tuple[str, AnyValue]]) -> None:
        """Note attributes; what can be none is passed over."""
        with contextlib.suppress(TypeError, ValueError):
            self.attributes.update(attributes)

    def event(self, name: str, attributes: Attributes, timestamp: int | None) -> None:
        """Note an event that happened at `timestamp` (ns since the epoch), or now; attributes as above."""
        told: dict[str, Any] = {}
        with contextlib.suppress(TypeError, ValueError):
            told.update(attributes or {})
        self.events.append((name, time_ns() if timestamp is None else timestamp, told))

    def status(self, status: Status | StatusCode, description: str | None) -> None:
        """Note a status, in either of the forms the API takes."""
        told = status if isinstance(status, Status) else Status(status, description)
        if told.status_code is not StatusCode.UNSET:
            self.failed = not told.is_ok
            self.description = told.description


class LightSpan(trace.Span):
    """Keeps its ids, its times, and what is said of it until it ends."""

    _context: SpanContext | None = None

    def __init__(self, name: str, parent: trace.Span) -> None:
        """A span under another one, or, where that has no valid ids, the root of a trace."""
        self.name = name
        self.trace_id: bytes
        self.flags: int
        self.state: TraceState | None
        if type(parent) is LightSpan:
            self.trace_id, self.flags, self.state = parent.trace_id, parent.flags, parent.state
        elif (above := parent.get_span_context()).is_valid:
            self.trace_id = above.trace_id.to_bytes(16, "big")
            self.flags, self.state = above.trace_flags & _KNOWN_FLAGS, plain_state(above.trace_state)
        else:
            self.trace_id, self.flags, self.state = new_trace_id(), _ROOT_FLAGS, None
        self.span_id = new_span_id()
        self.start_time = time_ns()
        self.end_time: int | None = None
        self.said: Said | None = None

    def get_span_context(self) -> SpanContext:
        context = self._context
        if context is None:  # only a program that propagates asks
            trace_id, span_id = int.from_bytes(self.trace_id, "big"), int.from_bytes(self.span_id, "big")
            context = self._context = SpanContext(trace_id, span_id, False, TraceFlags(self.flags), self.state)
        return context

    def is_recording(self) -> bool:
        return self.end_time is None

    def _said(self) -> Said:
        if self.said is None:
            self.said = Said()
        return self.said

    def set_attribute(self, key: str, value: AnyValue) -> None:
        if self.end_time is None:
            self._said().say([(key, value)])

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        if self.end_time is None:
            self._said().say(attributes)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        if self.end_time is None:
            self._said().event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        if self.end_time is None:
            self._said().links.append(context)

    def update_name(self, name: str) -> None:
        if self.end_time is None:
            self.name = self._said().name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        if self.end_time is None:
            self._said().status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        cls = type(exception)
        message, stack = told_of(exception)
        told = {
            "exception.type": cls.__qualname__
            if cls.__module__ == "builtins"
            else f"{cls.__module__}.{cls.__qualname__}",
            "exception.message": message,
            "exception.stacktrace": stack,
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**told, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        if self.end_time is None:
            self.end_time = time_ns() if end_time is None else end_time


def told_of(error: BaseException) -> tuple[str, str]:
    """Message and traceback of an exception, whose own methods may fail."""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be read)"
    try:
        return message, "".join(traceback.format_exception(error))
    except Exception:
        return message, type(error).__qualname__
