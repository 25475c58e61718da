"""Where each value of a span came from: slots in, nodes and edges out.

Works through a run's records in the order of the log, so whatever a value can have come from was seen before it.
A value is looked for by name first (message id, tool call id), then by its digest near the span, then by its text;
a text that nothing equals is searched for pieces, and what no piece explains leads coarsely to the code around it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clew.lineage.containment import Match, attribute
from clew.lineage.literal import template_literals
from clew.lineage.piece import Piece
from clew.lineage.rows import Rows
from clew.lineage.scope import RunScope, SeenSpan
from clew.lineage.source import CONSTANT, Sources
from clew.store import chain, encoding
from clew.store.catalog import Evidence, Relation, Scope
from clew.store.digest import Digest, Domain, text_digest
from clew.store.encoding import Code, Opaque, Record, Reference
from clew.store.errors import ClewError
from clew.store.record import Slot, SpanEnd, SpanStart
from clew.store.store import Store

GLOBAL = frozenset(
    ("dataset", "row", "document", "chunk", "embedding", "index", "prompt", "tool", "model", "file", "code", "environment")
)
MINIMUM = 32
_SEARCHED = 400_000  # characters of one text that are searched for pieces


class Resolver:
    """Makes nodes and edges of one indexer. `rows` collects them; `store` gives content."""

    def __init__(self, store: Store, rows: Rows) -> None:
        self.store = store
        self.rows = rows
        self.sources = Sources(store, rows)

    # -- spans

    def started(self, scope: RunScope, span: SeenSpan, record: SpanStart) -> None:
        """What a span used."""
        for slot in record.used:
            self._used(scope, span, slot, record)

    def _used(self, scope: RunScope, span: SeenSpan, slot: Slot, record: SpanStart | None) -> None:
        rows = self.rows
        if slot.kind in GLOBAL and slot.kind not in ("document", "chunk"):
            node = self.global_node(slot.kind, slot.domain, slot.digest, slot.name or self._class_name(slot))
            rows.edge(span.node, node, Relation.USED)
            span.used_nodes.append(node)
            if slot.kind == "prompt":
                self._template(scope, node, slot)
            elif slot.kind == "model" and span.kind == "embedding" and span.parent and span.parent.kind == "retriever":
                rows.edge(span.parent.node, node, Relation.USED)
            return
        if slot.kind in ("document", "chunk"):
            for node, _ in self._documents(scope, slot):
                if span.kind not in ("chain", "index"):
                    rows.edge(span.node, node, Relation.USED)
            return
        if span.kind == "prompt":
            self._variable(scope, span, slot)
        elif span.kind == "llm" and slot.role in ("messages", "prompt"):
            node = self._value(scope, span, slot, search=True)
            rows.edge(span.node, node, Relation.USED)
        elif span.kind == "tool" and slot.role == "arguments":
            node = self._value(scope, span, slot, search=True)
            rows.edge(span.node, node, Relation.USED)
            call = record.attributes.get("gen_ai.tool.call.id") if record else None
            asked = scope.find("tool_calls", str(call)) if call else None
            if asked is not None:
                rows.edge(node, asked, Relation.SAME, info={"role": "tool call"})
        elif span.kind in ("retriever", "reranker") and slot.role == "query":
            rows.edge(span.node, self._value(scope, span, slot, search=True), Relation.USED)
        elif span.kind == "node":
            node = self._channel(scope, span, slot)
            span.channels[slot.role] = (node, slot.digest)
            rows.edge(span.node, node, Relation.USED)
        elif span.kind == "workflow" or span.function or span.kind in ("agent", "step"):
            known = self._known(scope, span, slot)
            node = known if known is not None else self._value(scope, span, slot, search=span.parent is not None)
            if known is None or span.parent is None:
                self._given(scope, span, slot, node)
            rows.edge(span.node, node, Relation.USED)

    def ended(self, scope: RunScope, span: SeenSpan, record: SpanEnd) -> None:
        """What a span made, and what it used that only then was known."""
        for slot in record.used:
            if slot.role == "traceback":
                continue
            self._used(scope, span, slot, None)
        if span.kind == "llm":
            self._model_answer(scope, span, record.generated)
        elif span.kind in ("retriever", "reranker"):
            self._retrieved(scope, span, record.generated)
        elif span.kind == "prompt":
            self._rendered(scope, span, record.generated)
        elif span.kind == "tool":
            self._tool_result(scope, span, record.generated)
        elif span.kind == "index":
            self._index(scope, span, record.generated)
        elif span.kind == "embedding":
            pass
        elif span.kind == "node":
            self._written(scope, span, record.generated)
        elif span.kind == "workflow" or span.function or span.kind in ("agent", "step"):
            self._returned(scope, span, record.generated)
        elif any(slot.kind in ("document", "chunk") for slot in record.generated):
            for slot in record.generated:
                for node, _ in self._documents(scope, slot, made=True):
                    self.rows.edge(node, span.node, Relation.MADE_BY)

    # -- what boundaries make

    def _output(self, span: SeenSpan, slot: Slot, position: int, run: int) -> int:
        """The node of one thing that one span made."""
        key = b"o" + span.node.to_bytes(8, "big") + slot.role.encode() + bytes((position & 255,))
        node, _ = self.rows.node(
            key, Scope.VALUE, slot.kind, domain=slot.domain, digest=slot.digest, run=run, role=slot.role, name=slot.name
        )
        return node

    def _note_made(self, scope: RunScope, span: SeenSpan, node: int, text: bytes | None) -> None:
        """A boundary made `node`; the code around it may have reworked it."""
        around = span.enclosing()
        if around is not None:
            around.made.append((node, text))
            self.rows.edge(around.node, node, Relation.COARSE)

    def _model_answer(self, scope: RunScope, span: SeenSpan, slots: Iterable[Slot]) -> None:
        for position, slot in enumerate(slots):
            node = self._output(span, slot, position, span.run)
            self.rows.edge(node, span.node, Relation.GENERATED)
            text = self._register_message(scope, span, node, slot)
            self._note_made(scope, span, node, text)
            scope.last_response = [node]

    def _register_message(self, scope: RunScope, span: SeenSpan | None, node: int, slot: Slot) -> bytes | None:
        """Make a produced message findable: by digest, id, tool calls and text. Returns its text's digest."""
        scope.items.setdefault(slot.digest, node)
        if slot.domain == Domain.TEXT:
            self._register_text(scope, span, node, slot.digest, self._text(slot.digest))
            return slot.digest
        message = self._item(slot.digest)
        if message is None:
            return None
        if message.get("id"):
            scope.message_ids.setdefault(str(message["id"]), node)
        for call in message.get("tool_calls") or ():
            if isinstance(call, dict) and call.get("id"):
                scope.tool_calls[str(call["id"])] = node
        text = content_text(message.get("content"), self._text)
        if not text:
            return None
        name = text_digest(text)
        self._register_text(scope, span, node, name, text)
        return name

    def _register_text(self, scope: RunScope, span: SeenSpan | None, node: int, name: bytes, text: str | None) -> None:
        scope.texts.setdefault(name, []).append((node, span))
        if text is not None and len(text) >= MINIMUM:
            scope.pieces.append(Piece(node, text))

    def _retrieved(self, scope: RunScope, span: SeenSpan, slots: Iterable[Slot]) -> None:
        around = span.enclosing()
        nodes = []
        for slot in slots:
            for node, text in self._documents(scope, slot, made=True):
                rank = (slot.info or {}).get("rank")
                self.rows.edge(
                    node, span.node, Relation.MADE_BY, at=(rank, rank) if isinstance(rank, int) else None, info=slot.info
                )
                nodes.append(node)
                known = node in scope.retrievals
                scope.retrievals.setdefault(node, []).append(span.node)
                if text and not known:
                    scope.pieces.append(Piece(node, text, short_ok=True))
                if around is not None:
                    self.rows.edge(around.node, node, Relation.COARSE)
        scope.last_response = nodes or scope.last_response

    def _tool_result(self, scope: RunScope, span: SeenSpan, slots: Iterable[Slot]) -> None:
        slots = list(slots)
        ordered = sorted(slots, key=lambda slot: slot.role != "message")  # the message names the call
        main: int | None = None
        for position, slot in enumerate(ordered):
            if slot.kind in ("document", "chunk"):
                self._retrieved(scope, span, [slot])
                continue
            node = self._output(span, slot, position, span.run) if main is None else main
            if main is None:
                main = node
                self.rows.edge(node, span.node, Relation.GENERATED)
            scope.items.setdefault(slot.digest, node)
            message = self._item(slot.digest) if slot.domain == Domain.VALUE and slot.kind == "message" else None
            text: str | None = None
            if message is not None:
                if message.get("tool_call_id"):
                    scope.tool_results[str(message["tool_call_id"])] = node
                if message.get("id"):
                    scope.message_ids.setdefault(str(message["id"]), node)
                text = content_text(message.get("content"), self._text)
            elif slot.domain == Domain.TEXT:
                text = self._text(slot.digest)
            if text:
                name = text_digest(text)
                if all(known != node for known, _ in scope.texts.get(name, ())):
                    self._register_text(scope, span, node, name, text)
                    if span.made or scope.retrievals:
                        self._search(scope, span, node, text, inner=True)
        if main is not None:
            self._note_made(scope, span, main, None)
            scope.last_response = [main]

    def _rendered(self, scope: RunScope, span: SeenSpan, slots: Iterable[Slot]) -> None:
        """Messages rendered from a template: found again by digest when a model is asked with them."""
        templates = [node for node in span.used_nodes]
        for slot in slots:
            members = self._members(slot) if slot.domain == Domain.CHAIN else [(Domain(slot.domain), Digest(slot.digest))]
            for domain, item in members:
                node, new = self._rendered_value(scope, span, "message" if slot.domain == Domain.CHAIN else "value", domain, item)
                if new:
                    for template in templates:
                        self.rows.edge(node, template, Relation.DERIVED)

    def _rendered_value(
        self, scope: RunScope, span: SeenSpan, kind: str, domain: Domain, item: Digest
    ) -> tuple[int, bool]:
        known = scope.items.get(item)
        if known is not None:
            return known, False
        node, new = self._scoped(span.run, kind, domain, item)
        scope.items[item] = node
        if new:
            text = self._text(item) if domain is Domain.TEXT else self._message_text(item)
            if text:
                self._search(scope, span, node, text)
        return node, new

    def _variable(self, scope: RunScope, span: SeenSpan, slot: Slot) -> None:
        """A text put into a template stands in what is rendered, however short, if it is known where it is from."""
        if slot.domain != Domain.TEXT:
            return
        text = self._text(slot.digest)
        known = scope.producers(slot.digest, span)
        holds = any(piece.short_ok and piece.text in text for piece in scope.pieces) if text else False
        if text and (len(known) == 1 or (not known and not holds and len(text) < MINIMUM)):
            node = known[0] if known else self._scoped(span.run, "value", Domain.TEXT, Digest(slot.digest), slot.role)[0]
            span.variables.append(Piece(node, text, short_ok=True))

    def _index(self, scope: RunScope, span: SeenSpan, slots: Iterable[Slot]) -> None:
        for slot in slots:
            if slot.kind in ("document", "chunk"):
                for node, _ in self._documents(scope, slot, made=True):
                    self.rows.edge(node, span.node, Relation.MADE_BY)
            elif slot.kind in GLOBAL:
                node = self.global_node(slot.kind, slot.domain, slot.digest, slot.name)
                self.rows.edge(node, span.node, Relation.MADE_BY)

    # -- what the program's own code makes

    def _written(self, scope: RunScope, span: SeenSpan, slots: Iterable[Slot]) -> None:
        """A node's channel writes."""
        answer = []
        for position, slot in enumerate(slots):
            node = self._output(span, slot, position, span.run)
            self._explain(scope, span, node, slot)
            scope.writes.setdefault(slot.role, []).append((node, slot.digest))
            if not self._empty(slot):
                answer.append(node if slot.role != "messages" else self._last_message(scope, slot, node))
        parent = span.parent
        if answer and (parent is None or not any(one.kind == "node" for one in parent.ancestors())):
            scope.answer = answer

    def _last_message(self, scope: RunScope, slot: Slot, node: int) -> int:
        """The answer of a graph over messages is the last message."""
        if slot.domain != Domain.CHAIN:
            return node
        members = self._members(slot)
        return (scope.find_item(members[-1][1]) or node) if members else node

    def _returned(self, scope: RunScope, span: SeenSpan, slots: Iterable[Slot]) -> None:
        """What a graph, chain, traced function or `clew.run` returned."""
        made = []
        if span.kind == "workflow" and scope.answer:
            return  # the nodes' own writes say it more finely
        for position, slot in enumerate(slots):
            known = self._known(scope, span, slot)
            node = self._output(span, slot, position, span.run)
            if known is not None:
                self.rows.edge(node, known, Relation.SAME, Evidence.CONTENT)
                scope.items.setdefault(slot.digest, known)
            else:
                self._explain(scope, span, node, slot)
            if not self._empty(slot):
                made.append(node)
            if span.function:
                self._note_made(scope, span, node, slot.digest if slot.domain == Domain.TEXT else None)
                if slot.domain == Domain.TEXT:
                    scope.texts.setdefault(slot.digest, []).append((node, span))
        if span.kind == "workflow" and made:
            scope.answer = scope.child_answer = made

    def _explain(self, scope: RunScope, span: SeenSpan, node: int, slot: Slot) -> None:
        """Edges from what the program's code made to what it made it of."""
        known = self._known(scope, span, slot)
        if known is not None:
            self.rows.edge(node, known, Relation.SAME, Evidence.CONTENT)
            return
        if slot.domain == Domain.CHAIN:
            for domain, item in self._members(slot):
                self.rows.edge(node, self._member(scope, span, domain, item), Relation.LIST)
        elif slot.domain == Domain.TEXT:
            text = self._text(slot.digest)
            if self._ambiguous(scope, span, node, slot.digest):
                return
            if text is not None and len(text) >= MINIMUM:
                self._search(scope, span, node, text, inner=True)
                scope.reworked.append(Piece(node, text, rank=2))
                scope.texts.setdefault(slot.digest, []).append((node, span))
            else:
                self.rows.edge(node, span.node, Relation.COARSE)
        elif slot.kind == "message" or self._item_kind(slot.digest) == "message":
            self.rows.edge(node, self._member(scope, span, Domain.VALUE, Digest(slot.digest)), Relation.SAME)
        elif self._item_kind(slot.digest) == "document":
            for document, _ in self._documents(scope, slot):
                self.rows.edge(node, document, Relation.SAME, Evidence.CONTENT)
        else:
            self._parts(scope, span, node, slot, inner=True)

    def _member(self, scope: RunScope, span: SeenSpan, domain: Domain, item: Digest) -> int:
        """The node of a list's item, or of a part of a value."""
        known = scope.find_item(item)
        if known is not None:
            return known
        if domain is Domain.TEXT:
            return self._text_value(scope, span, item, search=True)
        kind = self._item_kind(item)
        if kind == "document":
            return self._document(scope, item)[0]
        if kind == "message":
            return self._message(scope, span, item)
        node, new = self._scoped(span.run, "value", domain, item)
        if new:
            self._parts(scope, span, node, Slot("", "value", int(domain), item))
        return node

    # -- values that are used

    def _known(self, scope: RunScope, span: SeenSpan, slot: Slot) -> int | None:
        """The one node that this value is, where that is beyond doubt."""
        if slot.domain == Domain.TEXT:
            found = scope.producers(slot.digest, span)
            return found[0] if len(found) == 1 else None
        return scope.find_item(slot.digest)

    def _ambiguous(self, scope: RunScope, span: SeenSpan, node: int, digest: bytes) -> bool:
        """Several producers made this very text: all are candidates, none is walked."""
        found = scope.producers(digest, span)
        if len(found) < 2:
            return False
        self._candidates(node, found)
        return True

    def _candidates(self, node: int, found: list[int], at: tuple[int, int] | None = None) -> None:
        for one in found[:20]:
            self.rows.edge(
                node, one, Relation.CANDIDATE, Evidence.CONTENT, at=at, info={"candidate_count": len(found)}
            )

    def _value(self, scope: RunScope, span: SeenSpan, slot: Slot, *, search: bool) -> int:
        if slot.domain == Domain.CHAIN:
            return self._list(scope, span, slot)
        if slot.domain == Domain.TEXT:
            return self._text_value(scope, span, Digest(slot.digest), search=search)
        known = scope.find_item(slot.digest)
        if known is not None:
            return known
        if slot.kind == "message" or self._item_kind(slot.digest) == "message":
            return self._message(scope, span, Digest(slot.digest))
        node, new = self._scoped(span.run, slot.kind, Domain(slot.domain), Digest(slot.digest), slot.role)
        if new:
            self._parts(scope, span, node, slot)
        return node

    def _text_value(self, scope: RunScope, span: SeenSpan, item: Digest, *, search: bool) -> int:
        found = scope.producers(item, span)
        if len(found) == 1:
            return found[0]
        node, new = self._scoped(span.run, "value", Domain.TEXT, item)
        if found:
            self._candidates(node, found)
        elif new and search:
            text = self._text(item)
            if text and len(text) >= MINIMUM:
                self._search(scope, span, node, text)
            elif text:
                self._short(scope, node, text)
        return node

    def _short(self, scope: RunScope, node: int, text: str) -> None:
        """A short text that equals a retrieved one."""
        pieces = [piece for piece in scope.pieces if piece.short_ok and piece.text == text]
        for piece in pieces[:1]:
            self.rows.edge(node, int(str(piece.key)), Relation.CONTAINS, Evidence.CONTAINED, at=(0, len(text)))

    def _message(self, scope: RunScope, span: SeenSpan, item: Digest) -> int:
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
        if not new:
            return node
        text = content_text(message.get("content"), self._text)
        if text:
            found = scope.producers(text_digest(text), span)
            if len(found) == 1:
                self.rows.edge(node, found[0], Relation.SAME, Evidence.CONTENT)
            elif found:
                self._candidates(node, found)
            else:
                self._search(scope, span, node, text)
        return node

    def _list(self, scope: RunScope, span: SeenSpan, slot: Slot) -> int:
        """The node of a list: it continues the longest beginning that is known, item by item."""
        key = slot.digest
        owner = scope
        known = next((found for one in scope.chain() if (found := one.lists.get(key)) is not None), None)
        if known is not None:
            return known
        links: list[chain.Link] = []
        current = Digest(key)
        start: int | None = None
        while current != chain.EMPTY:
            start = next((found for one in scope.chain() if (found := one.lists.get(current)) is not None), None)
            if start is not None:
                break
            link = chain.parse_link(self.store.blob(current, self.rows.connection)[1])
            if link is None:
                break
            links.append(link)
            current = link.previous
        node, new = self._scoped(span.run, slot.kind, Domain.CHAIN, Digest(key), slot.role)
        owner.lists[key] = node
        if new:
            if start is not None:
                self.rows.edge(node, start, Relation.LIST)
            for link in reversed(links):
                self.rows.edge(node, self._member(scope, span, link.domain, link.item), Relation.LIST)
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
            if all(known != node for known, _ in scope.texts.get(slot.digest, ())):
                self._register_text(scope, span, node, slot.digest, self._text(slot.digest))
        elif slot.domain == Domain.CHAIN:
            for domain, item in self._members(slot):
                if domain is Domain.TEXT:
                    self._given(scope, span, Slot("", "value", int(domain), item), self._member(scope, span, domain, item))
                elif self._item_kind(item) == "message":
                    member = self._member(scope, span, domain, item)
                    text = self._message_text(item)
                    if text:
                        self._register_text(scope, span, member, text_digest(text), text)
        elif slot.domain == Domain.VALUE:
            for text in self._strings(slot.digest):
                if len(text) >= MINIMUM:
                    self._register_text(scope, span, node, text_digest(text), text)

    def _parts(self, scope: RunScope, span: SeenSpan, node: int, slot: Slot, *, inner: bool = False) -> None:
        """Edges from a value of several parts to the documents, messages and texts in it."""
        if slot.domain != Domain.VALUE:
            return
        found = False
        for item in self._items_in(slot.digest):
            self.rows.edge(node, self._member(scope, span, Domain.VALUE, item), Relation.LIST)
            found = True
        for text in self._strings(slot.digest):
            producers = scope.producers(text_digest(text), span) if len(text) >= MINIMUM else []
            if len(producers) == 1:
                self.rows.edge(node, producers[0], Relation.CONTAINS, Evidence.CONTAINED)
                found = True
            elif len(text) >= MINIMUM:
                self._search(scope, span, node, text, inner=inner)
                found = True
        if not found and inner:
            self.rows.edge(node, span.node, Relation.COARSE)

    # -- searching

    def _search(self, scope: RunScope, span: SeenSpan, node: int, text: str, *, inner: bool = False) -> None:
        """Find the pieces that stand in a text. What nothing explains leads coarsely to the code around it.

        `inner`: the text was made by the code inside `span`, not before it.
        """
        pieces = [*span.variables, *scope.all_pieces()]
        if span.kind != "prompt" or scope.process is not None:
            pieces.extend(self.sources.constants(scope, text))
        found = attribute(text[:_SEARCHED], [piece for piece in pieces if piece.key != node])
        retrievals: dict[int, None] = {}
        for match in found.matches:
            at = (match.start, match.end)
            by_node = _causes(match)
            if not by_node:
                continue
            info = {"short": True} if match.short else None
            if len(by_node) == 1:
                cause, source = next(iter(by_node.items()))
                self.rows.edge(node, cause, Relation.CONTAINS, Evidence.CONTAINED, at=at, source=source, info=info)
                for one in scope.chain():
                    for retrieval in one.retrievals.get(cause, ()):
                        retrievals[retrieval] = None
            else:
                self._candidates(node, list(by_node), at)
        for retrieval in retrievals:
            self.rows.edge(node, retrieval, Relation.RETRIEVED, Evidence.CONTAINED)
        if found.gaps or len(text) > _SEARCHED:
            around = span if inner and span.encloses else span.enclosing()
            if around is not None:
                self.rows.edge(node, around.node, Relation.COARSE, info={"gaps": [list(gap) for gap in found.gaps[:20]]})

    def _template(self, scope: RunScope, node: int, slot: Slot) -> None:
        if slot.digest in scope.literals:
            return
        pieces = []
        for text in self._template_texts(slot):
            pieces.extend(Piece(node, literal, rank=0) for literal in template_literals(text))
        scope.literals[slot.digest] = pieces

    def _template_texts(self, slot: Slot) -> list[str]:
        value = self._read(slot.domain, slot.digest)
        if isinstance(value, str):
            return [value]
        texts = []
        for message in value.get("messages", ()) if isinstance(value, dict) else ():
            if isinstance(message, (list, tuple)) and len(message) > 1 and isinstance(message[1], str):
                texts.append(message[1])
        return texts

    # -- documents

    def _documents(self, scope: RunScope, slot: Slot, *, made: bool = False) -> list[tuple[int, str | None]]:
        """Nodes and texts of the documents in a slot: one, a list, or a tuple of them; bare texts are chunks."""
        if slot.domain == Domain.TEXT:
            return [self.sources.text_node(slot.kind, Digest(slot.digest), self._text)]
        if slot.domain == Domain.CHAIN:
            items = [item for _, item in self._members(slot)]
        elif slot.domain == Domain.VALUE:
            kind = self._item_kind(slot.digest)
            if kind == "document":
                return [self._document(scope, Digest(slot.digest), slot.kind, made=made)]
            items = self._items_in(slot.digest)
            if not items:
                return [
                    self.sources.text_node(slot.kind, text_digest(text), self._text, text)
                    for text in self._strings(slot.digest)
                ]
        else:
            return []
        return [self._document(scope, item, slot.kind, made=made) for item in items]

    def _document(
        self, scope: RunScope, item: Digest, kind: str = "document", *, made: bool = False
    ) -> tuple[int, str | None]:
        return self.sources.document(scope, item, kind, self._item, self._text)

    # -- reading

    def global_node(self, kind: str, domain: int, digest: bytes, name: str | None = None) -> int:
        """The node of an artifact that is the same wherever it is met."""
        node, new = self.rows.node(bytes(digest), Scope.GLOBAL, kind, domain=domain, name=name)
        if not new and name:
            self.rows.name_node(node, name)
        return node

    def _class_name(self, slot: Slot) -> str | None:
        """What a model is called that has no name of its own: its class."""
        if slot.kind != "model" or self.rows.find(slot.digest) is not None:
            return None
        value = self._shallow(slot.digest)
        return str(value["class"]).rpartition(".")[2] if isinstance(value, dict) and "class" in value else None

    def _scoped(self, run: int, kind: str, domain: Domain, item: Digest, role: str | None = None) -> tuple[int, bool]:
        key = b"v" + run.to_bytes(8, "big") + bytes(item)
        return self.rows.node(key, Scope.VALUE, kind, domain=int(domain), digest=item, run=run, role=role)

    def _read(self, domain: int, digest: bytes) -> Any:
        try:
            return self.store.value(domain, digest, self.rows.connection)
        except ClewError:
            return None

    def _text(self, digest: bytes) -> str | None:
        try:
            return self.store.text(digest, self.rows.connection)
        except ClewError:
            return None

    def _shallow(self, digest: bytes) -> Any:
        """A value with references left in place of its parts; None where there is no content."""
        try:
            domain, data = self.store.blob(digest, self.rows.connection)
        except ClewError:
            return None
        return encoding.decode(data) if domain is Domain.VALUE else None

    def _item(self, digest: bytes) -> dict[str, Any] | None:
        value = self._shallow(digest)
        return value if isinstance(value, dict) else None

    def _item_kind(self, digest: bytes) -> str | None:
        """ "message" or "document" by the shape of an item's encoding."""
        value = self._shallow(digest)
        if isinstance(value, dict):
            if "role" in value and "content" in value:
                return "message"
            if "text" in value and "metadata" in value:
                return "document"
        return None

    def _message_text(self, item: bytes) -> str | None:
        message = self._item(item)
        return content_text(message.get("content"), self._text) if message else None

    def _members(self, slot: Slot) -> list[tuple[Domain, Digest]]:
        read = lambda link: self.store.blob(link, self.rows.connection)[1]  # noqa: E731
        return [(link.domain, link.item) for link in chain.links(Digest(slot.digest), read)]

    def _items_in(self, digest: bytes) -> list[Digest]:
        """Digests of the documents and messages that a value holds."""
        return [part.digest for part in walk(self._shallow(digest)) if isinstance(part, Reference) and part.code == Code.ITEM]

    def _strings(self, digest: bytes) -> list[str]:
        """The texts that a value holds."""
        texts = []
        for part in walk(self._shallow(digest)):
            if isinstance(part, str):
                texts.append(part)
            elif isinstance(part, Reference) and part.code == Code.TEXT:
                text = self._text(part.digest)
                if text is not None:
                    texts.append(text)
        return texts

    def _empty(self, slot: Slot) -> bool:
        if slot.domain == Domain.CHAIN:
            return bytes(slot.digest) == bytes(chain.EMPTY)
        if slot.domain == Domain.TEXT:
            return not self._text(slot.digest)
        if slot.domain == Domain.VALUE:
            return self._shallow(slot.digest) in (None, {}, [], "")
        return False


