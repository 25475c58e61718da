"""Searching a text for the pieces it is made of, and the nodes that pieces belong to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from clew.lineage.constant import is_constant, is_written
from clew.lineage.containment import MINIMUM, Attribution, Match, attribute
from clew.lineage.content import Content
from clew.lineage.literal import template_literals
from clew.lineage.piece import ANY_TELLING, Near, Piece
from clew.lineage.rows import Rows
from clew.lineage.scope import RunScope, SeenSpan
from clew.lineage.source import Sources
from clew.store.catalog import CANDIDATE, COARSE, GLOBAL, SCOPED, Evidence, Relation
from clew.store.decoding import Reference
from clew.store.digest import Digest, Domain, text_digest
from clew.store.record import Slot
from clew.store.store import Store

_REMEMBERED_CHARS = 4 << 20
SEARCHED_CHARS = 400_000  # of one text; what is beyond leads coarsely to the code around it


class Search(Content):
    """Makes nodes, and edges from texts to what stands in them."""

    def __init__(self, store: Store, rows: Rows) -> None:
        super().__init__(store, rows)
        self.sources = Sources(store, rows)
        self._remembered: OrderedDict[Any, tuple[Attribution, list[list[tuple[int, int, int]]]]] = OrderedDict()
        self._remembered_chars = 0

    def global_node(self, kind: str, domain: int, digest: bytes, name: str | None = None) -> int:
        """The node of an artifact that is the same wherever it is met."""
        node, new = self.rows.node(bytes(digest), GLOBAL, kind, domain=domain, name=name)
        if not new and name:
            self.rows.name_node(node, name)
        return node

    def _class_name(self, slot: Slot) -> str | None:
        """What a model is called that has no name of its own: its class."""
        if slot.kind != "model" or self.rows.find(slot.digest) is not None:
            return None
        value = self._shallow(slot.digest)
        name = value.get("class") if isinstance(value, dict) else None
        if isinstance(name, Reference):
            name = self._text(name.digest)
        return name.rpartition(".")[2] if isinstance(name, str) else None

    def _scoped(self, run: int, kind: str, domain: Domain, item: Digest, role: str | None = None) -> tuple[int, bool]:
        key = b"v" + run.to_bytes(8, "big") + bytes(item)
        return self.rows.node(key, SCOPED, kind, domain=int(domain), digest=item, run=run, role=role)

    def _search(self, scope: RunScope, span: SeenSpan, node: int, text: str, *, inner: bool = False) -> None:
        """Find the pieces that stand in a text. What nothing explains leads coarsely to the code around it.

        `inner`: the text was made by the code inside `span`, not before it. A traced function makes it of what it was
        given and of what the calls inside it returned.
        """
        searched = text[:SEARCHED_CHARS]
        function = inner and span.function
        near = (
            scope.pieces_of([*span.given, *(made for made, _ in span.made)]) if function else scope.pieces_in(searched)
        )
        gaps = self._contained(scope, span, node, searched, near)
        if function:  # it may have kept what it was not given: in its object, a closure, a cache
            gaps = [rest for gap in gaps for rest in self._quotes(scope, span, node, searched, gap)]
        gaps = [gap for gap in gaps if not self._is_written(scope, searched[gap[0] : gap[1]], inner)]
        if gaps or len(text) > SEARCHED_CHARS:
            around = span if inner and span.encloses else span.enclosing()
            if around is not None:
                self._coarse(node, around, gaps)

    def _contained(
        self, scope: RunScope, span: SeenSpan, node: int, text: str, near: Near, offset: int = 0
    ) -> list[tuple[int, int]]:
        """Edges to the pieces that stand in `text`, which begins at `offset` of the node's; returns what none explains."""
        pieces = [piece for piece in (*span.variables, *near.pieces) if piece.key != node]
        found = self._attributed(text, pieces)
        retrievals: dict[int, None] = {}
        for match in found.matches:
            match = _decided(match, text, pieces)
            at = (offset + match.start, offset + match.end)
            by_node = _causes(match, span.used_nodes, scope.rows)
            if len(by_node) > 1 and len({piece.text for piece, _, _ in match.candidates}) == 1:
                name = text_digest(match.candidates[0][0].text)
                by_node = {one: by_node[one] for one in scope.read(name, list(by_node), span)}
            if not by_node or self._is_boilerplate(scope, text, match):
                continue
            info = {"short": True} if match.short else None
            if len(by_node) == 1 and (near.all or match.whole):
                cause, source = next(iter(by_node.items()))
                self.rows.edge(node, cause, Relation.CONTAINS, Evidence.CONTAINED, at=at, source=source, info=info)
                nearest = next((one.retrievals[cause] for one in scope.around if cause in one.retrievals), ())
                retrievals.update(dict.fromkeys(nearest))
            else:
                self._candidates(node, list(by_node), at, all_known=near.all)
        for retrieval in retrievals:
            self.rows.edge(node, retrieval, Relation.RETRIEVED, Evidence.CONTAINED)
        return [(offset + start, offset + end) for start, end in found.gaps]

    def _quotes(
        self, scope: RunScope, span: SeenSpan, node: int, text: str, gap: tuple[int, int]
    ) -> list[tuple[int, int]]:
        """Edges to the documents and rows of the run that stand in a gap; returns what none explains."""
        stretch = text[gap[0] : gap[1]]
        near = scope.pieces_in(stretch)
        sources = [piece for piece in near.pieces if scope.has_source(piece.key)]
        return self._contained(scope, span, node, stretch, Near(sources, near.all), gap[0]) if sources else [gap]

    def _coarse(self, node: int, around: SeenSpan, gaps: Sequence[tuple[int, int]] = ()) -> None:
        """An edge to the code that made a value: to what it was given, and what calls inside it returned."""
        info = {"gaps": [list(gap) for gap in gaps[:20]]} if gaps else None
        self.rows.edge(node, around.node, COARSE, info=info)
        if around.kind == "tool":  # a tool's span is on the strict walk, so what it saw does not hang on the span
            for seen in (*around.worked_on, *(made for made, _ in around.made)):
                if seen != node:
                    self.rows.edge(node, seen, COARSE)

    def _saw(self, around: SeenSpan | None, node: int, text: bytes | None = None) -> None:
        """A call inside `around` returned `node`: the code there may rework it."""
        if around is not None:
            around.made.append((node, text))
            if around.kind != "tool":
                self.rows.edge(around.node, node, COARSE)

    def _is_boilerplate(self, scope: RunScope, text: str, match: Match) -> bool:
        """Whether what a document has in part is a constant of the program: then the program put it there."""
        if match.whole or match.short or not match.candidates[0][0].rank:
            return False
        stretch = text[match.start : match.end]
        return is_constant(stretch, self.sources.in_code(scope, stretch))

    def _is_written(self, scope: RunScope, stretch: str, inner: bool) -> bool:
        """Whether a stretch that nothing else explains is constants of the program.

        What code made of what it saw, `inner`, has that in its shortest part. A text that a model is asked with may hold
        parts that are too short to tell.
        """
        found = self.sources.in_code(scope, stretch)
        return is_written(stretch, found) if inner else bool(found.matches) and not found.gaps

    def _attributed(self, text: str, pieces: list[Piece]) -> Attribution:
        """`attribute`, remembered: servers ask the same things again and again."""
        first: dict[Any, int] = {}  # which pieces have one key, whatever it is
        key = (
            text,
            *[
                (piece.text, piece.rank, piece.short_ok, first.setdefault(piece.key, number))
                for number, piece in enumerate(pieces)
            ],
        )
        known = self._remembered.get(key)
        if known is not None:
            self._remembered.move_to_end(key)
            found, places = known
            matches = [
                Match(
                    match.start,
                    match.end,
                    tuple([(pieces[number], start, end) for number, start, end in candidates]),
                    match.short,
                    match.whole,
                )
                for match, candidates in zip(found.matches, places, strict=True)
            ]
            return Attribution(tuple(matches), found.gaps)
        found = attribute(text, pieces)
        number_of = {id(piece): number for number, piece in enumerate(pieces)}
        places = [[(number_of[id(piece)], start, end) for piece, start, end in one.candidates] for one in found.matches]
        self._remembered[key] = (found, places)
        self._remembered_chars += len(text)
        while self._remembered_chars > _REMEMBERED_CHARS and len(self._remembered) > 1:
            old, _ = self._remembered.popitem(last=False)
            self._remembered_chars -= len(old[0])
        return found

    def _candidates(
        self, node: int, found: list[int], at: tuple[int, int] | None = None, *, all_known: bool = True
    ) -> None:
        info = {"candidate_count": len(found)} | ({} if all_known else {"at_least": True})
        for one in found[:20]:
            self.rows.edge(node, one, CANDIDATE, Evidence.CONTENT, at=at, info=info)

    def _short(self, scope: RunScope, node: int, text: str) -> None:
        """A short text that equals a retrieved one."""
        near = scope.pieces.near(text).pieces
        found = list(dict.fromkeys(int(str(one.key)) for one in near if one.short_ok and one.text == text))
        if len(found) > 1:
            self._candidates(node, found, (0, len(text)))
        elif found:
            self.rows.edge(node, found[0], Relation.CONTAINS, Evidence.CONTAINED, at=(0, len(text)))

    def _template(self, scope: RunScope, node: int, slot: Slot) -> None:
        if slot.digest in scope.literals:
            return
        pieces: list[Piece] = []
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


