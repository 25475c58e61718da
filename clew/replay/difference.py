"""What tells one request from another, as text: of what the spans recorded of both.

A key is made of digests. The content of its fields stands in what the span used (docs/design/spans.md), where it was
captured and not collected.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from clew.lineage.view import SlotView, SpanView
from clew.store.decoding import Opaque, Record, legible, printed
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
_LINE_CHARS = 100  # a longer line is shown sentence by sentence
_SHORT_CHARS = 200  # a value up to this stands on one line with the one that it was
_MOST_LINES = 400
_MINTED = ("id", "tool_call_id")
_SENTENCE = re.compile(r"(?<=[.!?;:]) +")
_ABSENT = object()


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
    if new is _ABSENT or old is _ABSENT:
        return Difference(fields=fields, lines=[], reason="only the digest differs: its content is not recorded")
    lines = list(changes(old, new))
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
        return {slot.role: plain(slot.value) for slot in used if slot.kind == "value"}
    if field == "text":
        return _text(used, digests["text"])
    role = {"prompts": "prompt"}.get(field, field)
    found = [slot for slot in used if slot.role == role]
    if not found:
        return _ABSENT
    value = plain(found[0].value)
    return _Messages(value) if field == "messages" and isinstance(value, list) else value


def _model(span: SpanView, used: list[SlotView]) -> dict[str, Any]:
    """The model, its parameters and its tools."""
    found: dict[str, Any] = {}
    for name, value in span.attributes.items():
        if name.startswith("gen_ai.request.") and name != "gen_ai.request.model":
            found[name.removeprefix("gen_ai.request.")] = value
    for slot in used:
        if slot.role == "model":
            told = plain(slot.value)
            found = {**told, **found, **told.get("parameters", {})}
            found.pop("parameters", None)
        elif slot.role == "tools":
            found.setdefault("tools", {})[slot.name or slot.digest] = plain(slot.value)
    return found


def _text(used: list[SlotView], digest: bytes) -> Any:
    """That of several texts which the key is of."""
    for slot in used:
        if slot.role == "texts":
            for text in plain(slot.value):
                if isinstance(text, str) and raw_digest(VALUE, encode_key(text)) == digest:
                    return text
    return _ABSENT


class _Messages(list[Any]):
    """A conversation."""

    def lines(self) -> list[str]:
        """Message by message. Ids that somebody minted are told by the order of their first use, as in the key."""
        renamed: dict[Any, str] = {}
        found = []
        for message in self:
            if not isinstance(message, dict):
                found += _lines(_shown(message))
                continue
            about = _named(message, renamed)
            found.append(f"[{about.pop('role', 'message')}]")
            text = about.pop("content", "")
            found += _lines(text if isinstance(text, str) else _shown(text))
            found += [f"{name}: {_shown(value)}" for name, value in sorted(about.items()) if name != "id"]
        return found


def _named(value: Any, renamed: dict[Any, str]) -> Any:
    if isinstance(value, list):
        return [_named(part, renamed) for part in value]
    if not isinstance(value, dict):
        return value
    return {
        name: renamed.setdefault(part, f"#{len(renamed)}")
        if name in _MINTED and isinstance(part, str)
        else _named(part, renamed)
        for name, part in value.items()
    }


def changes(old: Any, new: Any) -> Iterator[str]:
    """The lines that tell two values apart; none where they are equal.

    >>> list(changes({"temperature": 0, "stop": ["a"]}, {"temperature": 0.2, "stop": ["a"]}))
    ['temperature: 0 -> 0.2']
    """
    if isinstance(old, _Messages) and isinstance(new, _Messages):
        if first := _first_that_differs(old, new):
            yield first
            yield from _unified(old.lines(), new.lines())
        return
    if isinstance(old, str) and isinstance(new, str):
        yield from _unified(_lines(old), _lines(new))
        return
    before, after = dict(_leaves(old, "")), dict(_leaves(new, ""))
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name, _ABSENT), after.get(name, _ABSENT)
        if one is not _ABSENT and type(one) is type(other) and one == other:
            continue
        said, says = (None if value is _ABSENT else _shown(value) for value in (one, other))
        label = f"{name}: " if name else ""
        if said is None or says is None:
            yield f"{label}{says if said is None else said} ({'only this one' if said is None else 'only the other'})"
        elif max(len(said), len(says)) <= _SHORT_CHARS:
            yield f"{label}{said} -> {says}"
        else:
            yield label.rstrip()
            yield from _unified(_lines(str(one)), _lines(str(other)))


def _first_that_differs(old: _Messages, new: _Messages) -> str | None:
    for number in range(max(len(old), len(new))):
        if number >= len(old) or number >= len(new):
            longer = "this one goes on" if number >= len(old) else "this one ends"
            return f"the first {number} messages are equal; {longer}"
        if _Messages(old[: number + 1]).lines() != _Messages(new[: number + 1]).lines():
            return f"message {number} differs" + (f" ({number} before it are equal)" if number else "")
    return None


def _unified(old: list[str], new: list[str]) -> Iterator[str]:
    return iter(list(difflib.unified_diff(old, new, "the other", "this one", n=2, lineterm="")))


def _lines(text: str) -> list[str]:
    found: list[str] = []
    for line in text.splitlines():
        found += [line] if len(line) <= _LINE_CHARS else _SENTENCE.split(line)
    return found


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value):
        for at, part in enumerate(value):
            yield from _leaves(part, f"{name}[{at}]")
    else:
        yield name, value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=printed)


def plain(value: Any) -> Any:
    """A captured value with containers and texts of Python's own: what has no plain type is told by its type."""
    match value:
        case dict():
            return {key if isinstance(key, str) else printed(key): plain(part) for key, part in value.items()}
        case list() | tuple():
            return [plain(part) for part in value]
        case set() | frozenset():
            return sorted((plain(part) for part in value), key=str)
        case Record():
            return plain(value.fields) if isinstance(value.fields, dict) else {value.type: plain(value.fields)}
        case Opaque():
            return f"<{value.type}>"
        case bool() | float() | str() | None:
            return value
        case int():
            return legible(value)
        case _:
            return printed(value)
