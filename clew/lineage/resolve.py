"""Slots in, nodes and edges out: what each span used and made.

Works through a run's records in the order of the log, so whatever a value can have come from was seen before it. What
no piece explains leads coarsely to the code around it.
"""

from __future__ import annotations

from collections.abc import Iterable

from clew.lineage.content import content_text
from clew.lineage.scope import ASKED, RunScope, SeenSpan
from clew.lineage.source import MINIMUM
from clew.lineage.value import Values
from clew.store.catalog import LIST, SAME, SCOPED, USED, Evidence, Relation
from clew.store.digest import CHAIN, TEXT, VALUE, Digest, Domain, text_digest
from clew.store.record import Slot, SpanEnd, SpanStart
from clew.store.vocabulary import GLOBAL_KINDS

_CODE = frozenset(("workflow", "agent", "step"))  # kinds of spans in which the user's code was given values
_TRIGGERS = {"triggered_by": Evidence.DECLARED, "triggered_by_one_of": Evidence.INFERRED}  # kinds of links


class Resolver(Values):
    """Makes nodes and edges of one indexer. `rows` collects them; `store` gives content."""

    def started(self, scope: RunScope, span: SeenSpan, record: SpanStart) -> None:
        """What a span used."""
        for slot in record.used:
            self._used(scope, span, slot, record)

    def _used(self, scope: RunScope, span: SeenSpan, slot: Slot, record: SpanStart | None) -> None:
        rows, kind = self.rows, span.kind
        if slot.kind in GLOBAL_KINDS:
            self._used_artifact(scope, span, slot)
        elif kind == "node":
            node = self._channel(scope, span, slot)
            span.channels[slot.role] = (node, slot.digest)
            if slot.domain == CHAIN:
                span.listed.update(self._listed(slot))
            rows.edge(span.node, node, USED)
        elif kind == "prompt":
            self._variable(scope, span, slot)
        elif kind == "llm" and slot.role in ("messages", "prompt"):
            node = self._value(scope, span, slot, search=True)
            rows.edge(span.node, node, USED)
        elif kind == "tool" and slot.role == "arguments":
            node = self._value(scope, span, slot, search=True)
            rows.edge(span.node, node, USED)
            call = record.attributes.get("gen_ai.tool.call.id") if record else None
            asked = scope.find("tool_calls", str(call)) if call else None
            if asked is not None:
                rows.edge(node, asked, SAME, info={"role": "tool call"})
        elif kind in ("retriever", "reranker") and slot.role == "query":
            rows.edge(span.node, self._value(scope, span, slot, search=True), USED)
        elif span.function or kind in _CODE:
            known = self._known(scope, span, slot)
            node = known if known is not None else self._value(scope, span, slot, search=span.parent is not None)
            if known is None or span.parent is None:
                self._given(scope, span, slot, node)
            if span.function:
                span.given += self._held(scope, span, slot, node)
            if kind in ASKED and self._holds_source(scope, slot):
                span.worked_on.append(node)  # which counts where it stands in the result
            else:
                rows.edge(span.node, node, USED)

    def _used_artifact(self, scope: RunScope, span: SeenSpan, slot: Slot) -> None:
        if slot.kind in ("document", "chunk"):
            for node, _ in self._documents(scope, slot):
                if span.kind not in ("chain", "index"):
                    self.rows.edge(span.node, node, USED)
            return
        node = self.global_node(slot.kind, slot.domain, slot.digest, slot.name or self._class_name(slot))
        self.rows.edge(span.node, node, USED)
        span.used_nodes.append(node)
        if slot.kind == "prompt":
            self._template(scope, node, slot)
        elif slot.kind == "model" and span.kind == "embedding" and span.parent and span.parent.kind == "retriever":
            self.rows.edge(span.parent.node, node, USED)

    def ended(self, scope: RunScope, span: SeenSpan, record: SpanEnd) -> None:
        """What a span made, and what it used that only then was known."""
        for slot in record.used:
            if slot.role == "traceback":
                continue
            self._used(scope, span, slot, None)
        for trace_id, span_id, kind in record.links:
            evidence = _TRIGGERS.get(kind)
            cause = self.rows.find_span(trace_id + span_id) if evidence is not None else None
            if evidence is not None and cause is not None:
                self.rows.edge(span.node, cause, Relation.CONTROL, evidence)
        self._made(scope, span, record)
        for trace_id, span_id, kind in record.links:
            if kind == "served_from":
                self._served(scope, span, self.rows.find_span(trace_id + span_id), record.generated)

    def _served(self, scope: RunScope, span: SeenSpan, performed: int | None, slots: Iterable[Slot]) -> None:
        """What a span was answered from the cache is what the span that performed the call made.

        A message that was served has another id than the one that was made, and where there are several, which is which
        is not told: each may be any of them.
        """
        for position, slot in enumerate(slots):
            mine = self.rows.find(_output_key(span.node, slot, position))
            theirs = self.rows.find(_output_key(performed, slot, position)) if performed is not None else None
            if mine is None or theirs is None:
                continue
            self.rows.edge(mine, theirs, SAME)
            items = self._members(slot) if slot.domain == CHAIN and span.kind == "node" else []
            for domain, item in items:
                if domain is VALUE and self._item_kind(item) == "message":
                    relation = SAME if len(items) == 1 else Relation.COARSE
                    self.rows.edge(self._member(scope, span, domain, item), theirs, relation)

    def _made(self, scope: RunScope, span: SeenSpan, record: SpanEnd) -> None:
        kind = span.kind
        if kind == "node":
            self._written(scope, span, record.generated)
        elif kind == "llm":
            self._model_answer(scope, span, record.generated)
        elif kind in ("retriever", "reranker"):
            self._retrieved(scope, span, record.generated)
        elif kind == "prompt":
            self._rendered(scope, span, record.generated)
        elif kind == "tool" and not span.function:
            self._tool_result(scope, span, record.generated)
        elif kind == "index":
            self._index(scope, span, record.generated)
        elif kind == "embedding":
            pass
        elif span.function or kind in _CODE:
            self._returned(scope, span, record.generated)
        elif any(slot.kind in ("document", "chunk") for slot in record.generated):
            for slot in record.generated:
                for node, _ in self._documents(scope, slot):
                    self.rows.edge(node, span.node, Relation.MADE_BY)

    def _output(self, span: SeenSpan, slot: Slot, position: int, run: int) -> int:
        """The node of one thing that one span made."""
        key = _output_key(span.node, slot, position)
        node, _ = self.rows.node(
            key, SCOPED, slot.kind, domain=slot.domain, digest=slot.digest, run=run, role=slot.role, name=slot.name
        )
        return node

    def _model_answer(self, scope: RunScope, span: SeenSpan, slots: Iterable[Slot]) -> None:
        for position, slot in enumerate(slots):
            node = self._output(span, slot, position, span.run)
            self.rows.edge(node, span.node, Relation.GENERATED)
            text = self._register_message(scope, span, node, slot)
            self._saw(span.enclosing(), node, text)
            scope.last_response = [node]

    def _register_message(self, scope: RunScope, span: SeenSpan | None, node: int, slot: Slot) -> bytes | None:
        """Make a produced message findable: by digest, id, tool calls and text. Returns its text's digest."""
        scope.met(slot.digest, node, span)
        if slot.domain == TEXT:
            self._register_text(scope, span, node, slot.digest, self._text(slot.digest))
            return slot.digest
        message = self._item(slot.digest)
        if message is None:
            return None
        said = text_digest(content_text(message.get("content"), self._text) or "")
        scope.said[node] = said
        if message.get("id") and self._named(scope, message, said) is None:
            scope.message_ids[str(message["id"])] = node
        for call in message.get("tool_calls") or ():
            if isinstance(call, dict) and call.get("id"):
                scope.tool_calls[str(call["id"])] = node
            for argument in self._strings_of(call):
                if len(argument) >= MINIMUM:
                    self._register_text(scope, span, node, text_digest(argument), argument)
        text = content_text(message.get("content"), self._text)
        if text is None and message.get("content") == "" and not message.get("tool_calls"):
            text = ""  # a model that answers nothing has answered
        if text is None:
            return None
        name = text_digest(text)
        self._register_text(scope, span, node, name, text)
        return name

    def _retrieved(self, scope: RunScope, span: SeenSpan, slots: Iterable[Slot]) -> None:
        around = span.enclosing()
        nodes = []
        for slot in slots:
            for node, text in self._documents(scope, slot):
                rank = (slot.info or {}).get("rank")
                self.rows.edge(
                    node,
                    span.node,
                    Relation.MADE_BY,
                    at=(rank, rank) if isinstance(rank, int) else None,
                    info=slot.info,
                )
                nodes.append(node)
                known = node in scope.retrievals
                scope.bring(node, span.node)
                if text and not known:
                    scope.add_source(node, text, short_ok=True)
                self._saw(around, node)
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
            scope.met(slot.digest, node, span)
            message = self._item(slot.digest) if slot.domain == VALUE and slot.kind == "message" else None
            text: str | None = None
            if message is not None:
                if message.get("tool_call_id"):
                    scope.tool_results[str(message["tool_call_id"])] = node
                if message.get("id"):
                    scope.message_ids[str(message["id"])] = node
                text = content_text(message.get("content"), self._text)
                scope.said[node] = text_digest(text or "")
            elif slot.domain == TEXT:
                text = self._text(slot.digest)
            if text:
                name = text_digest(text)
                if not scope.is_made(name, node):
                    self._register_text(scope, span, node, name, text)
                    if span.made or scope.retrievals:
                        self._search(scope, span, node, text, inner=True)
        if main is not None:
            self._saw(span.enclosing(), main)
            scope.last_response = [main]

    def _rendered(self, scope: RunScope, span: SeenSpan, slots: Iterable[Slot]) -> None:
        """Messages rendered from a template: found again by digest when a model is asked with them."""
        templates = list(span.used_nodes)
        for slot in slots:
            members = self._members(slot) if slot.domain == CHAIN else [(Domain(slot.domain), Digest(slot.digest))]
            for domain, item in members:
                node, new = self._rendered_value(
                    scope, span, "message" if slot.domain == CHAIN else "value", domain, item
                )
                if new:
                    for template in templates:
                        self.rows.edge(node, template, Relation.DERIVED)

    def _rendered_value(
        self, scope: RunScope, span: SeenSpan, kind: str, domain: Domain, item: Digest
    ) -> tuple[int, bool]:
        text = self._text(item) if domain is TEXT else self._message_text(item)
        if item in scope.items:
            known = scope.find_item(item, span) or scope.items[item]
            if not text or not self._differs(scope, span, known, text_digest(text), text, rendered=True):
                return known, False
            node, new = self._another(span, kind, domain, item)
        else:
            node, new = self._scoped(span.run, kind, domain, item)
        scope.met(item, node, span)
        if new and text:
            self._search(scope, span, node, text)
        return node, new

    def _index(self, scope: RunScope, span: SeenSpan, slots: Iterable[Slot]) -> None:
        for slot in slots:
            if slot.kind in ("document", "chunk"):
                for node, _ in self._documents(scope, slot):
                    self.rows.edge(node, span.node, Relation.MADE_BY)
            elif slot.kind in GLOBAL_KINDS:
                node = self.global_node(slot.kind, slot.domain, slot.digest, slot.name)
                self.rows.edge(node, span.node, Relation.MADE_BY)

    def _written(self, scope: RunScope, span: SeenSpan, slots: Iterable[Slot]) -> None:
        """A node's channel writes."""
        answer = []
        for position, slot in enumerate(slots):
            node = self._output(span, slot, position, span.run)
            if slot.domain == TEXT:
                scope.meant[node] = tuple(scope.producers(slot.digest, span)) or (node,)
            self._explain(scope, span, node, slot)
            scope.writes.setdefault(slot.role, []).append((node, slot.digest))
            answer.append(node if slot.role != "messages" else self._last_message(scope, slot, node))
        parent = span.parent
        if answer and (parent is None or not any(one.kind == "node" for one in parent.ancestors())):
            scope.answer = answer

    def _last_message(self, scope: RunScope, slot: Slot, node: int) -> int:
        """The answer of a graph over messages is the last message."""
        if slot.domain != CHAIN:
            return node
        members = self._members(slot)
        return (scope.find_item(members[-1][1]) or node) if members else node

    def _returned(self, scope: RunScope, span: SeenSpan, slots: Iterable[Slot]) -> None:
        """What a graph, chain, traced function or `clew.run` returned."""
        made = []
        if span.kind == "workflow" and scope.answer:
            return  # the nodes' own writes say it more finely
        for position, slot in enumerate(slots):
            known = self._known(scope, span, slot, made=True)
            node = self._output(span, slot, position, span.run)
            if known is not None:
                self.rows.edge(node, known, SAME, Evidence.CONTENT)
                if slot.domain == TEXT:
                    scope.items.setdefault(slot.digest, known)
            else:
                self._explain(scope, span, node, slot)
            if not self._empty(slot):
                made.append(node)
            if span.kind == "tool":
                self.rows.edge(node, span.node, Relation.GENERATED)
                scope.last_response = [node]
            if span.function:
                self._saw(span.enclosing(), node, slot.digest if slot.domain == TEXT else None)
                if known is None and (slot.domain == TEXT or self._compound(slot)):  # else it is what was known
                    scope.made(slot.digest, node, span)
        if span.kind == "workflow" and made:
            scope.answer = scope.child_answer = made

    def _explain(self, scope: RunScope, span: SeenSpan, node: int, slot: Slot) -> None:
        """Edges from what the program's code made to what it made it of."""
        known = self._known(scope, span, slot, made=True)
        if known is not None:
            self.rows.edge(node, known, SAME, Evidence.CONTENT)
            return
        if slot.domain == CHAIN:
            for domain, item in self._members(slot):
                self.rows.edge(node, self._member(scope, span, domain, item, node), LIST)
        elif slot.domain == TEXT:
            if not self._ambiguous(scope, span, node, slot.digest):
                self._made_text(scope, span, node, slot.digest, self._text(slot.digest), node)
        elif slot.kind == "message" or self._item_kind(slot.digest) == "message":
            self.rows.edge(node, self._member(scope, span, VALUE, Digest(slot.digest), node), SAME)
        elif self._item_kind(slot.digest) == "document":
            document = self._member(scope, span, VALUE, Digest(slot.digest), node)
            self.rows.edge(node, document, SAME, Evidence.CONTENT)
        else:
            self._parts(scope, span, node, slot, node)


def _output_key(span: int, slot: Slot, position: int) -> bytes:
    return b"o" + span.to_bytes(8, "big") + slot.role.encode() + bytes((position & 255,))
