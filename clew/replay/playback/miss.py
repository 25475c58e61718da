"""What differs between a call and the one that was recorded at its place, in the words of the request."""

from __future__ import annotations

import difflib
from typing import Any

import sqlalchemy as sa

from clew.lineage import index
from clew.replay.recording.request import Request
from clew.store import catalog, record
from clew.store.errors import ClewError
from clew.store.record import Answer, RecordType, Slot, SpanStart
from clew.store.store import Store
from clew.tracer.boundary import Call
from clew.tracer.init import Tracer

_FEW = 3
_CHARS = 160
_OF_MODEL = {"model", "reached", "parameters", "stop", "options"}
_MINTED = ("id", "tool_call_id")


def told_miss(tracer: Tracer, store: Store, call: Call, request: Request, near: Answer) -> str:
    """One line: which parts of the request differ, and how where it is known."""
    names = request.fields.keys() | near.fields.keys()
    changed = sorted(name for name in names if request.fields.get(name) != near.fields.get(name))
    told = "differs from the recorded call in " + ", ".join(changed or ["its kind"])
    try:
        found = _differences(tracer, store, call, near, unlike=set(changed))
    except ClewError:  # content that is not there (any more)
        found = []
    return f"{told}: {'; '.join(found[:_FEW])}" if found else told


def _differences(tracer: Tracer, store: Store, call: Call, near: Answer, *, unlike: set[str]) -> list[str]:
    assert call.span is not None
    index.index_store(tracer.folder, only=tracer.log)
    before = _values(store, _used(store, near))
    after = _values(store, call.span.slots)
    found: list[str] = []
    for role in [*before, *(role for role in after if role not in before)]:
        if role == "model" and not unlike & _OF_MODEL:
            continue  # how it is called where it runs, such as in another main file
        _compare(role, before.get(role), after.get(role), found)
    return found


def _used(store: Store, entry: Answer) -> list[Slot]:
    span = catalog.span.c
    query = sa.select(span.segment, span.start_offset).where(
        span.span_id == entry.span_id, span.trace_id == entry.trace_id
    )
    with store.read() as connection:
        place = connection.execute(query).first()
        if place is None:
            return []
        payload = store.record(place[0], place[1], RecordType.SPAN_START, connection)
    found = record.decode(RecordType.SPAN_START, payload)
    return found.used if isinstance(found, SpanStart) else []


def _values(store: Store, slots: list[Slot]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for slot in slots:
        value = store.value(slot.domain, slot.digest)
        if slot.role in found:  # several tools, several prompts
            found[f"{slot.role} {slot.name or len(found)}"] = value
        else:
            found[slot.role] = value
    return found


def _compare(place: str, before: Any, after: Any, found: list[str]) -> None:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}, key=str):
            if name not in _MINTED or "role" not in before:
                _compare(f"{place}.{name}", before.get(name), after.get(name), found)
    elif isinstance(before, list) and isinstance(after, list):
        if place.endswith(".tool_calls"):
            before, after = ([_unnamed(one) for one in side] for side in (before, after))
        for at, (one, other) in enumerate(zip(before, after, strict=False)):
            _compare(f"{place}[{at}]", one, other, found)
        if len(before) != len(after):
            found.append(f"{place} has {len(after)} items, recorded {len(before)}")
    elif isinstance(before, str) and isinstance(after, str):
        found.append(f"{place}: {_text(before, after)}")
    else:
        found.append(f"{place}: {_short(before)} → {_short(after)}")


def _unnamed(call: Any) -> Any:
    return {name: value for name, value in call.items() if name != "id"} if isinstance(call, dict) else call


def _text(before: str, after: str) -> str:
    """The stretch in which two texts differ, with a little around it."""
    same = difflib.SequenceMatcher(None, before, after, autojunk=False) if len(before) + len(after) < 4000 else None
    start = _common(before, after)
    end = _common(before[start:][::-1], after[start:][::-1])
    if same is not None and same.ratio() < 0.2:
        start = end = 0
    around = slice(max(start - 20, 0), start)
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    lead = ("…" if around.start else "") + before[around]
    return f"{_short(lead + old)} → {_short(lead + new)}"


def _common(one: str, other: str) -> int:
    return next(
        (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    line = " ".join(text.split())
    line = line if len(line) <= _CHARS else line[: _CHARS - 1] + "…"
    return f"“{line}”" if isinstance(value, str) else line
