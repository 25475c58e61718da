"""The walk: from an answer back to everything it came from.

Strict edges first; then coarse ones, whose new finds are only *possible*; then what was retrieved in the same runs and
did not reach the answer, which was *considered*. Documents join what has the same text at every step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage.candidate import Choice, Joins, unpack
from clew.lineage.closure import chunks, closure, edges_from, edges_to
from clew.store import catalog
from clew.store.catalog import WALKED, Relation
from clew.store.store import Store

STRICT = tuple(relation for relation in WALKED if relation is not Relation.COARSE)


class Walk:
    """One walk in one transaction. `strict`, `possible` and `considered` are disjoint sets of nodes."""

    def __init__(self, store: Store, connection: Connection, starts: Iterable[int]) -> None:
        self.connection = connection
        self.joins = Joins(store, connection)
        self.choices: dict[int, Choice] = {}
        self.kinds: dict[int, str] = {}
        self.settled: set[tuple[int, int]] = set()  # choices that are none: a node, and where in its text
        self.strict = self._reach(starts, STRICT, set())

    @cached_property
    def possible(self) -> set[int]:
        """What may have reached the answer."""
        return self._reach(self.strict, WALKED, set(self.strict)) - self.strict

    @cached_property
    def considered(self) -> set[int]:
        """What was retrieved for the answer and did not reach it."""
        known = self.strict | self.possible
        return self._reach(self._retrieved() - known, STRICT, known) - known

    def _reach(self, starts: Iterable[int], relations: Collection[Relation], known: set[int]) -> set[int]:
        reached: set[int] = set()
        frontier = set(starts)
        while frontier:
            found = closure(self.connection, frontier, relations)
            fresh = found - reached
            reached |= found
            self._load_kinds(fresh)
            documents = [one for one in fresh if self.kinds.get(one) in ("document", "chunk")]
            indexes = [one for one in reached | known if self.kinds.get(one) == "index"]
            frontier = set()
            for choice in self.joins.resolve(documents, indexes):
                self.choices[choice.document] = choice
                if choice.source is not None and choice.source not in reached:
                    frontier.add(choice.source)
            for one in fresh:  # joined in an earlier pass
                before = self.choices.get(one)
                if before is not None and before.source is not None and before.source not in reached:
                    frontier.add(before.source)
            frontier |= self._settled_choices(fresh, indexes) - reached
        return reached

    def _settled_choices(self, fresh: Collection[int], indexes: Collection[int]) -> set[int]:
        """Documents among which there is no choice, though the text that holds one is that of all: they are one source.

        Such as a document that a reranker made anew, with its score.
        """
        groups: dict[tuple[int, int], list[Any]] = {}
        for row in edges_from(self.connection, fresh, (Relation.CANDIDATE,)):
            groups.setdefault((row.src, row.start), []).append(row)
        found: set[int] = set()
        for place, rows in groups.items():
            info = unpack(rows[0].info)
            if "at_least" in info or info.get("candidate_count") != len(rows):
                continue  # there are others
            candidates = [row.dst for row in rows]
            self._load_kinds(candidates)
            if all(self.kinds.get(one) in ("document", "chunk") for one in candidates):
                sources = {self.joins.source(one, indexes) for one in candidates}
                if len(sources) == 1 and None not in sources:
                    self.settled.add(place)
                    found.update(candidates)
        return found

    def _load_kinds(self, numbers: Collection[int]) -> None:
        query = sa.select(catalog.node.c.id, catalog.word.c.text).join(
            catalog.word, catalog.word.c.id == catalog.node.c.kind
        )
        for part in chunks([one for one in numbers if one not in self.kinds]):
            self.kinds.update(
                (row[0], row[1]) for row in self.connection.execute(query.where(catalog.node.c.id.in_(part)))
            )

    def spans(self, numbers: Collection[int]) -> dict[int, int]:
        """Those of `numbers` that are spans -> their runs."""
        found: dict[int, int] = {}
        for part in chunks(list(numbers)):
            query = sa.select(catalog.span.c.id, catalog.span.c.run).where(catalog.span.c.id.in_(part))
            found.update((row[0], row[1]) for row in self.connection.execute(query))
        return found

    def _retrieved(self) -> set[int]:
        """Documents that retrievals of the walked runs brought."""
        runs = set(self.spans(self.strict).values())
        scoped = sa.select(catalog.node.c.run).where(catalog.node.c.run.isnot(None))
        for part in chunks(list(self.strict)):
            runs.update(self.connection.execute(scoped.where(catalog.node.c.id.in_(part)).distinct()).scalars())
        roots = sa.select(catalog.run.c.id).where(catalog.run.c.root.isnot(None))
        word = sa.select(catalog.word.c.id).where(catalog.word.c.text.in_(("retriever", "reranker", "tool")))
        spans: set[int] = set()
        for part in chunks(list(runs)):
            query = sa.select(catalog.span.c.id).where(
                catalog.span.c.run.in_(part), catalog.span.c.run.in_(roots), catalog.span.c.kind.in_(word)
            )
            spans.update(self.connection.execute(query).scalars())
        return {row.src for row in edges_to(self.connection, spans, (Relation.MADE_BY,))}
