"""The prompts of a recorded run, by the names under which they can be patched.

A prompt is a template, or a system message that stands literally in the calls of a model. Its name is the one that the
program gave it, else that of the node it is used in; several of one node are numbered in the order of their first use.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from clew.lineage.reader import Reader
from clew.lineage.view import SlotView, SpanView
from clew.store.digest import text_digest
from clew.store.errors import Ambiguous, ClewError, NotFound

_CLASSES = ("Template", "StructuredPrompt")  # what a template is called that nobody named
_CHAINS = ("RunnableSequence", "RunnableLambda", "RunnableParallel", "RunnableCallable")
_SYSTEM = "system"


@dataclasses.dataclass
class SeenPrompt:
    """A prompt that was seen. `kind` is "template" or "system message", `messages` are [role, text] pairs, of which
    `content` is what a system message holds where it is more than a text. `variables` were given on each use."""

    name: str
    kind: str
    messages: list[list[str]]
    digest: str
    where: list[str]
    calls: int
    content: Any = None
    variables: frozenset[str] | None = None

    @property
    def text(self) -> str:
        """The prompt, for a person."""
        if len(self.messages) == 1:
            return self.messages[0][1]
        return "\n".join(f"{role}: {text}" for role, text in self.messages)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "messages": self.messages,
            "digest": self.digest,
            "where": self.where,
            "calls": self.calls,
            "variables": None if self.variables is None else sorted(self.variables),
        }


def prompts(reader: Reader, runs: Any) -> list[SeenPrompt]:
    """What prompts a run holds, or several, in the order of their first use. Content that is lost is left out."""
    spans: dict[str, SpanView] = {}
    for run in runs if isinstance(runs, (list, tuple, set)) else [runs]:
        spans.update((span.span_id, span) for span in reader.spans(run))
    found: dict[tuple[str, str], SeenPrompt] = {}
    rendered: set[str] = set()
    for span in spans.values():
        if span.kind == "prompt":
            _template(span, spans, found, rendered)
    for span in spans.values():
        if span.kind == "llm":
            _literals(span, spans, found, rendered)
    order = {span_id: at for at, span_id in enumerate(spans)}
    return _numbered(sorted(found.values(), key=lambda one: order[one.where[0]]), spans)


def find(known: list[SeenPrompt], name: str) -> SeenPrompt:
    """The prompt of that name, or with that digest or a prefix of it. NotFound and Ambiguous name what there is."""
    exact = [one for one in known if one.name == name]
    if len(exact) == 1:
        return exact[0]
    by_digest = [one for one in known if len(name) >= 8 and one.digest.startswith(name)]
    if len(by_digest) == 1:
        return by_digest[0]
    listed = ", ".join(one.name for one in known) or "none"
    several = [one.name for one in known if one.name.rpartition("-")[0] == name] or [one.name for one in by_digest]
    if several:
        raise Ambiguous(f"{name!r} fits {len(several)} prompts of this run: {', '.join(several)}")
    close = difflib.get_close_matches(name, [one.name for one in known], n=1)
    hint = f"; close: {close[0]}" if close else ""
    raise NotFound(f"this run has no prompt {name!r}{hint}; its prompts: {listed} (`clew show RUN --prompts`)")


def says(span: SpanView, prompt: SeenPrompt) -> bool:
    """Whether a span is one of a use of this prompt."""
    if prompt.kind == "template":
        return span.kind == "prompt" and any(slot.digest == prompt.digest for slot in span.used)
    texts = [text_of(message["content"]) for message in _system_messages(span.used)] if span.kind == "llm" else []
    return any(str(text_digest(text)) == prompt.digest for text in texts)


def _template(
    span: SpanView, spans: dict[str, SpanView], found: dict[tuple[str, str], SeenPrompt], rendered: set[str]
) -> None:
    try:
        used = span.used
        slot = next((one for one in used if one.role == "template" and one.kind == "prompt"), None)
        if slot is None:
            return
        messages = [[str(role), str(text)] for role, text in slot.value["messages"]]
        rendered.update(_key(message) for message in _system_messages(span.generated))
    except ClewError:
        return
    given = frozenset(one.role for one in used if one is not slot)
    known = found.get(("template", slot.digest))
    if known is None:
        name = _own_name(slot, span) or _place(span, spans)
        found["template", slot.digest] = SeenPrompt(
            name, "template", messages, slot.digest, [span.span_id], 1, variables=given
        )
        return
    known.calls += 1
    known.where.append(span.span_id)
    known.variables = given & (known.variables or frozenset())


def _literals(
    span: SpanView, spans: dict[str, SpanView], found: dict[tuple[str, str], SeenPrompt], rendered: set[str]
) -> None:
    try:
        messages = list(_system_messages(span.used))
    except ClewError:
        return
    for message in {_key(one): one for one in messages}.values():
        key = _key(message)
        if key in rendered:
            continue
        known = found.get((_SYSTEM, key))
        if known is None:
            text = text_of(message["content"])
            found[_SYSTEM, key] = SeenPrompt(
                _place(span, spans),
                "system message",
                [[_SYSTEM, text]],
                str(text_digest(text)),
                [span.span_id],
                1,
                content=message["content"],
            )
        else:
            known.calls += 1
            known.where.append(span.span_id)


def text_of(content: Any) -> str:
    """The text of a message's content, which may be a list of blocks."""
    if isinstance(content, str):
        return content
    texts = [one if isinstance(one, str) else one.get("text") for one in content if isinstance(one, (str, dict))]
    return "".join(text for text in texts if isinstance(text, str))


def _system_messages(slots: Iterable[SlotView]) -> Iterator[dict[str, Any]]:
    for slot in slots:
        if slot.role == "messages":
            value = slot.value
            yield from (one for one in value if isinstance(one, dict) and one.get("role") == _SYSTEM)


def _key(message: dict[str, Any]) -> str:
    return json.dumps(message.get("content"), sort_keys=True, default=str)


def _own_name(slot: SlotView, span: SpanView) -> str | None:
    name = span.attributes.get("gen_ai.prompt.name") or slot.name
    return None if not name or str(name).endswith(_CLASSES) else str(name)


def _place(span: SpanView, spans: dict[str, SpanView]) -> str:
    """The node in which a span is, else the nearest thing around it that the program named."""
    named = None
    above = spans.get(span.parent_id or "")
    while above is not None:
        if above.kind == "node":
            return above.name
        if named is None and above.name not in _CHAINS:
            named = above.name
        above = spans.get(above.parent_id or "")
    return named or span.name


def _numbered(found: list[SeenPrompt], spans: dict[str, SpanView]) -> list[SeenPrompt]:
    alike = Counter(one.name for one in found)
    numbers: Counter[str] = Counter()
    taken = set(alike)
    for one in found:
        one.where = list(dict.fromkeys(spans[span_id].path for span_id in one.where))
        base = one.name
        if alike[base] == 1:
            continue
        while True:
            numbers[base] += 1
            one.name = f"{base}-{numbers[base]}"
            if one.name not in taken:
                break
        taken.add(one.name)
    return found
