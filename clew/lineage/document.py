"""Documents and rows among the values of a run: the sources that other texts are made of."""

from __future__ import annotations

from clew.lineage.scope import RunScope
from clew.lineage.search import Search
from clew.lineage.source import MINIMUM
from clew.store.digest import CHAIN, TEXT, VALUE, Digest, text_digest
from clew.store.record import Slot


class Documents(Search):
    """Finds the documents and rows that values are and hold."""

    def _documents(self, scope: RunScope, slot: Slot) -> list[tuple[int, str | None]]:
        """Nodes and texts of the documents in a slot: one, or those in a list, in pairs with a score, and the like.

        Bare texts are documents, or chunks; a row is itself. What a traced function returned says of nothing that it
        is a document: there the texts in a dict are, if they are long enough to be told by their content.
        """
        kind = slot.kind if slot.kind in ("document", "chunk") else "document"
        if slot.domain == TEXT:
            return [self.sources.text_node(scope, kind, Digest(slot.digest), self._text)]
        if slot.domain == CHAIN:
            found = []
            for domain, item in self._members(slot):
                if domain is VALUE and (kind == slot.kind or self._is_unread(item)):
                    found.append(self._document(scope, item, kind))
                else:
                    found += self._documents(scope, Slot(slot.role, slot.kind, int(domain), item))
            return found
        if slot.domain != VALUE:
            return []
        item = Digest(slot.digest)
        if self._item_kind(item) == "document":
            return [self._document(scope, item, kind)]
        row = self._row(scope, item)
        if row is not None:
            return [(row, None)]
        if items := self._items_in(item):
            return [self._document(scope, one, kind) for one in items]
        texts = self._strings(item)
        if kind != slot.kind and len(texts) > 1:
            texts = [text for text in texts if len(text) >= MINIMUM]
        return [self.sources.text_node(scope, kind, text_digest(text), self._text, text) for text in texts]

    def _is_unread(self, item: Digest) -> bool:
        """Whether this is a document that was captured without content."""
        return self._shallow(item) is None and self.rows.find(item) is not None

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
        if slot.domain == CHAIN:
            members = self._members(slot)
            return any(self._holds_source(scope, Slot("", "value", int(domain), item)) for domain, item in members)
        if slot.domain == TEXT:
            return bool(self._quoted(scope, self._text(slot.digest) or ""))
        if slot.domain != VALUE:
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
