"""Our OpenTelemetry provider: records every span, and hands the user's processors what their sampler samples."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping, Sequence
from time import time_ns
from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode
from opentelemetry.util.types import AnyValue, Attributes

from clew.tracer.identifier import IdGenerator
from clew.tracer.light import RANDOM_FLAG, LightSpan, Said
from clew.tracer.sampler import RecordingSampler, is_dropped, plain_state

Fault = Callable[[str, BaseException], None]
"""Told where in the tracer something failed, and the error. It must not raise."""

# Given one by one so that no OTEL_*_LIMIT variable of the user's applies. At its limit the SDK evicts the oldest.
LIMITS = sdk.SpanLimits(
    max_attributes=10_000,
    max_events=10_000,
    max_links=10_000,
    max_span_attributes=10_000,
    max_event_attributes=10_000,
    max_link_attributes=10_000,
    max_attribute_length=sdk.SpanLimits.UNSET,
    max_span_attribute_length=sdk.SpanLimits.UNSET,
)

_FLAGS = tuple(TraceFlags(bits) for bits in range(4))
_SILENT = sdk.SpanProcessor()


class SpanSink(Protocol):
    """Takes the spans that others make through the OpenTelemetry API, on our provider or on theirs.

    Called on the thread that starts or ends the span. A span that was open when the bridge came is ended here
    without a start; one that is open when the bridge goes is started here without an end.
    """

    def on_start(self, span: sdk.ReadableSpan, parent_context: Context | None) -> None: ...

    def on_end(self, span: sdk.ReadableSpan) -> None: ...


class UserPipeline(Protocol):
    """What our spans need of the user's provider: its sampler (asked), processors (handed to), resource and limits."""

    @property
    def sampler(self) -> RecordingSampler: ...
    @property
    def processor(self) -> sdk.SpanProcessor: ...
    @property
    def resource(self) -> Resource: ...
    @property
    def limits(self) -> sdk.SpanLimits: ...


