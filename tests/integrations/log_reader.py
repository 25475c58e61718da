"""Reads what a tracer has written straight from its log, without the catalog: spans, runs and the content they name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clew.store import chain, decoding, encoding, record
from clew.store.digest import Digest, Domain
from clew.store.record import RecordType, Run, Slot, SpanEnd, SpanStart
from clew.store.segment import SegmentFile, stems
from clew.store.vocabulary import implied_attributes


@dataclass
class Read:
    """One span as the log has it. `end` is None while it is open."""

    start: SpanStart
    end: SpanEnd | None = None

    @property
    def name(self) -> str:
        return self.end.name if self.end and self.end.name else self.start.name

    @property
    def kind(self) -> str:
        return self.start.kind

    @property
    def status(self) -> str:
        return self.end.status if self.end else "running"

    @property
    def attributes(self) -> dict[str, Any]:
        own = {**self.start.attributes, **(self.end.attributes if self.end else {})}
        return implied_attributes(self.start.kind, self.start.name, self.start.run_id.hex(), None, own) | own

    @property
    def used(self) -> list[Slot]:
        return [*self.start.used, *(self.end.used if self.end else [])]

    @property
    def generated(self) -> list[Slot]:
        return self.end.generated if self.end else []


@dataclass
class Content:
    """Everything in a log. `spans` stand in the order they began; `ended` counts end records."""

    spans: list[Read] = field(default_factory=list)
    runs: dict[bytes, Run] = field(default_factory=dict)
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    ended: int = 0
    lost: list[Any] = field(default_factory=list)

    def of(self, kind: str, name: str | None = None) -> list[Read]:
        """The spans of a kind, by name if one is given."""
        return [span for span in self.spans if span.kind == kind and name in (None, span.name)]

    def one(self, kind: str, name: str | None = None) -> Read:
        found = self.of(kind, name)
        assert len(found) == 1, [(span.kind, span.name) for span in self.spans]
        return found[0]

    def parent(self, span: Read) -> Read | None:
        """The span above."""
        return next((one for one in self.spans if one.start.span_id == span.start.parent_id), None)

    def children(self, span: Read) -> list[Read]:
        return [one for one in self.spans if one.start.parent_id == span.start.span_id]

    @property
    def traces(self) -> set[bytes]:
        return {span.start.trace_id for span in self.spans}

    @property
    def own(self) -> list[Read]:
        """The spans that are clew's, not the user's."""
        return [span for span in self.spans if span.start.scope == "clew"]

    def value(self, slot: Slot) -> Any:
        """What a slot names."""
        return self._value(slot.domain, Digest(slot.digest))

    def values(self, slots: list[Slot]) -> dict[str, Any]:
        """Slots by role; of a role that occurs more than once, the list of values."""
        found: dict[str, list[Any]] = {}
        for slot in slots:
            found.setdefault(slot.role, []).append(self.value(slot))
        return {role: values[0] if len(values) == 1 else values for role, values in found.items()}

    def _value(self, domain: int, name: Digest) -> Any:
        if domain == Domain.CHAIN:
            return [
                self._value(one.domain, one.item)
                for one in chain.links(name, lambda link: chain.parse_link(self.blobs[link]))
            ]
        if domain == Domain.TEXT:
            return self.blobs[name].decode()
        if domain == Domain.TENSOR:
            return encoding.tensor_parts(self.blobs[name])
        if domain == Domain.BYTES:
            return self.blobs[name]
        return decoding.decode(self.blobs[name], self._part)

    def _part(self, code: decoding.Code, name: Digest) -> Any:
        domain = {
            decoding.Code.TEXT: Domain.TEXT,
            decoding.Code.BYTES: Domain.BYTES,
            decoding.Code.TENSOR: Domain.TENSOR,
        }
        return self._value(domain.get(code, Domain.VALUE), name)


def read(folder: Path) -> Content:
    """All segments of a store's log folder."""
    content = Content()
    by_id: dict[bytes, Read] = {}
    for stem in stems(folder):
        file = SegmentFile(stem)
        try:
            for frame in file.frames():
                if frame.type == RecordType.BLOB:
                    content.blobs[Digest(frame.payload[1:33])] = frame.payload[33:]
                    continue
                entry = record.decode(frame.type, frame.payload)
                match entry:
                    case SpanStart():
                        by_id[entry.span_id] = span = Read(entry)
                        content.spans.append(span)
                    case SpanEnd():
                        content.ended += 1
                        by_id[entry.span_id].end = entry
                    case Run():
                        content.runs[entry.run_id] = entry
                    case record.Lost():
                        content.lost.append(entry)
                    case _:
                        pass
        finally:
            file.close()
    return content
