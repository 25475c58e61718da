"""Steps: the spans of one run with what each was asked and what it answered, in a form that can be compared."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy.engine import Connection

from clew.lineage.difference.fingerprint import Fingerprints, fingerprint, rounded
from clew.lineage.view import SlotView, SpanView
from clew.store.digest import Digest
from clew.store.store import Store
from clew.store.vocabulary import is_content

BOUNDARIES = frozenset(("llm", "tool", "retriever", "reranker", "embedding"))
_ASKED = ("gen_ai.request.", "llm.model_name", "llm.invocation_parameters")  # of another library's span
_TRACEBACK = "traceback"
_ANSWERED = ("output", "completion", "result", "documents", "embeddings")


@dataclasses.dataclass(frozen=True)
class Part:
    """One thing that a step used or generated; `value` stands for its digest where it is an attribute."""

    role: str
    kind: str
    name: str | None
    info: dict[str, Any]
    domain: int
    digest: bytes
    print: bytes
    value: Any = None

    @property
    def called(self) -> str | None:
        """Its name, where that says what it is: a file and an index are what they hold, wherever they lie."""
        return None if self.kind in ("file", "index") else self.name

    def read(self, content: Fingerprints, renaming: Any) -> Any:
        """The value, with its ids renamed."""
        return content.value(self.domain, self.digest, renaming) if self.domain else self.value


_SERVED = ("served", "instead")
_MODELLED = ("llm", "embedding")  # kinds whose spans are called by their model


class Step:
    """A span of a run. `place` is its part of the span path; `whole` is a fingerprint of it and of all that is in it."""

    def __init__(self, span: SpanView, content: Fingerprints) -> None:
        self.span = span
        self.kind = span.kind
        self.name = span.name
        self.alias = span.name  # what the other run calls it
        self.place = span.path.rpartition("/")[2]
        self.attributes = span.attributes
        self.used = _parts(_asked(span), content)
        self.generated = _parts(span.generated, content)
        if span.scope != "clew":
            asked, answered = _told(self.attributes)
            self.used, self.generated = self.used + asked, self.generated + answered
        self.parent: Step | None = None
        self.children: list[Step] = []
        self.request = fingerprint(self.kind, [_form(part) for part in self.used])
        self.answer = fingerprint([_form(part) for part in self.generated], self.status, self.error)
        self.whole = b""
        self.content = content

    @functools.cached_property
    def without_model(self) -> bytes | None:
        """A fingerprint of what a model was asked, whichever it was; None of what asks no model, or nothing else."""
        others = [part for part in self.used if part.role != "model"]
        if self.kind not in _MODELLED or not others or len(others) == len(self.used):
            return None
        return fingerprint(self.kind, [_form(part) for part in others])

    @property
    def status(self) -> str:
        """The span's status."""
        return self.span.status

    @property
    def served(self) -> bool:
        """Whether it was answered from a cache or a recording, so that nothing happened in it."""
        return self.attributes.get("clew.cache.hit") is True or self.attributes.get("clew.replay") in _SERVED

    @property
    def error(self) -> list[str] | None:
        """Type and message of the error it ended by."""
        if self.status != "error":
            return None
        found = self.attributes
        return [str(found.get("error.type") or "error"), str(found.get("exception.message") or "")]

    @property
    def duration_ns(self) -> int | None:
        """How long it took, None of one without an end."""
        return None if self.span.end_ns is None else self.span.end_ns - self.span.start_ns

    @property
    def tokens(self) -> list[int] | None:
        """Input and output tokens, where they were counted."""
        found = [self.attributes.get(f"gen_ai.usage.{side}_tokens") for side in ("input", "output")]
        return [int(one or 0) for one in found] if any(one is not None for one in found) else None

    @property
    def superstep(self) -> int | None:
        """LangGraph's step: nodes of one run in parallel."""
        found = self.attributes.get("langgraph.step") if self.kind == "node" else None
        return found if isinstance(found, int) else None

    def within(self) -> Iterator[Step]:
        """It and all steps in it, in the order they began."""
        todo = [self]
        while todo:
            step = todo.pop()
            yield step
            todo.extend(reversed(step.children))


def steps(store: Store, connection: Connection, spans: list[SpanView]) -> tuple[list[Step], Fingerprints]:
    """The steps of a run that have no parent in it, and its content."""
    slots = [slot for span in spans for slot in (*span.used, *span.generated)]
    names = [Digest.parse(slot.digest) for slot in slots]
    store.gather(names[:20_000], connection)
    content = Fingerprints(store, connection, _own_ids(spans))
    for slot, name in zip(slots, names, strict=True):
        content.meet(slot.domain, name)
    content.settle()
    found = {span.span_id: Step(span, content) for span in spans}
    tops = []
    for step in found.values():
        above = found.get(step.span.parent_id or "")
        if above is None or above is step:
            tops.append(step)
        else:
            step.parent = above
            above.children.append(step)
    for step in reversed([one for top in tops for one in top.within()]):
        inner = sorted(child.whole for child in step.children)  # in whatever order parallel ones began
        step.whole = fingerprint(step.place, step.kind, step.request, step.answer, inner)
    return tops, content


def _own_ids(spans: Iterable[SpanView]) -> Iterator[str]:
    for run_id in {span.run_id for span in spans}:
        yield run_id
        yield "-".join((run_id[:8], run_id[8:12], run_id[12:16], run_id[16:20], run_id[20:]))
    for span in spans:
        yield span.span_id
        yield span.trace_id


def _asked(span: SpanView) -> list[SlotView]:
    """What a span used, without the traceback that an error leaves there: its last slot of that role."""
    slots = span.used
    if span.status == "error":
        last = next((slot for slot in reversed(slots) if slot.role == _TRACEBACK), None)
        slots = [slot for slot in slots if slot is not last]
    return slots


def _parts(slots: list[SlotView], content: Fingerprints) -> list[Part]:
    found = []
    for slot in slots:
        name = Digest.parse(slot.digest)
        print_ = content.of(slot.domain, name)
        found.append(Part(slot.role, slot.kind, slot.name, slot.info, slot.domain, name, print_))
    return sorted(found, key=lambda part: part.role)  # the order of roles says nothing, that within a role does


def _told(attributes: dict[str, Any]) -> tuple[list[Part], list[Part]]:
    """What another library's span says that it used and generated."""
    asked: list[Part] = []
    answered: list[Part] = []
    for name, value in sorted(attributes.items()):
        if name.startswith(("exception.", "metadata")) or not (is_content(name) or name.startswith(_ASKED)):
            continue
        side = answered if any(word in name for word in _ANSWERED) and "input" not in name else asked
        side.append(Part(name, "value", None, {}, 0, b"", fingerprint(value), value))
    return asked, answered


def _form(part: Part) -> list[Any]:
    return [part.role, part.kind, part.called, rounded(part.info), part.print]
