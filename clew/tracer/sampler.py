"""A sampler that asks the user's and records what theirs drops, plus the mark that tells such spans apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, get_current_span, set_span_in_context
from opentelemetry.trace.span import TraceState
from opentelemetry.util.types import Attributes


class Dropped(TraceState):
    """The trace state of a span that the user's sampler dropped and we record all the same.

    The type is the mark. It sits in the span context because that is the one object which the started span, the copy
    that processors get at the end and the parent seen by a child's sampler have in common. It propagates as the plain
    trace state does.
    """


_EMPTY = Dropped()


def is_dropped(context: SpanContext | None) -> bool:
    """Whether the user's sampler dropped this span: their processors must not see it."""
    return context is not None and type(context.trace_state) is Dropped


def plain_state(state: TraceState | None) -> TraceState | None:
    """The same trace state without the mark, for a span that starts below a dropped one and is not dropped itself."""
    return TraceState(list(state.items())) if type(state) is Dropped else state


def _marked(state: TraceState | None) -> Dropped:
    if not state:
        return _EMPTY
    return state if isinstance(state, Dropped) else Dropped(list(state.items()))


class RecordingSampler(Sampler):
    """Answers as `theirs` does, but record-only, and marked `Dropped`, where `theirs` drops.

    What they would sample is unchanged: `theirs` gets the same arguments, and a dropped parent looks to it as it
    would without us (not recording), for samplers that ask the parent. With `live` False it only passes on.
    """

    def __init__(self, theirs: Sampler) -> None:
        self.theirs = theirs
        self.live = True

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if is_dropped(parent := get_current_span(parent_context).get_span_context()):
            parent_context = set_span_in_context(NonRecordingSpan(parent), parent_context)
        # The SDK passes six arguments; samplers written before the seventh do not take it.
        extra = () if trace_state is None else (trace_state,)
        result = self.theirs.should_sample(parent_context, trace_id, name, kind, attributes, links, *extra)
        if result.decision is Decision.DROP and self.live:
            return self.dropping(attributes, result.trace_state)
        if type(result.trace_state) is Dropped:
            return SamplingResult(result.decision, result.attributes, plain_state(result.trace_state))
        return result

    @staticmethod
    def dropping(attributes: Attributes, state: TraceState | None) -> SamplingResult:
        """Record-only, and marked."""
        return SamplingResult(Decision.RECORD_ONLY, attributes, _marked(state))

    def get_description(self) -> str:
        return self.theirs.get_description()

    def __getattr__(self, name: str) -> Any:  # whatever else their program reads from its sampler
        return getattr(self.theirs, name)
