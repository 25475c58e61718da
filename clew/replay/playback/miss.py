"""What differs between a call and the one that was recorded at its place, in the words of the request."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from clew.lineage import index
from clew.lineage.difference.change import ABSENT, compared
from clew.lineage.difference.minted import Renaming
from clew.replay.difference import MODEL_FIELDS, asked_model, meant, parameters
from clew.replay.recording.request import Request
from clew.store import catalog, record
from clew.store.errors import ClewError
from clew.store.record import Answer, RecordType, SpanStart
from clew.store.store import Store
from clew.tracer.boundary import Call
from clew.tracer.init import Tracer

_FEW = 3
_FUNCTION = "chain"
# Of the key, the fields that are made of what a span used in a role; a loose request has some by other names.
_FIELDS: dict[str, tuple[str, ...]] = {
    "arguments": ("arguments",),
    "index": ("store", "retriever"),
    "injected": ("injected",),
    "messages": ("messages",),
    "prompt": ("prompts", "messages"),
    "query": ("query", "asked"),
    "texts": ("text",),
    "tool": ("tool",),
    **dict.fromkeys(("model", "parameters", "tools", "order of tools"), (*MODEL_FIELDS, "more")),
}


def told_miss(tracer: Tracer, store: Store, call: Call, request: Request, near: Answer) -> str:
    """One line: which parts of the request differ, and how where it is known."""
    names = request.fields.keys() | near.fields.keys()
    changed = sorted(name for name in names if request.fields.get(name) != near.fields.get(name))
    told = "differs from the recorded call in " + ", ".join(changed or ["its kind"])
    try:
        found = _differences(tracer, store, call, near, unlike=set(changed), loose=bool(request.loose))
    except ClewError:  # content that is not there (any more)
        found = []
    if len(found) > _FEW:
        found[_FEW:] = [f"and {len(found) - _FEW} more"]
    return f"{told}: {'; '.join(found)}" if found else told


def _differences(tracer: Tracer, store: Store, call: Call, near: Answer, *, unlike: set[str], loose: bool) -> list[str]:
    """How what was asked differs, in what the fields `unlike` are made of: all else may differ and be the same key."""
    assert call.span is not None
    index.index_store(tracer.folder, only=tracer.log)
    recorded, asked = _start(store, near.trace_id, near.span_id), _start(store, call.span.trace_id, call.span.span_id)
    if recorded is None or asked is None:
        return []
    before, after = _values(store, recorded, unlike, loose), _values(store, asked, unlike, loose)
    found: list[str] = []
    for place in dict.fromkeys((*before, *after)):
        one, other = before.get(place, ABSENT), after.get(place, ABSENT)
        found += map(str, compared("request", place, *((one, other) if loose else meant(one, other))))
    return found


def _start(store: Store, trace_id: bytes, span_id: bytes) -> SpanStart | None:
    """The record of what a span was asked; None of one that was collected."""
    span = catalog.span.c
    query = sa.select(span.segment, span.start_offset).where(span.span_id == span_id, span.trace_id == trace_id)
    with store.read() as connection:
        place = connection.execute(query).first()
        if place is None:
            return None
        payload = store.record(place[0], place[1], RecordType.SPAN_START, connection)
    found = record.decode(RecordType.SPAN_START, payload)
    return found if isinstance(found, SpanStart) else None


def _values(store: Store, asked: SpanStart, unlike: set[str], loose: bool) -> dict[str, Any]:
    """What was used, by role; of several tools each by its name, as they may stand in another order. Without what was minted
    or counted, where that is no part of the request."""
    found: dict[str, Any] = {}
    if _counts(asked.kind, "parameters", unlike):
        found["parameters"] = parameters(asked.attributes)
    for slot in asked.used:
        if not _counts(asked.kind, slot.role, unlike):
            continue
        value = store.value(slot.domain, slot.digest)
        place = f"tools.{slot.name}" if slot.role == "tools" and slot.name else slot.role
        if place in found:
            place = f"{place} {len(found)}"
        if slot.role == "model" and asked.kind == "llm":
            value = asked_model(value)
        renamed = loose or slot.role == "index" or (slot.role == "messages" and asked.kind == "llm")
        found[place] = Renaming().value(value) if renamed else value
    tools = [slot.name or "" for slot in asked.used if slot.role == "tools"]
    if tools and _counts(asked.kind, "tools", unlike):
        found["order of tools"] = ", ".join(tools)
    return found


def _counts(kind: str, role: str, unlike: set[str]) -> bool:
    """Whether what a span used in a role is part of the fields `unlike`."""
    if kind == _FUNCTION:  # each of its arguments is a slot
        return "arguments" in unlike
    return not unlike.isdisjoint(_FIELDS.get(role.partition(":")[0], ()))
