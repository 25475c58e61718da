"""How a replay came out: its answer beside the recorded one, and the certificate on its root span."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from clew.lineage.reader import Reader
from clew.lineage.view import SlotView, SpanView, span_views
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
    before, after = outcome_of(reader, recording.run_id), outcome_of(reader, certificate.replay_id)
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


class Outcome(NamedTuple):
    """How a run came out: its answer, and whether it failed. `parts` are what ran at its top, in the order in which they
    began, of a run that did not say what its answer is."""

    answer: Any
    failed: bool = False
    parts: Sequence[SpanView] = ()


def compare(certificate: Certificate, before: Outcome, after: Outcome) -> None:
    """Note both answers, and whether they are one. Of runs that do not say what their answer is, and in which nothing went
    live, all that ran at the top came to the same."""
    certificate.recorded_answer = None if before.answer is _NOTHING else before.answer
    certificate.answer = None if after.answer is _NOTHING else after.answer
    if before.failed and certificate.error is None:
        certificate.equal = False
        certificate.notes.append("the recorded run failed, and its replay did not")
    elif before.parts and after.parts and not certificate.live:
        certificate.equal = _came_to_the_same(before.parts, after.parts)
    elif before.answer is not _NOTHING:
        certificate.equal = bool(unnamed(before.answer, {}) == unnamed(after.answer, {}))


def _came_to_the_same(before: Sequence[SpanView], after: Sequence[SpanView]) -> bool | None:
    """Whether what ran at the top of two runs gave the same: one after the other or, as what runs side by side begins in
    any order, what was given the same. None where content is lost."""
    try:
        one, other = [_told(span) for span in before], [_told(span) for span in after]
        return one == other or _by_input(before, one) == _by_input(after, other)
    except ClewError:
        return None


def _told(span: SpanView) -> list[Any]:
    if span.status == "error":  # what frameworks make of a failure is not what was given
        return [span.name, "error"]
    return [span.name, "", *_plain(span.generated)]


def _plain(slots: list[SlotView]) -> list[Any]:
    return [[slot.role, slot.name, unnamed(slot.value, {})] for slot in slots]


def _by_input(spans: Sequence[SpanView], told: list[Any]) -> dict[str, list[Any]]:
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for span, one in zip(spans, told, strict=True):
        found[repr([span.name, _plain(span.used)])].append(one)
    return found


def outcome_of(reader: Reader, run_id: str) -> Outcome:
    """What a run answered: what it said its answer is, else what its last graph or boundary gave."""
    with reader.connection() as connection:
        run = catalog.run.c
        row = connection.execute(
            sa.select(run.id, run.answer, run.root).where(run.run_id == bytes.fromhex(run_id))
        ).first()
        if row is None:
            return Outcome(_NOTHING)
        spans = span_views(reader.store, connection, row.id)
    root = next((one for one in spans if one.run_id == run_id), None)
    if root is None:
        return Outcome(_NOTHING)
    failed = root.status == "error"
    if root.generated:
        return Outcome(_values(root), failed)
    tops = [one for one in spans if one.parent_id == root.span_id and one.end_ns is not None]
    answers = [one for one in tops if one.generated and one.status != "error"]
    parts = [one for one in tops if one.kind != "index" and (one.generated or one.status == "error")]
    return Outcome(_values(max(answers, key=lambda one: one.end_ns or 0)) if answers else _NOTHING, failed, parts)


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
