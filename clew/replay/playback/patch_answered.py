"""Patches of what was answered: a document that says something else, or one recorded answer that is another one."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from clew.lineage.reader import Reader
from clew.lineage.view import SpanView
from clew.replay.playback.patch import InForce, Patch, plain
from clew.replay.recording.recording import Recording
from clew.store import record
from clew.store.errors import Ambiguous, NotFound
from clew.tracer.boundary import Call
from clew.tracer.capture import Batch

_NOT_MODELLED = "a document was patched where it was found: what else would be found with it is not modelled"


class Retrieved(Patch):
    """A document that says something else, wherever a retriever answers with it: `clew.Retrieved("d3", "new text")`.

    `which` is its id, its exact text or its digest. `metadata` replaces all of its own. Whether it would be found at all with
    its new text, and in which place, is not modelled: it stands where the old one stood, and its score is the old one's.
    """

    kind = "document"

    def __init__(self, which: str, text: str | None = None, metadata: dict[str, Any] | None = None) -> None:
        if text is None and metadata is None:
            raise ValueError("a document is patched by a text, by metadata, or by both")
        self.which = which
        self.text = text
        self.metadata = metadata

    @property
    def title(self) -> str:
        line = " ".join(self.which.split())
        return f"document {line if len(line) <= 60 else line[:59] + '…'!r}"

    def to_dict(self) -> dict[str, Any]:
        return plain({"patch": self.kind, "which": self.which, "text": self.text, "metadata": self.metadata}, self)

    def touches(self, about: Any, span: SpanView) -> bool:
        found = [one for one in span.generated if one.kind == "document"] if span.kind == "retriever" else []
        return any(self.which in (one.value["text"], one.value["id"]) or self._names(str(one.digest)) for one in found)

    def hold(self, force: InForce) -> None:
        instead, before = force.replayer.instead, force.replayer.instead.change

        def changed(call: Call, response: Any) -> Any:
            response = response if before is None else before(call, response)
            return self._changed(force, call, response) if call.kind == "retriever" else response

        instead.change = changed

    def _changed(self, force: InForce, call: Call, response: Any) -> Any:
        if not isinstance(response, (list, tuple)):
            return response
        found = [self._one(force, one) for one in response]
        changed = [(one, other) for one, other in zip(response, found, strict=True) if one is not other]
        if not changed:
            return response
        scores = {} if call.span is None else call.span.facts.get("scored", {})
        for one, other in changed:
            if id(one) in scores:
                scores[id(other)] = (other, scores[id(one)][1])
        force.met()
        force.replayer.notes[_NOT_MODELLED] = None
        return type(response)(found)

    def _one(self, force: InForce, found: Any) -> Any:
        if isinstance(found, tuple) and found:  # with its score
            inner = self._one(force, found[0])
            return found if inner is found[0] else (inner, *found[1:])
        text = getattr(found, "page_content", None)
        if text is None or not (self.which in (text, getattr(found, "id", None)) or self._is_digest(force, found)):
            return found
        update: dict[str, Any] = {} if self.text is None else {"page_content": self.text}
        if self.metadata is not None:
            update["metadata"] = dict(self.metadata)
        return found.model_copy(update=update)

    def _is_digest(self, force: InForce, found: Any) -> bool:
        is_digest = self.which.startswith("b3:")
        return is_digest and self._names(str(Batch(force.replayer.tracer.gate).part(found)[1]))

    def _names(self, digest: str) -> bool:
        return len(self.which) >= 11 and digest.startswith(self.which)


class Answer(Patch):
    """One recorded answer that is another one: `clew.Answer("5f3a", "No flights today.")`.

    `of` is the span of the recorded call, or its id or a unique prefix of it. `value` is what the call answers: of a
    model a text, a message or a dict with `content` and `tool_calls`; of a tool what it returns; of a retriever a list of documents
    (or of texts or dicts), of an embedding a vector, or a list of them for several texts. Tool calls without an id have
    the recorded ones.
    """

    kind = "answer"

    def __init__(self, of: Any, value: Any) -> None:
        self.of = str(getattr(of, "span_id", of))
        self.value = value

    @property
    def title(self) -> str:
        return f"answer of span {self.of}"

    def to_dict(self) -> dict[str, Any]:
        return plain({"patch": self.kind, "of": self.of, "value": self.value}, self)

    def about(self, reader: Reader, recording: Recording) -> list[tuple[record.Answer, Any]]:
        """The recorded answers that it takes the place of, each with its own value."""
        calls = recording.calls
        fits = {one.span_id: one for one in calls if self.of and one.span_id.hex().startswith(self.of.lower())}
        if not fits:
            known = ", ".join(f"{one.span_id.hex()} ({one.kind} {one.name})" for one in calls[:8]) or "none"
            raise NotFound(f"no recorded call of this run has the span {self.of!r}; its calls: {known}")
        if len(fits) > 1:
            raise Ambiguous(
                f"span {self.of!r} fits {len(fits)} calls: {', '.join(one.hex() for one in list(fits)[:8])}"
            )
        (span_id,) = fits
        parts = [one for one in calls if one.span_id == span_id]
        values: list[Any] = [self.value]
        if parts[0].kind == "embedding" and not (self.value and isinstance(self.value[0], (int, float))):
            values = list(self.value)
            if len(values) != len(parts):
                raise ValueError(
                    f"span {self.of} answered {len(parts)} texts at once: it needs as many vectors, not {len(values)}"
                )
        return list(zip(parts, values, strict=True))

    def touches(self, about: list[tuple[record.Answer, Any]], span: SpanView) -> bool:
        return span.span_id == about[0][0].span_id.hex()

    def hold(self, force: InForce) -> None:
        for part, value in force.about:
            force.replayer.instead.answers[part.span_id, part.request] = functools.partial(self._made, force, value)

    def _made(self, force: InForce, value: Any, exchange: Any, entry: record.Answer, data: Callable[..., Any]) -> Any:
        force.met()
        recorded = None if entry.error or entry.missing else exchange.load(data(entry))
        return exchange.made(copy.deepcopy(value), recorded)
