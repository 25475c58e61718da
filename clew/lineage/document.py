"""Documents and rows among the values of a run: the sources that other texts are made of."""

from __future__ import annotations

from clew.lineage.scope import RunScope
from clew.lineage.search import Search
from clew.lineage.source import MINIMUM
from clew.store.digest import Digest, Domain, text_digest
from clew.store.record import Slot


class Documents(Search):
    """Finds the documents and rows that values are and hold."""

    def _documents(self, scope: RunScope, slot: Slot) -> list[tuple[int, str | None]]:
        """Nodes and texts of the documents in a slot: one, a list, or a tuple of them; bare texts are chunks."""
        if slot.domain == Domain.TEXT:
            return [self.sources.text_node(slot.kind, Digest(slot.digest), self._text)]
        if slot.domain == Domain.CHAIN:
            members = self._members(slot)
            texts = [item for domain, item in members if domain is Domain.TEXT]
            if texts:
                found = [self.sources.text_node(slot.kind, item, self._text) for item in texts]
                items = [item for domain, item in members if domain is Domain.VALUE]
                return [*found, *(self._document(scope, item, slot.kind) for item in items)]
            items = [item for domain, item in members if domain is Domain.VALUE]
        elif slot.domain == Domain.VALUE:
            kind = self._item_kind(slot.digest)
            if kind == "document":
                return [self._document(scope, Digest(slot.digest), slot.kind)]
            items = self._items_in(slot.digest)
            if not items:
                return [
                    self.sources.text_node(slot.kind, text_digest(text), self._text, text)
                    for text in self._strings(slot.digest)
                ]
        else:
            return []
        return [self._document(scope, item, slot.kind) for item in items]

    def _document(self, scope: RunScope, item: Digest, kind: str = "document") -> tuple[int, str | None]:
        return self.sources.document(scope, item, kind, self._item, self._text)

    def _given_document(self, scope: RunScope, item: Digest) -> None:
        document, text = self._document(scope, item)
        if text and document not in scope.sources and scope.find_item(item) is None:
            scope.add_source(document, text)

    def _item_node(self, scope: RunScope, item: bytes) -> int | None:
        """The node of a message or value that was met, or of the row that a value is."""
        known = scope.find_item(item)
        return known if known is not None else self._row(scope, item)

    def _row(self, scope: RunScope, item: bytes) -> int | None:
        """The declared row that a dict is: the two are equal, and a long text or the dataset's key makes that no chance."""
        for dataset in (scope.process or scope).datasets:
            row = dataset.by_digest.get(item)
            if row is None:
                continue
            fields = self._item(item) or {}
            texts = [text for text in self._strings_of(fields) if len(text) >= MINIMUM]
            if texts or dataset.key in fields:
                scope.items[item] = row
                scope.rows.add(row)
                scope.sources.add(row)
                for text in texts:
                    scope.add_source(row, text)
                return int(row)
        return None

    def _holds_source(self, scope: RunScope, slot: Slot) -> bool:
        """Whether a value is or holds a document or row, or a text in which a known one stands."""
        if slot.domain == Domain.CHAIN:
            members = self._members(slot)
            return any(self._holds_source(scope, Slot("", "value", int(domain), item)) for domain, item in members)
        if slot.domain == Domain.TEXT:
            return bool(self._quoted(scope, self._text(slot.digest) or ""))
        if slot.domain != Domain.VALUE:
            return False
        if scope.has_source(scope.find_item(slot.digest)):
            return True
        items = (slot.digest, *self._items_in(slot.digest))
        return any(self._item_kind(item) == "document" for item in items) or any(
            self._quoted(scope, text) for text in self._strings(slot.digest)
        )

    def _quoted(self, scope: RunScope, text: str) -> list[int]:
        """The documents and rows that stand in a text, in part or whole."""
        if len(text) < MINIMUM:
            return []
        sources = [piece for piece in scope.pieces_in(text).pieces if scope.has_source(piece.key)]
        matches = self._attributed(text, sources).matches if sources else ()
        return list(dict.fromkeys(int(str(piece.key)) for match in matches for piece, _, _ in match.candidates))