def _causes(match: Match) -> dict[int, tuple[int, int]]:
    """The nodes that explain a stretch, each with its range. Where a constant of the code stands there whole and every
    source only in part, the code explains it: shared boilerplate makes no edge."""
    causes: dict[int, tuple[int, int]] = {}
    constant = whole = False
    for piece, start, end in match.candidates:
        if isinstance(piece.key, int):
            causes.setdefault(piece.key, (start, end))
            whole |= end - start == len(piece.text)
        elif piece.key == CONSTANT:
            constant |= end - start == len(piece.text)
    return {} if constant and not whole else causes


def walk(value: Any) -> Iterable[Any]:
    """Every leaf of a decoded value."""
    if isinstance(value, dict):
        for part in value.values():
            yield from walk(part)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            yield from walk(part)
    elif isinstance(value, Record):
        yield from walk(value.fields)
    elif not isinstance(value, Opaque):
        yield value


def content_text(content: Any, read: Any) -> str | None:
    """The text of a message's content: a text, a reference to one, or a list of parts of which some are text."""
    if isinstance(content, str):
        return content
    if isinstance(content, Reference):
        return read(content.digest) if content.code == Code.TEXT else None
    if isinstance(content, list):
        texts = []
        for part in content:
            if isinstance(part, dict) and part.get("type") in ("text", None):
                part = part.get("text")
            text = content_text(part, read) if not isinstance(part, (dict, list)) else None
            if text:
                texts.append(text)
        return "\n".join(texts) or None
    return None


