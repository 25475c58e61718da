"""How a replay came out: its answer beside the recorded one, and the certificate on its root span."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from clew.lineage.reader import Reader
from clew.lineage.view import SpanView, span_views
from clew.replay.playback.certificate import Certificate
from clew.replay.playback.replayer import Replayer
from clew.replay.playback.surroundings import Surroundings
from clew.replay.recording.recording import Recording
from clew.store import catalog
from clew.store.digest import Domain, digest
from clew.store.errors import ClewError
from clew.store.record import Answer
from clew.tracer.span import OpenSpan

_NOTHING = object()
_MINTED = ("id", "tool_call_id")
_DOCUMENT = {"text", "metadata", "id"}


def concluded(
    replayer: Replayer, around: Surroundings, span: OpenSpan, error: BaseException | None, outputs: list[Any]
) -> Certificate:
    """End the replay's root span, and say what it was."""
    tracer, recording = replayer.tracer, replayer.recording
    certificate = counted(replayer, around)
    certificate.replay_id = span.run.run_id.hex()
    if error is not None:
        certificate.error = f"{type(error).__name__}: {tracer.gate.cleaner.text(str(error))}"
    if (root := recording.roots.get(recording.lane)) is not None:
        span.link(root[1], root[2], "replay_of")
    span.end(generated=outputs, answer=outputs, error=error, attributes=_attributes(certificate))
    tracer.flush()
    reader = Reader(tracer.folder.path)
    before, after = answer_of(reader, recording.run_id), answer_of(reader, certificate.replay_id)
    compare(certificate, before, after)
    return certificate


def _asked_instead(kind: str, recording: Recording) -> str:
    """What was asked of the kind that a patch is for."""
    asked = {"model": "llm", "tool": "tool"}.get(kind)
    names = sorted({entry.name for entry in recording.calls if entry.kind == asked})
    return f"; recorded are calls of {', '.join(names)}" if names else ""


def counted(replayer: Replayer, around: Surroundings) -> Certificate:
    """What was served and what was not."""
    terms, recording = replayer.terms, replayer.recording
    used = {(entry.span_id, entry.request): entry for entry in replayer.used}.values()
    certificate = Certificate(recording.run_id, None, terms.mode)
    certificate.digest = recording_digest(recording.calls)
    certificate.served = dict(replayer.served)
    certificate.live = list(replayer.live)
    certificate.notes = list(replayer.notes)
    if replayer.over is not None:  # the program may have swallowed it
        certificate.error = f"OverBudget: {replayer.over}"
    around.told(certificate)
    for one in replayer.instead.patches:
        title = replayer.tracer.gate.cleaner.text(one.patch.title)
        if one.count:
            certificate.patches.append(f"{title}: {one.count} time{'s' if one.count > 1 else ''}")
        else:
            certificate.unmet.append(title)
            certificate.notes.append(f"the patch of {title} met nothing{_asked_instead(one.patch.kind, recording)}")
    if terms.mode != "plan":
        certificate.unasked = len(_unasked(recording, used))
    took_ns = {entry.span_id: entry.ended_ns - entry.started_ns for entry in used}  # what a batch asks, it asks at once
    certificate.seconds_saved = sum(took_ns.values()) / 1e9
    certificate.input_tokens_saved = sum(entry.input_tokens for entry in used)
    certificate.output_tokens_saved = sum(entry.output_tokens for entry in used)
    if terms.prices:
        costs = [terms.cost(entry.model, entry.input_tokens, entry.output_tokens) for entry in used]
        certificate.money_saved = sum(cost or 0.0 for cost in costs)
        certificate.money_spent = replayer.spent
    return certificate


def _unasked(recording: Recording, used: Collection[Answer]) -> set[bytes]:
    """Spans of recorded calls that were not asked; what a call that was served asked itself is part of it."""
    served = {(entry.run_id, entry.path) for entry in used}
    left, asked = set(), {entry.span_id for entry in used}
    for entry in recording.calls:
        if entry.span_id in asked:
            continue
        above = entry.path.rpartition("/")[0]
        while above and (entry.run_id, above) not in served:
            above = above.rpartition("/")[0]
        if not above:
            left.add(entry.span_id)
    return left


def recording_digest(entries: list[Answer]) -> str:
    """The digest of a run: of all that it asked and was answered, whatever the order in which it did."""
    told = sorted(b"".join((one.request, one.path.encode(), one.blob or one.answer, one.error)) for one in entries)
    return str(digest(Domain.TREE, b"".join(len(part).to_bytes(8, "big") + part for part in told)))


def compare(certificate: Certificate, before: Any, after: Any) -> None:
    """Note both answers, and whether they are one."""
    certificate.recorded_answer = None if before is _NOTHING else before
    certificate.answer = None if after is _NOTHING else after
    if before is not _NOTHING and after is not _NOTHING:
        certificate.equal = bool(unnamed(before, {}) == unnamed(after, {}))


def answer_of(reader: Reader, run_id: str) -> Any:
    """What a run answered: what it said its answer is, else what its last graph or boundary gave."""
    with reader.connection() as connection:
        run = catalog.run.c
        row = connection.execute(
            sa.select(run.id, run.answer, run.root).where(run.run_id == bytes.fromhex(run_id))
        ).first()
        if row is None:
            return _NOTHING
        spans = span_views(reader.store, connection, row.id)
    root = next((one for one in spans if one.run_id == run_id), None)
    if root is None:
        return _NOTHING
    if root.generated:
        return _values(root)
    tops = [one for one in spans if one.parent_id == root.span_id and one.generated and one.end_ns is not None]
    return _values(max(tops, key=lambda one: one.end_ns or 0)) if tops else _NOTHING


def _values(span: SpanView) -> Any:
    found: dict[str, Any] = {}
    try:
        for slot in span.generated:
            found[slot.role if slot.role not in found else f"{slot.role} {len(found)}"] = slot.value
    except ClewError:
        return _NOTHING
    return next(iter(found.values())) if len(found) == 1 else found


def unnamed(value: Any, names: dict[str, str]) -> Any:
    """A captured value with the ids of its messages and documents renamed by the order of their first use."""
    if isinstance(value, list):
        return [unnamed(part, names) for part in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == _DOCUMENT and isinstance(value["id"], str):
        return {**value, "id": names.setdefault(value["id"], f"#{len(names)}")}
    if "role" not in value or "content" not in value:
        return {key: unnamed(part, names) for key, part in value.items()}

    def name(minted: Any) -> Any:
        return names.setdefault(minted, f"#{len(names)}") if isinstance(minted, str) else minted

    told = {key: name(part) if key in _MINTED else part for key, part in value.items()}
    told.pop("extra", None)  # usage, and what a provider says of the call
    if isinstance(told.get("tool_calls"), list):
        told["tool_calls"] = [{**one, "id": name(one.get("id"))} for one in told["tool_calls"] if isinstance(one, dict)]
    told.pop("id", None)
    return told


def _attributes(certificate: Certificate) -> dict[str, Any]:
    return {
        "clew.replay.of": certificate.run_id,
        "clew.replay.mode": certificate.mode,
        "clew.replay.served": sum(certificate.served.values()),
        "clew.replay.live": len(certificate.live),
    }