def _decided(match: Match, text: str, pieces: Sequence[Piece]) -> Match:
    """Of pieces that explain a stretch, those that stand there whole come before those that stand in `text` in part only.

    A piece in part that shares one letter at most beyond a whole one, and that apart from it, such as the blank line after
    a paragraph that two documents begin with and the letter that the next begins with, says no more than the whole one.
    """
    candidates = match.candidates
    if not match.whole:
        stretch, rank = text[match.start : match.end], candidates[0][0].rank
        lengths = range(max(MINIMUM, len(stretch) - MINIMUM), len(stretch))
        inside = [one for one in pieces if one.rank == rank and len(one.text) in lengths and one.text in stretch]
        if not inside:
            return match
        whole = max(inside, key=lambda one: len(one.text)).text
        before, _, after = stretch.partition(whole)
        if len(ANY_TELLING.findall(before + after)) > 1 or before[-1:].isalnum() or after[:1].isalnum():
            return match  # such as room 12, of which another document says that it is room 1
        size = len(whole)
        candidates = tuple((one, start + len(before), start + len(before) + size) for one, start, _ in candidates)
        candidates += tuple((one, 0, size) for one in inside if one.text == whole)
        match = Match(match.start + len(before), match.end - len(after), candidates, match.short, True)
    if len(candidates) > 1:
        firm = [one for one in candidates if one[2] - one[1] == len(one[0].text) or one[0].text in text]
        match = replace(match, candidates=tuple(firm))
    return match


def _causes(match: Match, own: list[int], rows: set[int]) -> dict[int, tuple[int, int]]:
    """The nodes that explain a stretch, each with its range.

    Of templates that share one, that which is `own`; of a row and a document that is its very text, the document.
    """
    causes: dict[int, tuple[int, int]] = {}
    texts = {piece.text for piece, _, _ in match.candidates if piece.key not in rows} if rows else ()
    for piece, start, end in match.candidates:
        if isinstance(piece.key, int) and not (piece.text in texts and piece.key in rows):
            causes.setdefault(piece.key, (start, end))
    if len(causes) > 1:
        causes = {node: at for node, at in causes.items() if node in own} or causes
    return causes
