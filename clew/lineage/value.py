"""Where a value that a span used came from.

A value is looked for by name first (message id, tool call id), then by its digest near the span, then by its text; a
text that nothing equals is searched for pieces.

`whole` is what the code inside a span made, where that is what is looked at: its new parts were made by that code too.
A part that is too short to be told by its content is met elsewhere as well, so there the whole leads to the code.
"""

from __future__ import annotations

from clew.lineage.content import content_text
from clew.lineage.document import Documents
from clew.lineage.piece import Piece
from clew.lineage.scope import RunScope, SeenSpan
from clew.lineage.source import MINIMUM
from clew.store import chain
from clew.store.catalog import Evidence, Relation
from clew.store.decoding import Record
from clew.store.digest import Digest, Domain, text_digest
from clew.store.record import Slot


class Values(Documents):
    """Finds or makes the node of a value in its scope."""

    def _value(self, scope: RunScope, span: SeenSpan, slot: Slot, *, search: bool) -> int:
        if slot.domain == Domain.CHAIN:
            return self._list(scope, span, slot)
        if slot.domain == Domain.TEXT:
            return self._text_value(scope, span, Digest(slot.digest), search=search)
        known = self._item_node(scope, slot.digest)
        if known is not None:
            return known
        kind = self._item_kind(slot.digest)
        if slot.kind == "message" or kind == "message":
            return self._message(scope, span, Digest(slot.digest))
        if kind == "document":
            return self._document(scope, Digest(slot.digest))[0]
        node, new = self._scoped(span.run, slot.kind, Domain(slot.domain), Digest(slot.digest), slot.role)
        if new:
            self._parts(scope, span, node, slot)
        return node

    def _text_value(
        self,
        scope: RunScope,
        span: SeenSpan,
        item: Digest,
        *,
        search: bool,
        whole: int | None = None,
        text: str | None = None,
    ) -> int:
        found = scope.producers(item, span)
        if len(found) == 1:
            return found[0]
        node, new = self._scoped(span.run, "value", Domain.TEXT, item)
        if found:
            self._candidates(node, found)
        elif whole is not None:
            self._made_text(scope, span, node, item, text or self._text(item), whole, new)
        elif new and search:
            text = text or self._text(item)
            if text and len(text) >= MINIMUM:
                self._search(scope, span, node, text)
            elif text:
                self._short(scope, node, text)
        return node

    def _made_text(
        self, scope: RunScope, span: SeenSpan, node: int, name: bytes, text: str | None, whole: int, new: bool = True
    ) -> None:
        """A text that the code inside `span` made: what it is made of, and that it can be found from now on."""
        if text is None or len(text) < MINIMUM:
            self._coarse(whole, span)
        elif new or self.rows.muted:
            self._search(scope, span, node, text, inner=True)
            scope.reworked.add(Piece(node, text, rank=2))
            scope.made(name, node, span)

    def _message(self, scope: RunScope, span: SeenSpan, item: Digest, whole: int | None = None) -> int:
        """The node of a message that a model is asked with or that stands in a state."""
        known = scope.find_item(item)
        if known is not None:
            return known
        message = self._item(item) or {}
        role = message.get("role")
        if message.get("id"):
            known = scope.find("message_ids", str(message["id"]))
        if known is None and role == "tool" and message.get("tool_call_id"):
            known = scope.find("tool_results", str(message["tool_call_id"]))
        if known is not None:
            scope.items[item] = known
            return known
        node, new = self._scoped(span.run, "message", Domain.VALUE, item)
        scope.items[item] = node
        if message.get("id"):
            scope.message_ids[str(message["id"])] = node
        if not new and (whole is None or not self.rows.muted):
            return node
        text = content_text(message.get("content"), self._text)
        if text:
            found = scope.producers(text_digest(text), span)
            if len(found) == 1:
                self.rows.edge(node, found[0], Relation.SAME, Evidence.CONTENT)
            elif found:
                self._candidates(node, found)
            elif whole is not None:
                self._made_text(scope, span, node, text_digest(text), text, whole)
            else:
                self._search(scope, span, node, text)
        return node

    def _made_document(self, scope: RunScope, span: SeenSpan, item: Digest, whole: int) -> int:
        """A document of a value that the code inside `span` made.

        One that nothing brought was made there. It is the same wherever it is met, so what it was made of hangs on a
        value of this run, which is that document.
        """
        document, text = self._document(scope, item)
        if not text or scope.has_source(document):
            return document
        if scope.is_derived(item):
            self._given_document(scope, item)
            return document
        node, _ = self._scoped(span.run, "value", Domain.VALUE, item)
        scope.items[item] = node
        self.rows.edge(node, document, Relation.SAME, Evidence.CONTENT)
        self._made_text(scope, span, node, text_digest(text), text, whole)
        return node

    def _list(self, scope: RunScope, span: SeenSpan, slot: Slot, whole: int | None = None) -> int:
        """The node of a list: it continues the longest beginning that is known, item by item."""
        key = slot.digest
        known = scope.find_list(key)
        if known is not None:
            return known
        links: list[chain.Link] = []
        current = Digest(key)
        start: int | None = None
        while current != chain.EMPTY:
            start = scope.find_list(current)
            if start is not None:
                break
            link = self._link(current)
            if link is None:
                break
            links.append(link)
            current = link.previous
        node, new = self._scoped(span.run, slot.kind, Domain.CHAIN, Digest(key), slot.role)
        scope.lists[key] = node
        if new:
            if start is not None:
                self.rows.edge(node, start, Relation.LIST)
            for link in reversed(links):
                self.rows.edge(node, self._member(scope, span, link.domain, link.item, whole), Relation.LIST)
        return node

    def _channel(self, scope: RunScope, span: SeenSpan, slot: Slot) -> int:
        """A state channel as a node reads it: the write it equals, else all writes so far, else what it holds."""
        writes = scope.writes.get(slot.role, [])
        for node, digest in reversed(writes):
            if digest == slot.digest:
                return node
        if slot.domain == Domain.CHAIN:
            return self._list(scope, span, slot)
        known = self._known(scope, span, slot)
        if known is not None:
            return known
        if slot.domain == Domain.VALUE and self._item_kind(slot.digest) == "document":
            return self._document(scope, Digest(slot.digest))[0]
        node, new = self._scoped(span.run, "value", Domain(slot.domain), Digest(slot.digest), slot.role)
        if new:
            for write, _ in writes:
                self.rows.edge(node, write, Relation.LIST)
            if not writes:
                self._parts(scope, span, node, slot)
        return node

    def _given(self, scope: RunScope, span: SeenSpan, slot: Slot, node: int) -> None:
        """What a run was started with can be found in its prompts."""
        if slot.domain == Domain.TEXT:
            self._given_text(scope, span, node, slot.digest, self._text(slot.digest))
        elif slot.domain == Domain.CHAIN:
            for domain, item in self._members(slot):
                if domain is Domain.TEXT:
                    self._given(
                        scope, span, Slot("", "value", int(domain), item), self._member(scope, span, domain, item)
                    )
                elif self._item_kind(item) == "document":
                    self._given_document(scope, item)
                elif self._item_kind(item) == "message":
                    member = self._member(scope, span, domain, item)
                    text = self._message_text(item)
                    if text:
                        self._given_text(scope, span, member, text_digest(text), text)
        elif self._item_kind(slot.digest) == "document":
            self._given_document(scope, Digest(slot.digest))
        elif slot.domain == Domain.VALUE and not scope.has_source(node):
            for item in self._items_in(slot.digest):
                if self._item_kind(item) == "document":
                    self._given_document(scope, item)
            for text in self._strings(slot.digest):
                if len(text) >= MINIMUM:
                    part = self._text_part(scope, span, text)
                    self._given_text(scope, span, part, text_digest(text), text)

    def _given_text(self, scope: RunScope, span: SeenSpan, node: int, name: bytes, text: str | None) -> None:
        """A text that was given can be found, unless a source is that very text: then it is the source that is found."""
        if scope.is_made(name, node) or (text is not None and scope.pieces.keys(text)):
            return
        if text is not None and self._quoted(scope, text):  # the sources in it come first
            scope.made(name, node, span)
            scope.reworked.add(Piece(node, text, rank=2))
        else:
            self._register_text(scope, span, node, name, text)

    def _held(self, scope: RunScope, span: SeenSpan, slot: Slot, node: int) -> list[int]:
        """The nodes of a value and of the texts, messages and documents in it, and the sources that stand in its texts."""
        found = [node]
        if scope.has_source(node):
            return found
        texts: list[str] = []
        if slot.domain == Domain.CHAIN:
            for domain, item in self._members(slot):
                member = self._member(scope, span, domain, item)
                found += self._held(scope, span, Slot("", "value", int(domain), item), member)
        elif slot.domain == Domain.VALUE:
            found += [self._member(scope, span, Domain.VALUE, item) for item in self._items_in(slot.digest)]
            texts = self._strings(slot.digest)
            found += [self._text_part(scope, span, text) for text in texts if len(text) >= MINIMUM]
        elif slot.domain == Domain.TEXT and (text := self._text(slot.digest)):
            texts = [text]
        for text in texts:
            found += [key for one in scope.around for key in one.pieces.keys(text) if isinstance(key, int)]
            found += self._quoted(scope, text)
        return found

    def _parts(self, scope: RunScope, span: SeenSpan, node: int, slot: Slot, whole: int | None = None) -> None:
        """Edges from a value of several parts to the documents, messages and texts in it."""
        if slot.domain != Domain.VALUE:
            return
        found = False
        for item in self._items_in(slot.digest):
            self.rows.edge(node, self._member(scope, span, Domain.VALUE, item, whole), Relation.LIST)
            found = True
        for text in self._strings(slot.digest):
            if len(text) >= MINIMUM:
                self.rows.edge(node, self._text_part(scope, span, text, whole), Relation.LIST)
                found = True
        if not found and whole is not None:
            self._coarse(whole, span)

    def _text_part(self, scope: RunScope, span: SeenSpan, text: str, whole: int | None = None) -> int:
        """The node of a text in a value of several parts: what stands in one part does not stand in the others."""
        return self._text_value(scope, span, text_digest(text), search=True, whole=whole, text=text)

    def _member(self, scope: RunScope, span: SeenSpan, domain: Domain, item: Digest, whole: int | None = None) -> int:
        """The node of a list's item, or of a part of a value."""
        known = self._item_node(scope, item)
        if known is not None:
            return known
        if domain is Domain.TEXT:
            return self._text_value(scope, span, item, search=True, whole=whole)
        if domain is Domain.CHAIN:
            return self._list(scope, span, Slot("", "value", int(domain), item), whole)
        kind = self._item_kind(item)
        if kind == "document":
            return self._document(scope, item)[0] if whole is None else self._made_document(scope, span, item, whole)
        if kind == "message":
            return self._message(scope, span, item, whole)
        node, new = self._scoped(span.run, "value", domain, item)
        if new:
            self._parts(scope, span, node, Slot("", "value", int(domain), item), whole)
        return node

    def _known(self, scope: RunScope, span: SeenSpan, slot: Slot, *, made: bool = False) -> int | None:
        """The one node that this value is, where that is beyond doubt.

        Lists, dicts and the like may be equal by chance: what `span` `made` is only what was seen inside it.
        """
        if slot.domain != Domain.TEXT:
            known = self._item_node(scope, slot.digest)
            if known is not None:
                return known
        found = scope.producers(slot.digest, span)
        if len(found) != 1:
            return None
        if made and slot.domain != Domain.TEXT and found[0] not in (*span.given, *(node for node, _ in span.made)):
            return None
        return found[0]

    def _compound(self, slot: Slot) -> bool:
        """Whether a value is a list, a dict or the like that holds something, and no item by itself."""
        if slot.domain == Domain.CHAIN:
            return bytes(slot.digest) != bytes(chain.EMPTY)
        if slot.domain != Domain.VALUE or self._item_kind(slot.digest) is not None:
            return False
        value = self._shallow(slot.digest)
        return isinstance(value, Record) or (isinstance(value, (dict, list, tuple, set, frozenset)) and bool(value))

    def _ambiguous(self, scope: RunScope, span: SeenSpan, node: int, digest: bytes) -> bool:
        """Several producers made this very text: all are candidates, none is walked."""
        found = scope.producers(digest, span)
        if len(found) < 2:
            return False
        self._candidates(node, found)
        return True

    def _variable(self, scope: RunScope, span: SeenSpan, slot: Slot) -> None:
        """A text put into a template stands in what is rendered, however short, if it is known where it is from."""
        if slot.domain != Domain.TEXT:
            return
        text = self._text(slot.digest)
        known = scope.producers(slot.digest, span)
        holds = (
            any(piece.short_ok and piece.text in text for piece in scope.pieces.near(text).pieces) if text else False
        )
        if text and (len(known) == 1 or (not known and not holds and len(text) < MINIMUM)):
            node = (
                known[0] if known else self._scoped(span.run, "value", Domain.TEXT, Digest(slot.digest), slot.role)[0]
            )
            span.variables.append(Piece(node, text, short_ok=True))

    def _register_text(self, scope: RunScope, span: SeenSpan | None, node: int, name: bytes, text: str | None) -> None:
        scope.made(name, node, span)
        if text is not None and len(text) >= MINIMUM:
            scope.pieces.add(Piece(node, text))
