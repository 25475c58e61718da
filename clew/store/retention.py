"""What kept processes still need of old ones: everything that `why` of a kept run or ref may walk to or mention.

The unit of collection is a process: all its segments stay or go together, so that its runs, their spans and the content
it wrote stay whole. A process writes every blob that it names into its own log, so what one process needs of another is
lineage: spans that made something, derivations and artifacts that were declared. Whatever is reached keeps the process
that said it, and that process whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.store import catalog, record, segment
from clew.store.catalog import Relation, Scope, chunks
from clew.store.folder import Folder
from clew.store.record import Artifact, Derivation, RecordType

_DECLARING = (RecordType.DERIVATION, RecordType.ARTIFACT, RecordType.REF)
Fact = tuple[bytes, ...]  # (effect,) of an artifact's record, (effect, cause) of a derivation


class Unit:
    """The segments of one process."""

    def __init__(self, process_id: bytes) -> None:
        self.process_id = process_id
        self.segments: dict[int, str] = {}  # number -> stem
        self.last_ns = 0
        self.keep: str | None = None  # why it stays
        self.facts: set[Fact] = set()  # what it declared outside its spans' slots
        self.spans: set[int] = set()
        self.values: set[int] = set()  # its runs' own nodes

    def read_facts(self, folder: Folder) -> list[str]:
        """Read what this process declared; returns the refs that it gave."""
        refs = []
        for stem in self.segments.values():
            for frame in segment.records(folder.log / stem, *_DECLARING):
                entry = record.decode(frame.type, frame.payload)
                match entry:
                    case Derivation():
                        self.facts.update((effect, cause) for effect, cause, _, _ in entry.pairs)
                    case Artifact():
                        self.facts.add((bytes(entry.digest),))
                    case record.Ref():
                        refs.append(f"{entry.name}@{entry.version}")
        return refs


class Retention:
    """Decides which of the units that could go must stay. `reached` are the nodes that kept ones need."""

    def __init__(self, connection: Connection, folder: Folder, units: Iterable[Unit]) -> None:
        self.connection = connection
        self.folder = folder
        self.units = list(units)
        self.reached: set[int] = set()
        self._joined: set[int] = set()
        self._owner: dict[int, Unit] = {}  # span or value -> whose it is
        for unit in self.units:
            self._own(unit)
        self._known: set[Fact] = set()
        self._seed(self._named())

    def settle(self) -> None:
        """Until no unit that may go is needed: `keep` then says why each that stays does."""
        fresh = [unit for unit in self.units if unit.keep is not None]
        while fresh:
            for unit in fresh:
                if not unit.facts:
                    unit.read_facts(self.folder)
                self._known |= unit.facts
                self._seed(unit.spans | unit.values | self._adjacent(unit.spans | unit.values))
                self._seed(self._nodes({key for fact in unit.facts for key in fact} | self._facets(unit)))
            fresh = self._needed()

    # -- what is whose

    def _own(self, unit: Unit) -> None:
        numbers = list(unit.segments)
        span, run, node = catalog.span, catalog.run, catalog.node
        for part in chunks(numbers):
            unit.spans.update(self._ids(sa.select(span.c.id).where(span.c.segment.in_(part))))
            runs = sa.select(run.c.id).where(run.c.segment.in_(part))
            query = sa.select(node.c.id).where(node.c.run.in_(runs), node.c.scope != int(Scope.GLOBAL))
            unit.values.update(self._ids(query))
        for one in unit.spans | unit.values:
            self._owner[one] = unit

    def _facets(self, unit: Unit) -> set[bytes]:
        found: set[bytes] = set()
        for part in chunks(list(unit.segments)):
            query = sa.select(catalog.run.c.facets).where(catalog.run.c.segment.in_(part))
            for packed in self.connection.execute(query).scalars():
                found.update(msgspec.msgpack.decode(packed).values() if packed else ())
        return found

    def _named(self) -> set[int]:
        return self._nodes(set(self.connection.execute(sa.select(catalog.ref_history.c.digest)).scalars()))

    # -- what is reached

    def _seed(self, nodes: set[int]) -> None:
        """Add nodes and everything that they came of or may have come of."""
        edge, member, leaf = catalog.edge, catalog.member, catalog.leaf
        frontier = nodes - self.reached
        while frontier:
            self.reached |= frontier
            found: set[int] = set()
            for part in chunks(list(frontier)):
                found.update(self._ids(sa.select(edge.c.dst).where(edge.c.src.in_(part), ~self._brought())))
                found.update(self._ids(sa.select(member.c.container).where(member.c.node.in_(part))))
                found.update(self._ids(sa.select(member.c.node).where(member.c.container.in_(part))))
                rows = sa.select(catalog.word.c.id).where(catalog.word.c.text == "row")
                mine = sa.select(catalog.node.c.id).where(catalog.node.c.id.in_(part), catalog.node.c.kind.not_in(rows))
                texts = sa.select(leaf.c.text).where(leaf.c.node.in_(mine))
                found.update(self._ids(sa.select(leaf.c.node).where(leaf.c.text.in_(texts))))
            frontier = found - self.reached

    def _brought(self) -> sa.ColumnElement[bool]:
        """Edges from an item to a retrieval that brought it: others bring it as well, and none of them made it."""
        edge, word = catalog.edge, catalog.word
        brings = sa.select(word.c.id).where(word.c.text.in_(("retriever", "reranker", "tool")))
        made = sa.select(word.c.id).where(word.c.text.in_(("index", "file", "model", "dataset")))
        retrieval = sa.select(catalog.span.c.id).where(catalog.span.c.id == edge.c.dst, catalog.span.c.kind.in_(brings))
        item = sa.select(catalog.node.c.id).where(catalog.node.c.id == edge.c.src, catalog.node.c.kind.not_in(made))
        return (edge.c.relation == int(Relation.MADE_BY)) & retrieval.exists() & item.exists()

    def _adjacent(self, nodes: set[int]) -> set[int]:
        """What these made."""
        found: set[int] = set()
        for part in chunks(list(nodes)):
            found.update(self._ids(sa.select(catalog.edge.c.src).where(catalog.edge.c.dst.in_(part))))
        return {one for one in found if self._owner.get(one) is None}

    def _needed(self) -> list[Unit]:
        """Units that could go and are needed; they stay from now on."""
        fresh = []
        keys = self._keys()
        declared = self._nodes({key for fact in self._known for key in fact})
        for unit in [one for one in self.units if one.keep is None]:
            if self.reached & (unit.spans | unit.values):
                unit.keep = "a kept run or ref leads to its spans"
            elif any(fact[0] in keys and fact not in self._known for fact in unit.facts):
                unit.keep = "it declared where something comes from that a kept run or ref stands on"
            elif self._alone_knows(unit, declared):
                unit.keep = "it alone mentions something that a kept run or ref stands on"
            if unit.keep is not None:
                fresh.append(unit)
        return fresh

    def _alone_knows(self, unit: Unit, declared: set[int]) -> bool:
        """Whether the unit touches a reached artifact that no kept unit has touched or declared."""
        edge = catalog.edge
        mine = unit.spans | unit.values
        touched: set[int] = set()
        for part in chunks(list(mine)):
            touched.update(self._ids(sa.select(edge.c.dst).where(edge.c.src.in_(part))))
            touched.update(self._ids(sa.select(edge.c.src).where(edge.c.dst.in_(part))))
        shared = {one for one in touched & self.reached if one not in self._owner} - declared
        for part in chunks(list(shared)):
            for near, far in ((edge.c.src, edge.c.dst), (edge.c.dst, edge.c.src)):
                for one, other in self.connection.execute(sa.select(near, far).where(near.in_(part))):
                    owner = self._owner.get(other)
                    if owner is not None and owner.keep is not None:
                        shared.discard(one)
        members = catalog.member
        for part in chunks(list(shared)):  # a row is known through its dataset
            query = sa.select(members.c.node, members.c.container).where(members.c.node.in_(part))
            shared.difference_update(row[0] for row in self.connection.execute(query) if row[1] in declared)
        return bool(shared)

    # -- rows

    def _keys(self) -> set[bytes]:
        found: set[bytes] = set()
        for part in chunks(list(self.reached)):
            query = sa.select(catalog.node.c.key).where(
                catalog.node.c.id.in_(part), catalog.node.c.scope == int(Scope.GLOBAL)
            )
            found.update(bytes(key) for key in self.connection.execute(query).scalars())
        return found

    def _nodes(self, keys: set[bytes]) -> set[int]:
        found: set[int] = set()
        for part in chunks(list(keys)):
            found.update(self._ids(sa.select(catalog.node.c.id).where(catalog.node.c.key.in_(part))))
        return found

    def _ids(self, query: sa.Select[Any]) -> Iterator[int]:
        return self.connection.execute(query).scalars()

    def left_behind(self) -> set[int]:
        """Artifacts that only units which go touched or declared."""
        edge = catalog.edge
        found: set[int] = set()
        for unit in [one for one in self.units if one.keep is None]:
            frontier = self._nodes({key for fact in unit.facts for key in fact})
            for part in chunks(list(unit.spans | unit.values)):
                frontier.update(self._ids(sa.select(edge.c.dst).where(edge.c.src.in_(part))))
                frontier.update(self._ids(sa.select(edge.c.src).where(edge.c.dst.in_(part))))
            while frontier:
                frontier -= self.reached
                frontier -= found
                found |= frontier
                more: set[int] = set()
                for part in chunks(list(frontier)):
                    more.update(self._ids(sa.select(edge.c.dst).where(edge.c.src.in_(part))))
                    more.update(self._ids(sa.select(catalog.member.c.node).where(catalog.member.c.container.in_(part))))
                frontier = more
        return {one for one in found if one not in self._owner}
