"""The open spans of LangChain runs, by LangChain's own run ids: what decides parentage and ties a boundary to its run.

Observers (callback.py) add and remove them. Boundaries look them up, and tell the observer what only they can see by
`OpenSpan.use`, `OpenSpan.attributes` and these `OpenSpan.facts`:

* `result`: what a tool returned, before LangChain made a ToolMessage of it
* `scores`: a retriever's scores, in the order of its documents
* `generated`: slots that replace those the observer would make of the run's output
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from clew.integrations.langchain.scope import NOTHING, Scope, new_attributes, scope_of
from clew.store.identifier import uuid7
from clew.tracer import context, init
from clew.tracer.capture import Given
from clew.tracer.constant import Fixed
from clew.tracer.span import OpenRun, OpenSpan

_spans: dict[int, OpenSpan] = {}  # by the id's number: a UUID's own hash is a call into Python


def span_of(run_id: UUID | None) -> OpenSpan | None:
    """The open span of a LangChain run; None if no callback of ours observes it, or it ended."""
    return _spans.get(run_id.int) if run_id is not None else None


def remove(run_id: UUID) -> OpenSpan | None:
    """A run ends: its span, the first time."""
    span = _spans.pop(run_id.int, None)
    if span is not None and span.parent is not None and "inner runs" in span.parent.facts:
        span.parent.facts["inner runs"].discard(run_id)
    return span


def is_open(run_id: UUID) -> bool:
    """Whether a run has a span: the same event told twice makes no second one."""
    return run_id.int in _spans


def start(
    tracer: init.Tracer,
    kind: str,
    name: str,
    run_id: UUID,
    parent: OpenSpan | None,
    tags: list[str] | None,
    metadata: dict[str, Any],
    used: list[Given],
    attributes: dict[str, Any],
    step: str | None = None,
    run: OpenRun | None = None,
    fixed: Fixed | None = None,
) -> OpenSpan:
    """Open the span of a run. `step` is its part of the span path, `run` the run that it is the root of."""
    around: Scope = parent.facts["langchain"] if parent is not None and "langchain" in parent.facts else NOTHING
    scope, key = scope_of(tuple(tags) if tags else (), tuple(metadata))
    if scope != around:
        attributes.update(new_attributes(scope, around, metadata))
    if around is NOTHING and "user_id" in metadata:
        attributes["user.id"] = str(metadata["user_id"])
    if key is not None:  # a RunnableParallel's own name for this branch
        step = f"{step or name}[{key}]"
    span = OpenSpan(
        tracer, kind, name, parent=parent, run=run, step=step, used=used, attributes=attributes, fixed=fixed
    )
    span.facts["langchain"] = scope
    if parent is not None and "inner runs" in parent.facts:
        parent.facts["inner runs"].add(run_id)
    _spans[run_id.int] = span
    return span


def parent(parent_run_id: UUID | None) -> tuple[OpenSpan | None, bool]:
    """The span above, and whether the run is the topmost of LangChain's here."""
    if parent_run_id is not None:
        found = _spans.get(parent_run_id.int)
        if found is not None:
            return found, False
    around = context.enclosing()
    return around, around is None or "langchain" not in around.facts


def new_run(tracer: init.Tracer, name: str, metadata: dict[str, Any], above: OpenSpan | None) -> OpenRun:
    """A run whose session is what the metadata calls the conversation, else that of the run above."""
    session = metadata.get("thread_id") or metadata.get("session_id") or metadata.get("conversation_id")
    if session is None and above is not None:
        session = above.run.session
    session = None if session is None else str(session)
    return OpenRun(uuid7(), name, session, above.run if above else None, tracer.settings.project)
