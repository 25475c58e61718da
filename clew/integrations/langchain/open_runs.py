"""The open spans of LangChain runs, by LangChain's own run ids: what decides parentage and ties a boundary to its run.

Observers (callback.py) add and remove them. Boundaries look them up, and tell the observer what only they can see by
`OpenSpan.use`, `OpenSpan.attributes` and these `OpenSpan.facts`:

* `result`: what a tool returned, before LangChain made a ToolMessage of it
* `scores`: a retriever's scores, in the order of its documents
* `generated`: slots that replace those the observer would make of the run's output
"""

from __future__ import annotations

from uuid import UUID

from clew.tracer.span import OpenSpan

_spans: dict[UUID, OpenSpan] = {}


def span_of(run_id: UUID | None) -> OpenSpan | None:
    """The open span of a LangChain run; None if no callback of ours observes it, or it ended."""
    return _spans.get(run_id)  # type: ignore[arg-type]


def add(run_id: UUID, span: OpenSpan) -> None:
    """A run began."""
    _spans[run_id] = span


def remove(run_id: UUID) -> OpenSpan | None:
    """A run ends: its span, the first time."""
    return _spans.pop(run_id, None)


def is_open(run_id: UUID) -> bool:
    """Whether a run has a span: the same event told twice makes no second one."""
    return run_id in _spans
