"""Candidate sets: a document whose text several sources share.

All sources are kept, then narrowed by membership in the index that answered, by document id, by what the document
carries of a row's key. What is still several after that is shown as "one of n" and not walked: never one silently.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage.closure import chunks, closure, edges_from
from clew.store import catalog, decoding
from clew.store.catalog import Relation
from clew.store.decoding import Code, Reference, printed
from clew.store.digest import Digest, Domain, text_digest
from clew.store.errors import ClewError
from clew.store.store import Store

OWN_SOURCES = (Relation.DERIVED, Relation.CONTAINS, Relation.CANDIDATE, Relation.SAME)
MINIMUM = 32  # characters from which a row's field is told by its content alone
_BACK = (Relation.DERIVED, Relation.CONTAINS, Relation.SAME)


@dataclasses.dataclass
class Choice:
    """What a document's text joins: `source` alone, or one of `candidates`."""

    document: int
    source: int | None
    candidates: list[int]
    evidence: str = "content"


class Joins:
    """Joins documents without a source of their own to what has the same text."""

    def __init__(self, store: Store, connection: Connection) -> None:
        self.store = store
        self.connection = connection
        self.done: set[int] = set()

    def resolve(self, documents: Collection[int], indexes: Collection[int]) -> list[Choice]:
        """The joins of those documents that have no source of their own. Each document is joined once."""
        fresh = [one for one in documents if one not in self.done]
        self.done.update(fresh)
        if not fresh:
            return []
        sourced = {row.src for row in edges_from(self.connection, fresh, OWN_SOURCES)}
        return [choice for one in fresh if one not in sourced and (choice := self._join(one, set(indexes))) is not None]

    def source(self, document: int, indexes: Collection[int]) -> frozenset[int] | None:
        """The rows and files that a document leads to, by edges of its own or by its text; None where that is a choice."""
        own = self._ends(document)
        if own is not None:
            return own
        choice = self._join(document, set(indexes))
        if choice is None or choice.source is None:
            return None
        return self._ends(choice.source) or frozenset((choice.source,))

    def _join(self, document: int, indexes: set[int]) -> Choice | None:
        node = self._node(document)
        text, identity = self._content(node)
        if text is None:
            return None
        short = self._short(text)
        query = sa.select(catalog.leaf.c.node).where(catalog.leaf.c.text == text, catalog.leaf.c.node != document)
        others = list(self.connection.execute(query.limit(2000)).scalars())
        ends = {other: end for other in others if (end := self._ends(other))}
        if short is not None:  # so few characters are equal by chance: a row must be named by the document as well
            named = self._agreeing([one for one in ends if one in ends[one]], [one for one in identity if one != short])
            ends = {one: end for one, end in ends.items() if one not in end or one in named}
        if not ends:
            return self._inferred(document, node)
        narrowed = list(ends)
        if len(set(ends.values())) > 1 and indexes:
            narrowed = self._members(narrowed, indexes) or narrowed
        if len({ends[one] for one in narrowed}) > 1 and identity:
            narrowed = self._agreeing(narrowed, identity) or narrowed
        distinct: dict[Any, int] = {}
        for one in narrowed:
            distinct.setdefault(ends[one], one)
        if len(distinct) == 1:
            return Choice(document, next(iter(distinct.values())), [])
        return Choice(document, None, list(distinct.values()))

    def _node(self, number: int) -> Any:
        return self.connection.execute(sa.select(catalog.node).where(catalog.node.c.id == number)).one()

    def _content(self, node: Any) -> tuple[bytes | None, list[str]]:
        """A document's text digest, and what may name its source: its id first, then its metadata."""
        if node.domain == Domain.TEXT:
            return node.key, []
        try:
            value = self._decoded(node.key)
        except ClewError:
            query = sa.select(catalog.leaf.c.text).where(catalog.leaf.c.node == node.id).limit(1)
            return self.connection.execute(query).scalar(), []
        text = value.get("text") if isinstance(value, dict) else None
        if isinstance(text, Reference) and text.code == Code.TEXT:
            name: bytes | None = bytes(text.digest)
        else:
            name = bytes(text_digest(text)) if isinstance(text, str) and text else None
        return name, identities(value)

    def _decoded(self, key: bytes) -> Any:
        """A value with its texts, however long; None for a bare text, which says nothing of itself."""
        domain, data = self.store.blob(key, self.connection)
        return decoding.decode(data, self._resolved) if domain is Domain.VALUE else None

    def _resolved(self, code: Code, digest: Digest) -> Any:
        if code == Code.TEXT:
            try:
                return self.store.text(digest, self.connection)
            except ClewError:  # captured without content
                pass
        return Reference(code, digest)

    def _short(self, text: bytes) -> str | None:
        """The text itself, if it is too short to be told by its content alone."""
        try:
            found = self.store.text(text, self.connection)
        except ClewError:  # without content there is no telling; long texts are the rule
            return None
        return found if len(found) < MINIMUM else None

    def _ends(self, number: int) -> frozenset[int] | None:
        """The rows and files a source leads to; itself if it is one. None if it leads nowhere."""
        reached = closure(self.connection, [number], _BACK)
        kinds = sa.select(catalog.node.c.id).join(catalog.word, catalog.word.c.id == catalog.node.c.kind)
        found: set[int] = set()
        for part in chunks(list(reached)):
            query = kinds.where(catalog.node.c.id.in_(part), catalog.word.c.text.in_(("row", "file")))
            found.update(self.connection.execute(query).scalars())
        if found:
            return frozenset(found)
        others = reached - {number}
        return frozenset(others) if others else None

    def _members(self, nodes: list[int], indexes: set[int]) -> list[int]:
        """Those that are, or were made into, entries of one of these indexes."""
        kept = []
        for node in nodes:
            entries = closure(self.connection, [node], (Relation.DERIVED,), forwards=True)
            if any(row.dst in indexes for row in edges_from(self.connection, entries, (Relation.PART,))):
                kept.append(node)
        return kept

    def _agreeing(self, nodes: list[int], identity: list[str]) -> list[int]:
        for name in identity:
            kept = [node for node in nodes if name in self._names(node)]
            if kept:
                return kept if len(kept) < 2 else self._agreeing(kept, identity[identity.index(name) + 1 :]) or kept
        return []

    def _names(self, number: int) -> set[str]:
        names: set[str] = set()
        for one in closure(self.connection, [number], _BACK):
            row = self.connection.execute(sa.select(catalog.node).where(catalog.node.c.id == one)).first()
            if row is None:
                continue
            try:
                value = self._decoded(row.key)
            except ClewError:
                continue
            if isinstance(value, dict):
                names.update(identities(value) if "metadata" in value else scalars(value))
        return names

    def _inferred(self, document: int, node: Any) -> Choice | None:
        """`metadata["source"]` names a file of a dataset: a guess, and shown as one."""
        if node.domain == Domain.TEXT:  # a bare text names nothing
            return None
        try:
            value = self._decoded(node.key)
        except ClewError:
            return None
        metadata = value.get("metadata") if isinstance(value, dict) else None
        source = metadata.get("source") if isinstance(metadata, dict) else None
        if not isinstance(source, str) or not source:
            return None
        found = (
            self.connection.execute(sa.select(catalog.node.c.id).where(catalog.node.c.name == source).limit(2))
            .scalars()
            .all()
        )
        return Choice(document, found[0], [], "inferred") if len(found) == 1 else None


def identities(value: Any) -> list[str]:
    """What a document's encoding says about where it is from: its id, then the scalars of its metadata, longest first."""
    if not isinstance(value, dict):
        return []
    names = [printed(value["id"])] if value.get("id") else []
    metadata = value.get("metadata")
    if isinstance(metadata, dict):
        for name, part in metadata.items():
            if isinstance(part, str) and part:
                names.append(part)
            elif _is_number(part):
                names.append(f"{printed(name)}={printed(part)}")  # a number says something only under the same name
    return (
        names[:1] + sorted(names[1:], key=len, reverse=True)
        if value.get("id")
        else sorted(names, key=len, reverse=True)
    )


def scalars(fields: dict[str, Any]) -> set[str]:
    """What a row's fields can be named by."""
    names: set[str] = set()
    for name, part in fields.items():
        if isinstance(part, str) and part:
            names.add(part)
        elif _is_number(part):
            names.update((f"{printed(name)}={printed(part)}", printed(part)))
    return names


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def unpack(data: bytes | None) -> dict[str, Any]:
    """Facts stored with a row of the catalog."""
    return msgspec.msgpack.decode(data) if data else {}
