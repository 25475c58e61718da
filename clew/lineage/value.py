"""Where a value that a span used came from.

A value is looked for by name first (message id, tool call id), then by its digest near the span, then by its text; a
text that nothing equals is searched for pieces.

`whole` is what the code inside a span made, where that is what is looked at: its new parts were made by that code too.
A part that is too short to be told by its content is met elsewhere as well, so there the whole leads to the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clew.lineage.content import content_text
from clew.lineage.document import Documents
from clew.lineage.piece import Piece
from clew.lineage.rows import AGAIN
from clew.lineage.scope import RunScope, SeenSpan
from clew.lineage.search import SEARCHED_CHARS
from clew.lineage.source import MINIMUM
from clew.store import chain
from clew.store.catalog import LIST, SAME, SCOPED, Evidence
from clew.store.decoding import Record
from clew.store.digest import CHAIN, TEXT, VALUE, Digest, Domain, text_digest
from clew.store.record import Slot

_CHECKED = 16  # of a list that is asked again


class Values(Documents):
    """Finds or makes the node of a value in its scope."""

    def _value(self, scope: RunScope, span: SeenSpan, slot: Slot, *, search: bool) -> int:
        if slot.domain == CHAIN:
            return self._list(scope, span, slot)
        if slot.domain == TEXT:
            return self._text_value(scope, span, Digest(slot.digest), search=search)
        kind = self._item_kind(slot.digest)
        if slot.kind == "message" or kind == "message":
            return self._message(scope, span, Digest(slot.digest))
        known = self._item_node(scope, slot.digest)
        if known is not None:
            return known
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
        node, new = self._scoped(span.run, "value", TEXT, item)
        if whole is None and node in scope.met_at:
            text = text or self._text(item)
            node = scope.find_item(item, span) or node
            if text and len(text) >= MINIMUM and self._differs(scope, span, node, item, text):
                node, new = self._another(span, "value", TEXT, item)
                scope.met(item, node, span)
        elif whole is None:
            scope.met_at[node] = (span, scope.newest())
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

    def _another(self, span: SeenSpan, kind: str, domain: Domain, item: Digest) -> tuple[int, bool]:
        """The node of a value that was met before and is met in `span` as another."""
        key = b"o" + span.node.to_bytes(8, "big") + AGAIN + item.hex()[:24].encode() + b"\0"
        return self.rows.node(key, SCOPED, kind, domain=int(domain), digest=item, run=span.run)

    def _differs(
        self, scope: RunScope, span: SeenSpan, node: int, name: bytes, text: str, *, rendered: bool = False
    ) -> bool:
        """Whether a text that was met before as `node` is explained by other things now, here.

        What explained nothing of it then, and is new, is left out: the text was there without it. But not where it was
        `rendered`: then it was made now.
        """
        met = scope.when_met(node)
        before, then = met if met is not None else (span, 0)
        if scope.newest() <= then and (before is span or any(before is one for one in span.ancestors())):
            return False
        found = scope.producers(name, span) if not rendered else []
        if found or met is None:
            old = [one for one in scope.producers(name, before) if scope.since(one) <= then]
            return bool(found) and found != [node] and set(found) != set(old)
        if rendered and {one.key for one in before.variables} != {one.key for one in span.variables}:
            return True
        searched = text[:SEARCHED_CHARS]
        pieces = [one for one in (*span.variables, *scope.pieces_in(searched).pieces) if one.key != node]
        for match in self._attributed(searched, pieces).matches:
            causes = {one.key for one, _, _ in match.candidates if isinstance(one.key, int)}
            old = [one for one in causes if scope.since(one) <= then]
            if not old and not rendered:
                continue
            now = list(causes)
            if len(texts := {one.text for one, _, _ in match.candidates}) == 1:
                piece = text_digest(texts.pop())
                old, now = scope.read(piece, old, before), scope.read(piece, now, span)
            if set(old) != set(now) or any(scope.has_brought(one, then) for one in now):
                return True
        return False

    def _named(self, scope: RunScope, message: dict[str, Any], text: bytes) -> int | None:
        """The message that was met with the same name and the same text."""
        tables = [("message_ids", message.get("id"))]
        if message.get("role") == "tool":
            tables.append(("tool_results", message.get("tool_call_id")))
        for table, name in tables:
            known = scope.find(table, str(name)) if name else None
            if known is not None and scope.says(known, text):
                return known
        return None

    def _message(self, scope: RunScope, span: SeenSpan, item: Digest, whole: int | None = None) -> int:
        """The node of a message that a model is asked with or that stands in a state."""
        message = self._item(item) or {}
        known = scope.find_item(item, span)
        if known is not None and message.get("id"):
            scope.message_ids[str(message["id"])] = known
            return known
        text = content_text(message.get("content"), self._text)
        name = text_digest(text or "")
        named = self._named(scope, message, name)
        if named is not None:
            scope.items[item] = named
            return named
        if known is not None and not (text and self._differs(scope, span, known, name, text)):
            return known
        if known is None:
            node, new = self._scoped(span.run, "message", VALUE, item)
        else:
            node, new = self._another(span, "message", VALUE, item)
        scope.met(item, node, span)
        scope.said[node] = name
        if message.get("id"):
            scope.message_ids[str(message["id"])] = node
        if not new and (whole is None or not self.rows.muted):
            return node
        if text:
            found = scope.producers(name, span)
            if len(found) == 1:
                self.rows.edge(node, found[0], SAME, Evidence.CONTENT)
            elif found:
                self._candidates(node, found)
            elif whole is not None:
                self._made_text(scope, span, node, name, text, whole)
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
        node, _ = self._scoped(span.run, "value", VALUE, item)
        scope.items[item] = node
        self.rows.edge(node, document, SAME, Evidence.CONTENT)
        self._made_text(scope, span, node, text_digest(text), text, whole)
        return node

    def _list(self, scope: RunScope, span: SeenSpan, slot: Slot, whole: int | None = None) -> int:
        """The node of a list: it continues the longest beginning that is known, item by item."""
        key = slot.digest
        known = scope.find_list(key)
        again = known is not None and self._asked_anew(scope, span, key, known)
        if known is not None and not again:
            return known
        links: list[chain.Link] = []
        current = Digest(key)
        start: int | None = None
        while current != chain.EMPTY:
            start = scope.find_list(current)
            if start is not None and not (again and self._asked_anew(scope, span, current, start)):
                break
            start = None
            link = self._link(current)
            if link is None:
                break
            links.append(link)
            current = link.previous
        if again:
            node, new = self._another(span, slot.kind, CHAIN, Digest(key))
        else:
            node, new = self._scoped(span.run, slot.kind, CHAIN, Digest(key), slot.role)
        scope.lists[key] = node
        scope.met_at.setdefault(node, (span, scope.newest()))
        if new:
            if start is not None:
                self.rows.edge(node, start, LIST)
            for link in reversed(links):
                member = self._member(scope, span, link.domain, link.item, whole)
                self.rows.edge(node, member, LIST)
                scope.listed.setdefault(node, {})[link.item] = member
        return node

    def _asked_anew(self, scope: RunScope, span: SeenSpan, key: bytes, node: int) -> bool:
        """Whether of a list that was met before the last few members without a name are others now."""
        met = scope.when_met(node)
        if met is None:
            return False
        before, then = met
        if scope.newest() <= then and (before is span or any(before is one for one in span.ancestors())):
            return False
        listed = next((one.listed[node] for one in scope.around if node in one.listed), {})
        for link in self._last(key, _CHECKED):
            text: str | None = None
            if link.domain is TEXT:
                text, name = self._text(link.item), bytes(link.item)
            elif link.domain is VALUE and self._item_kind(link.item) == "message":
                message = self._item(link.item) or {}
                if not message.get("id") and not message.get("tool_call_id"):
                    text = content_text(message.get("content"), self._text)
                    name = text_digest(text or "")
            known = scope.find_item(link.item, span) if text else None
            if known is None or not text:
                continue
            if listed.get(link.item, known) != known or self._differs(scope, span, known, name, text):
                return True
        return False

    def _last(self, key: bytes, count: int) -> Iterator[chain.Link]:
        """The last few links of a list, the last first."""
        current = Digest(key)
        while current != chain.EMPTY and count:
            link = self._link(current)
            if link is None:
                return
            yield link
            current, count = link.previous, count - 1

    def _listed(self, slot: Slot) -> Iterator[bytes]:
        """The last few texts of a list of texts."""
        for link in self._last(slot.digest, 4 * _CHECKED):
            if link.domain is not TEXT:
                return
            yield bytes(link.item)

    def _channel(self, scope: RunScope, span: SeenSpan, slot: Slot) -> int:
        """A state channel as a node reads it: the write it equals, else all writes so far, else what it holds."""
        writes = scope.writes.get(slot.role, [])
        for node, digest in reversed(writes):
            if digest == slot.digest:
                return node
        if slot.domain == CHAIN:
            return self._list(scope, span, slot)
        known = self._known(scope, span, slot)
        if known is not None:
            return known
        if slot.domain == VALUE and self._item_kind(slot.digest) == "document":
            return self._document(scope, Digest(slot.digest))[0]
        node, new = self._scoped(span.run, "value", Domain(slot.domain), Digest(slot.digest), slot.role)
        if new:
            for write, _ in writes:
                self.rows.edge(node, write, LIST)
            if not writes:
                self._parts(scope, span, node, slot)
        return node

    def _given(self, scope: RunScope, span: SeenSpan, slot: Slot, node: int) -> None:
        """What a run was started with can be found in its prompts."""
        if slot.domain == TEXT:
            self._given_text(scope, span, node, slot.digest, self._text(slot.digest))
        elif slot.domain == CHAIN:
            for domain, item in self._members(slot):
                if domain is TEXT:
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
        elif slot.domain == VALUE and not scope.has_source(node):
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
        if slot.domain == CHAIN:
            for domain, item in self._members(slot):
                member = self._member(scope, span, domain, item)
                found += self._held(scope, span, Slot("", "value", int(domain), item), member)
        elif slot.domain == VALUE:
            found += [self._member(scope, span, VALUE, item) for item in self._items_in(slot.digest)]
            texts = self._strings(slot.digest)
            found += [self._text_part(scope, span, text) for text in texts if len(text) >= MINIMUM]
        elif slot.domain == TEXT and (text := self._text(slot.digest)):
            texts = [text]
        for text in texts:
            found += [key for one in scope.around for key in one.pieces.keys(text) if isinstance(key, int)]
            found += self._quoted(scope, text)
        return found

    def _parts(self, scope: RunScope, span: SeenSpan, node: int, slot: Slot, whole: int | None = None) -> None:
        """Edges from a value of several parts to the documents, messages and texts in it."""
        if slot.domain != VALUE:
            return
        found = False
        for item in self._items_in(slot.digest):
            self.rows.edge(node, self._member(scope, span, VALUE, item, whole), LIST)
            found = True
        for text in self._strings(slot.digest):
            if len(text) >= MINIMUM:
                self.rows.edge(node, self._text_part(scope, span, text, whole), LIST)
                found = True
        if not found and whole is not None:
            self._coarse(whole, span)

    def _text_part(self, scope: RunScope, span: SeenSpan, text: str, whole: int | None = None) -> int:
        """The node of a text in a value of several parts: what stands in one part does not stand in the others."""
        return self._text_value(scope, span, text_digest(text), search=True, whole=whole, text=text)

    def _member(self, scope: RunScope, span: SeenSpan, domain: Domain, item: Digest, whole: int | None = None) -> int:
        """The node of a list's item, or of a part of a value."""
        if domain is VALUE and self._item_kind(item) == "message":
            return self._message(scope, span, item, whole)
        known = self._item_node(scope, item) if domain is not TEXT else None
        if known is not None:
            return known
        if domain is TEXT:
            return self._text_value(scope, span, item, search=True, whole=whole)
        if domain is CHAIN:
            return self._list(scope, span, Slot("", "value", int(domain), item), whole)
        kind = self._item_kind(item)
        if kind == "document":
            return self._document(scope, item)[0] if whole is None else self._made_document(scope, span, item, whole)
        node, new = self._scoped(span.run, "value", domain, item)
        if new:
            self._parts(scope, span, node, Slot("", "value", int(domain), item), whole)
        return node

    def _known(self, scope: RunScope, span: SeenSpan, slot: Slot, *, made: bool = False) -> int | None:
        """The one node that this value is, where that is beyond doubt.

        Lists, dicts and the like may be equal by chance: what `span` `made` is only what was seen inside it.
        """
        if slot.domain != TEXT:
            if scope.is_doubtful(slot.digest, span):
                return None
            known = scope.find_item(slot.digest, span)
            known = known if known is not None else self._item_node(scope, slot.digest)
            if known is not None:
                return known
        found = scope.producers(slot.digest, span)
        if len(found) != 1:
            return None
        if made and slot.domain != TEXT and found[0] not in (*span.given, *(node for node, _ in span.made)):
            return None
        return found[0]

    def _compound(self, slot: Slot) -> bool:
        """Whether a value is a list, a dict or the like that holds something, and no item by itself."""
        if slot.domain == CHAIN:
            return bytes(slot.digest) != bytes(chain.EMPTY)
        if slot.domain != VALUE or self._item_kind(slot.digest) is not None:
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
        if slot.domain != TEXT:
            return
        text = self._text(slot.digest)
        known = scope.producers(slot.digest, span)
        holds = (
            any(piece.short_ok and piece.text in text for piece in scope.pieces.near(text).pieces) if text else False
        )
        if text and (len(known) == 1 or (not known and not holds and len(text) < MINIMUM)):
            node = known[0] if known else self._scoped(span.run, "value", TEXT, Digest(slot.digest), slot.role)[0]
            span.variables.append(Piece(node, text, short_ok=True))

    def _register_text(self, scope: RunScope, span: SeenSpan | None, node: int, name: bytes, text: str | None) -> None:
        scope.made(name, node, span)
        if text is not None and len(text) >= MINIMUM:
            scope.pieces.add(Piece(node, text))
