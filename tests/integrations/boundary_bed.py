"""What the tests of boundaries share: a tracer with only the boundaries in place, and what it declared in the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import clew
from clew.integrations.langchain import seam
from clew.store import record
from clew.store.record import Artifact, Derivation
from clew.store.segment import SegmentFile, stems
from clew.tracer.init import Tracer
from tests.integrations.log_reader import Content, read


@dataclass
class Bed:
    """A running tracer and its log."""

    tracer: Tracer

    @property
    def log(self) -> Content:
        return read(self.tracer.folder.log)

    @property
    def declared(self) -> Declared:
        return declarations(self.tracer.folder.log)

    @property
    def faults(self) -> dict[str, tuple[int, str]]:
        return self.tracer.faults.counts


@dataclass
class Declared:
    """Item-to-item lineage and artifact facts, in the order they were written."""

    derivations: list[Derivation] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)

    def pairs(self, from_kind: str, to_kind: str, relation: str) -> list[tuple[bytes, bytes, int | None, int | None]]:
        wanted = (from_kind, to_kind, relation)
        return [
            pair
            for one in self.derivations
            if (one.from_kind, one.to_kind, one.relation) == wanted
            for pair in one.pairs
        ]


@contextmanager
def traced(folder: Path, *, always: bool = True) -> Iterator[Bed]:
    """Boundaries without observers: every span is a boundary's own."""
    tracer = clew.init(project="boundaries", store=folder / "store")
    assert tracer is not None
    tracer.undo.append(seam.install(tracer, always=always))
    try:
        yield Bed(tracer)
    finally:
        clew.shutdown()


@contextmanager
def instrumented(folder: Path) -> Iterator[Bed]:
    """Boundaries below observers, as `clew.instrument()` puts them."""
    tracer = clew.init(project="boundaries", store=folder / "store")
    assert tracer is not None
    clew.instrument()
    try:
        yield Bed(tracer)
    finally:
        clew.shutdown()


def declarations(folder: Path) -> Declared:
    """The declarations in all segments of a log folder."""
    found = Declared()
    for stem in stems(folder):
        file = SegmentFile(stem)
        try:
            for frame in file.frames():
                entry = record.decode(frame.type, frame.payload)
                if isinstance(entry, Derivation):
                    found.derivations.append(entry)
                elif isinstance(entry, Artifact):
                    found.artifacts.append(entry)
        finally:
            file.close()
    return found
