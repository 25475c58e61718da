"""What tells one request from another, as text: of what the spans recorded of both.

A key is made of digests. The content of its fields stands in what the span used (docs/design/spans.md), where it was
captured and not collected.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from clew.lineage.difference import wording
from clew.lineage.difference.change import ABSENT, compared, said
from clew.lineage.difference.fingerprint import fingerprint
from clew.lineage.difference.minted import Renaming
from clew.lineage.view import SlotView, SpanView
from clew.store.digest import VALUE, raw_digest
from clew.store.encoding import encode_key
from clew.store.errors import ClewError

MODEL_FIELDS = (
    "model",
    "reached",
    "parameters",
    "stop",
    "options",
)  # of which a span records one thing: the model's slot
# How a model is reached is no part of what it is asked.
_TRANSPORT = frozenset(("stream", "stream_options", "stream_usage", "timeout", "request_timeout", "max_retries"))
_SHORT_CHARS = 100  # a text up to this stands on one line with the one that it was
_MOST_LINES = 400
_REQUEST = "gen_ai.request."


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of a key that differ. `lines` say how, from the other to this one; empty where only digests tell, for the
    `reason`."""

    fields: list[str]
    lines: list[str]
    reason: str = ""


def differences(
    names: list[str], here: SpanView | None, there: SpanView | None, digests: tuple[dict[str, bytes], dict[str, bytes]]
) -> list[Difference]:
    """How these fields differ, of the spans that asked. `digests` are those of the fields, here and there."""
    together = [name for name in names if name in MODEL_FIELDS]
    if not (here is None or here.kind == "llm"):
        together = []
    groups = [[name] for name in names if name not in together] + ([together] if together else [])
    return [_difference(group, here, there, digests) for group in groups]


def _difference(
    fields: list[str],
    here: SpanView | None,
    there: SpanView | None,
    digests: tuple[dict[str, bytes], dict[str, bytes]],
) -> Difference:
    for side, one in (("this one", digests[0]), ("the other", digests[1])):
        if all(name not in one for name in fields):
            return Difference(fields=fields, lines=[], reason=f"{side} has none")
    if here is None or there is None:
        return Difference(fields=fields, lines=[], reason="only the digest differs: the span that asked was collected")
    try:
        new, old = (content(span, fields[0], one) for span, one in zip((here, there), digests, strict=True))
    except ClewError as error:
        return Difference(fields=fields, lines=[], reason=f"only the digest differs: {error}")
    if new is ABSENT or old is ABSENT:
        return Difference(fields=fields, lines=[], reason="only the digest differs: its content is not recorded")
    lines = list(changes(*meant(old, new)))
    if not lines:
        return Difference(
            fields=fields,
            lines=[],
            reason="only the digest differs: what the span recorded of it is equal, and its code, or what else it is "
            "made of, is not",
        )
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"... {len(lines) - _MOST_LINES} more lines"]
    return Difference(fields=fields, lines=lines)


def content(span: SpanView, field: str, digests: dict[str, bytes]) -> Any:
    """What a span recorded of a field of its key, as plain data. ClewError where the content is not there."""
    used = span.used
    if span.kind == "llm" and field in MODEL_FIELDS:
        return _model(span, used)
    if field == "arguments" and span.kind != "tool":  # a function: each of its arguments is a slot
        return {slot.role: slot.value for slot in used if slot.kind == "value"}
    if field == "text":
        return _text(used, digests["text"])
    role = {"prompts": "prompt"}.get(field, field)
    found = [slot for slot in used if slot.role == role]
    if not found:
        return ABSENT
    value = found[0].value
    return Renaming().value(value) if field == "messages" else value  # ids that somebody minted: as in the key


def meant(old: Any, new: Any) -> tuple[Any, Any]:
    """Two values without what no person put there: ids that were minted, tokens that were counted. In full where they
    differ in nothing else: arguments are part of a key with all that is in them."""
    told = Renaming().value(old), Renaming().value(new)
    return told if fingerprint(told[0]) != fingerprint(told[1]) else (old, new)


def _model(span: SpanView, used: list[SlotView]) -> dict[str, Any]:
    """The model, its parameters and its tools."""
    found = parameters(span.attributes)
    for slot in used:
        if slot.role == "model":
            told = asked_model(slot.value)
            found = {**told, **found, **told.get("parameters", {})}
            found.pop("parameters", None)
        elif slot.role == "tools":
            found.setdefault("tools", {})[slot.name or slot.digest] = slot.value
    if "tools" in found:
        found["order of tools"] = ", ".join(found["tools"])
    return found


def asked_model(value: dict[str, Any]) -> dict[str, Any]:
    """A model as a span records it, without the parameters that only say how it is reached."""
    given = value.get("parameters", {})
    return {**value, "parameters": {name: part for name, part in given.items() if name not in _TRANSPORT}}


def parameters(attributes: dict[str, Any]) -> dict[str, Any]:
    """Those of a model's call, of what its span says; whether it was streamed is no difference."""
    given = {name.removeprefix(_REQUEST): value for name, value in attributes.items() if name.startswith(_REQUEST)}
    return {name: value for name, value in given.items() if name not in ("model", "stream")}


def _text(used: list[SlotView], digest: bytes) -> Any:
    """That of several texts which the key is of."""
    for slot in used:
        if slot.role == "texts":
            for text in slot.value:
                if isinstance(text, str) and raw_digest(VALUE, encode_key(text)) == digest:
                    return text
    return ABSENT


def changes(old: Any, new: Any) -> Iterator[str]:
    """The lines that tell two values apart; none where they are equal.

    >>> list(changes({"temperature": 0, "stop": ["a"]}, {"temperature": 0.2, "stop": ["a"]}))
    ['temperature: 0 → 0.2']
    """
    if _is_conversation(old) and _is_conversation(new):
        ones, others = [_message(one) for one in old], [_message(one) for one in new]
        if ones != others:
            yield _first_that_differs(ones, others)
            yield from _unified("\n".join(ones), "\n".join(others))
        return
    for change in compared("request", "", old, new):
        a, b = change.a, change.b
        if isinstance(a, str) and isinstance(b, str) and any(len(one) > _SHORT_CHARS or "\n" in one for one in (a, b)):
            if change.path:
                yield f"{change.path}:"
            yield from _unified(a, b)
        else:
            yield str(change)


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and "role" in one for one in value)


def _message(message: dict[str, Any]) -> str:
    """A message as it is read: who says it, what, and the rest below."""
    about = dict(message)
    lines = [f"[{about.pop('role')}]", said(about.pop("content", ""))]
    return "\n".join([*lines, *(f"{name}: {said(value)}" for name, value in sorted(about.items()))])


def _first_that_differs(old: list[str], new: list[str]) -> str:
    number, _ = wording.ends(old, new)
    if number == min(len(old), len(new)):
        longer = "this one goes on" if number == len(old) else "this one ends"
        return f"{'the first message is' if number == 1 else f'the first {number} messages are'} equal; {longer}"
    return f"message {number} differs" + (f" ({number} before it are equal)" if number else "")


def _unified(old: str, new: str) -> list[str]:
    return ["--- the other", "+++ this one", *wording.lines(old, new, sentences=True)]
