"""What a traced generator yielded: each chunk as it was when it was yielded, whatever became of it since.

Nothing of the chunks is written before all of them are there and were searched: a credential may be split over them.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from clew.store.digest import Domain
from clew.tracer import chunks
from clew.tracer.capture import Batch
from clew.tracer.gate import Gate
from clew.tracer.memo import UNCHANGING
from clew.tracer.span import OpenSpan


class Yielded:
    """The chunks of one stream; of a span that there is not, nothing is kept."""

    def __init__(self, span: OpenSpan | None) -> None:
        self._span = span
        self._values: list[Any] = []  # plain values, and what was captured of the others
        self._along = chunks.Along()
        self._held: list[_Held] = []
        self._refused = False

    def add(self, chunk: Any) -> None:
        """The stream yields a chunk. Never raises."""
        span = self._span
        if span is None:
            return
        if type(chunk) in UNCHANGING:
            self._values.append(chunk)
            return
        gate, refused, self._refused = span.tracer.gate, self._refused, True
        with span.tracer.faults.guard("chunk of a stream"):
            if not self._held or self._held[-1].version != gate.secrets.version:
                self._held.append(_Held(gate))
            self._along.add(chunk)
            self._values.append(self._held[-1].part(chunk))
            self._refused = refused

    def end(self, error: BaseException | None = None) -> None:
        """The stream is over, and so is its span."""
        span = self._span
        if span is None or not span.here:
            return
        value: Any = chunks.REFUSED
        with span.tracer.faults.guard("chunks of a stream"):
            if not self._refused:
                value = self._value(span)
        span.end(generated=[("return", "value", value)], error=error)

    def _value(self, span: OpenSpan) -> Any:
        gate = span.tracer.gate
        if split := self._along.split(gate.cleaner):
            return {"chunks": len(self._values), "joined": split}
        batch = Batch(gate)
        for held in self._held:
            if held.version == gate.version:
                batch.learn(held.news)
            elif any(gate.cleaner.data(data) != data for _, data in held.content_of.values()):
                return chunks.REFUSED  # a secret became known since
            for name, (domain, data) in held.content_of.items():
                batch.put(domain, name, data)
        batch.frames += chain.from_iterable(held.frames for held in self._held)
        batch.commit()
        span.complete &= all(held.complete for held in self._held)
        return self._values


class _Held(Batch):
    """A batch that writes nothing."""

    depth = 1  # each chunk is an item of the list of chunks

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate)
        self.content_of: dict[bytes, tuple[Domain, bytes]] = {}

    def put(self, domain: Domain, name: bytes, data: bytes) -> None:
        if name not in self.gate.known:
            self.content_of[name] = domain, data
