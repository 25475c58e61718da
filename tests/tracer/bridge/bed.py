"""A program's own OpenTelemetry: its provider, samplers and processors, some of which fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    Decision,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import Link, SpanKind
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


before_and_after = pytest.mark.parametrize("when", ["before", "after"])