class RecordedSpan(sdk._Span):
    """A span of our provider; while it has a twin, every change is made to the twin too.

    The twin is the same span (same ids) under the user's resource and limits. Their processors get the twin, so their
    limits cut only their view, and what their processors set on it stays theirs. `said`, on a span of clew's own,
    collects what the program says of it.
    """

    twin: sdk.Span | None = None
    handed = False
    said: Said | None = None

    @property
    def trace_id(self) -> bytes:
        number: int = self.context.trace_id
        return number.to_bytes(16, "big")

    @property
    def span_id(self) -> bytes:
        number: int = self.context.span_id
        return number.to_bytes(8, "big")

    def _readable_span(self) -> sdk.ReadableSpan:
        return self  # an ended span no longer changes, so nobody needs the SDK's copy

    def set_attribute(self, key: str, value: AnyValue) -> None:
        self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        super().set_attributes(attributes)
        if self.said is not None:
            self.said.say(attributes)
        if (twin := self.twin) is not None:  # another thread may end the span meanwhile
            twin.set_attributes(attributes)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        timestamp = time_ns() if timestamp is None else timestamp
        super().add_event(name, attributes, timestamp)
        if self.said is not None:
            self.said.event(name, attributes, timestamp)
        if (twin := self.twin) is not None:
            twin.add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        super().add_link(context, attributes)
        if self.said is not None:
            self.said.links.append(context)
        if (twin := self.twin) is not None:
            twin.add_link(context, attributes)

    def update_name(self, name: str) -> None:
        super().update_name(name)
        if self.said is not None:
            self.said.name = name
        if (twin := self.twin) is not None:
            twin.update_name(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        super().set_status(status, description)
        if self.said is not None:
            self.said.status(status, description)
        if (twin := self.twin) is not None:
            twin.set_status(status, description)


class _Relay(sdk.SpanProcessor):
    """Takes a span of ours to the sink (where there is one), to processors added to our provider and to its twin."""

    def __init__(self, sink: SpanSink | None, added: sdk.SpanProcessor, fault: Fault) -> None:
        self._sink = sink
        self._added = added
        self._fault = fault

    def on_start(self, span: sdk.Span, parent_context: Context | None = None) -> None:
        assert isinstance(span, RecordedSpan)
        if self._sink is not None:
            self._guarded("sink.on_start", self._sink.on_start, span, parent_context)
        if span.handed:
            self._guarded("processor.on_start", self._added.on_start, span, parent_context)
        if span.twin is not None:
            self._guarded("bridge.on_start", span.twin.start, span.start_time, parent_context)

    def _on_ending(self, span: sdk.Span) -> None:
        assert isinstance(span, RecordedSpan)
        if span.handed:
            self._guarded("processor.on_ending", self._added._on_ending, span)

    def on_end(self, span: sdk.ReadableSpan) -> None:
        assert isinstance(span, RecordedSpan)
        if self._sink is not None:
            self._guarded("sink.on_end", self._sink.on_end, span)
        if span.handed:
            self._guarded("processor.on_end", self._added.on_end, span)
        if span.twin is not None:
            twin, span.twin = span.twin, None
            self._guarded("bridge.on_end", twin.end, span.end_time)

    def _guarded(self, where: str, call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception as error:
            self._fault(where, error)


class Tracer(sdk.Tracer):
    """What others get from our provider. Once the provider is retired it passes them on to the global one."""

    def __init__(self, provider: Provider, scope: InstrumentationScope) -> None:
        super().__init__(
            provider.sampler,
            provider.resource,
            provider._active_span_processor,
            provider.id_generator,
            None,  # type: ignore[arg-type]  # the deprecated InstrumentationInfo
            provider._span_limits,
            scope,
        )
        self._provider = provider

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace.Span:
        scope = self._instrumentation_scope
        if self._provider.retired:
            heir = trace.get_tracer_provider()
            if heir is self._provider:
                heir = trace.NoOpTracerProvider()
            heir_tracer = heir.get_tracer(scope.name, scope.version, scope.schema_url, scope.attributes)
            return heir_tracer.start_span(
                name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception
            )
        if (watch := self._provider.watch) is not None:
            watch()
        span = self._provider._make(
            name, trace.get_current_span(context).get_span_context(), context, kind, attributes, links, scope, True
        )
        span._record_exception = record_exception
        span._set_status_on_exception = set_status_on_exception
        span.start(start_time, context)
        return span


class Provider(sdk.TracerProvider):
    """Records every span whatever the user's sampler, limits, `random.seed()` or OTEL_* variables say.

    The sampled flag, which decides what others export: with a `user` pipeline, what their sampler answers. Without,
    as the SDK's default: a root is sampled and a child follows its parent, so that no service downstream is silenced
    by us. Span and trace ids are always ours, also where the user's provider has a generator of its own.

    Processors that others add to this provider get its spans; only then is it shut down at exit.
    """

    def __init__(self, sink: SpanSink, fault: Fault, *, resource: Resource | None = None, version: str = "") -> None:
        super().__init__(
            sampler=ALWAYS_ON,  # never asked: `_make` decides
            resource=resource,
            shutdown_on_exit=False,
            id_generator=IdGenerator(),
            span_limits=LIMITS,
        )
        self.sink = sink
        self.fault = fault
        self.user: UserPipeline | None = None
        self.retired = False
        self.watch: Callable[[], None] | None = None
        """Called before each span; the bridge looks there whether the global provider changed unseen."""
        self._scope = InstrumentationScope("clew", version)
        self._has_added = False
        self._reporting = _Relay(sink, self._active_span_processor, fault)
        self._relaying = _Relay(None, self._active_span_processor, fault)

    def light_span(self, name: str, parent: trace.Span) -> LightSpan | None:
        """A span of clew's own under `parent`, while nobody reads spans; None where somebody does."""
        if type(parent) is not LightSpan and (watch := self.watch) is not None:  # amid a run, the setter tells
            watch()
        return LightSpan(name, parent) if self.user is None and not self._has_added else None

    def own_span(self, name: str, parent: trace.Span, kind: SpanKind, attributes: Attributes) -> RecordedSpan:
        """A span of clew's own under `parent`, for those who read spans."""
        span = self.start_span(name, parent=parent.get_span_context(), kind=kind, attributes=attributes)
        span.said = Said()
        return span

    def start_span(
        self,
        name: str,
        *,
        parent: SpanContext | Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
    ) -> RecordedSpan:
        """Starts a span of clew's own: the user's processors may get it, the sink does not. The caller ends it.

        `parent` is a span context, or a context whose current span is the parent; None makes a root (for the ambient
        parent pass `opentelemetry.context.get_current()`). `start_time` in ns since the epoch. Never raises for a
        fault of the user's sampler or processors.
        """
        if (watch := self.watch) is not None:
            watch()
        context: Context | None = None
        if isinstance(parent, Context):
            context, parent = parent, trace.get_current_span(parent).get_span_context()
        elif self.user is not None or self._has_added:
            # Baggage of the current context stays visible to samplers and processors.
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent or trace.INVALID_SPAN_CONTEXT))
        span = self._make(name, parent, context, kind, attributes, links, self._scope, False)
        span.start(start_time, context)
        return span

    def _make(
        self,
        name: str,
        parent: SpanContext | None,
        context: Context | None,
        kind: SpanKind,
        attributes: Attributes,
        links: Sequence[Link] | None,
        scope: InstrumentationScope,
        reported: bool,
    ) -> RecordedSpan:
        user = self.user
        if parent is None or not parent.is_valid:
            parent = None
            trace_id, bits, state = self.id_generator.generate_trace_id(), TraceFlags.SAMPLED | RANDOM_FLAG, None
        else:
            trace_id, bits, state = parent.trace_id, parent.trace_flags & 3, plain_state(parent.trace_state)
        result = None
        if user is not None:
            try:
                result = user.sampler.should_sample(context, trace_id, name, kind, attributes, links or ())
            except Exception as error:
                self.fault("bridge.sampler", error)
                result = user.sampler.dropping(attributes, state)
            state = result.trace_state
            bits = bits & ~TraceFlags.SAMPLED | (result.decision is Decision.RECORD_AND_SAMPLE)
        span_context = SpanContext(trace_id, self.id_generator.generate_span_id(), False, _FLAGS[bits], state)
        handed = not is_dropped(span_context)
        relayed = handed and (user is not None or self._has_added)
        span = RecordedSpan(
            name=name,
            context=span_context,
            parent=parent,
            sampler=self.sampler,
            resource=self._resource,
            attributes={**(attributes or {}), **result.attributes} if result and result.attributes else attributes,
            links=links or (),
            kind=kind,
            span_processor=self._reporting if reported else self._relaying if relayed else _SILENT,
            limits=self._span_limits,
            instrumentation_scope=scope,
        )
        span.handed = handed and self._has_added
        if user is not None and result is not None and handed:
            span.twin = self._twin(user, span, result.attributes)
        return span

    def _twin(self, user: UserPipeline, span: RecordedSpan, attributes: Attributes) -> sdk.Span | None:
        try:
            return sdk._Span(
                name=span.name,
                context=span.context,
                parent=span.parent,
                sampler=user.sampler,
                resource=user.resource,
                attributes=attributes,
                # Fresh links: the SDK cuts a link's attributes in place, which would cut ours.
                links=[Link(link.context, link.attributes) for link in span.links],
                kind=span.kind,
                span_processor=user.processor,
                limits=user.limits,
                instrumentation_scope=span.instrumentation_scope,
            )
        except Exception as error:
            self.fault("bridge.twin", error)
            return None

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> trace.Tracer:
        version = instrumenting_library_version or ""
        return Tracer(self, InstrumentationScope(instrumenting_module_name or "", version, schema_url, attributes))

    def add_span_processor(self, span_processor: sdk.SpanProcessor) -> None:
        super().add_span_processor(span_processor)
        self._has_added = True
        self._atexit_handler: Any = atexit.register(self.shutdown)  # theirs may hold spans not yet exported
