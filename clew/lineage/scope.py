"""What a run has seen so far, for telling where a value came from.

A scope belongs to one tree of runs (a run and the runs inside it). A lookup goes from the run to its session's earlier
runs and to the process run; never to another session.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import count
from operator import attrgetter
from typing import Any, ClassVar

from clew.lineage.piece import Near, Piece, Pieces

ASKED = frozenset(("tool", "retriever", "reranker"))  # kinds of spans that answer what they are asked
ENCLOSING = frozenset(("workflow", "node", "agent", "step", "tool", "pipeline"))
_tick = attrgetter("tick")
BOUNDARIES = frozenset(("llm", "tool", "retriever", "reranker"))


class SeenSpan:
    """A span as the indexer remembers it while its run is open."""

    __slots__ = (
        "channels",
        "function",
        "given",
        "kind",
        "listed",
        "made",
        "name",
        "node",
        "parent",
        "run",
        "used_nodes",
        "variables",
        "worked_on",
    )

    def __init__(self, node: int, kind: str, name: str, parent: SeenSpan | None, run: int, function: bool) -> None:
        self.node = node
        self.kind = kind
        self.name = name
        self.parent = parent
        self.run = run
        self.function = function  # a traced function: what happens inside works on its arguments
        self.given: list[int] = []  # of a traced function: its arguments, and what they hold
        self.worked_on: list[int] = []  # arguments of a traced tool that are no question to it
        self.made: list[tuple[int, bytes | None]] = []  # outputs of boundaries inside: node, text digest
        self.channels: dict[str, tuple[int, bytes]] = {}  # channel -> node, digest as read
        self.listed: set[bytes] = set()  # texts in the lists that were read
        self.used_nodes: list[int] = []
        self.variables: list[Piece] = []  # of a prompt: what was put into the template

    @property
    def encloses(self) -> bool:
        """Whether code of the user's runs inside that can rework what it was given."""
        return self.kind in ENCLOSING or self.function

    def enclosing(self) -> SeenSpan | None:
        """The nearest span around this one in which the user's code runs."""
        around = self.parent
        while around is not None and not around.encloses:
            around = around.parent
        return around

    def ancestors(self) -> Iterator[SeenSpan]:
        """The spans around this one, innermost first."""
        around = self.parent
        while around is not None:
            yield around
            around = around.parent


class Makers:
    """Who made one text."""

    __slots__ = ("_made", "_within", "nodes")

    def __init__(self) -> None:
        self.nodes: list[int] = []
        self._made: dict[int, SeenSpan | None] = {}
        self._within: dict[int, list[int]] | None = None  # span -> those inside it; made when it is first asked for

    def add(self, node: int, span: SeenSpan | None) -> None:
        """`node` is this text, and was made in `span`."""
        if node not in self._made:
            self._made[node] = span
            self.nodes.append(node)
            if self._within is not None:
                self._place(node, span)

    def __contains__(self, node: int) -> bool:
        return node in self._made

    def near(self, span: SeenSpan) -> list[int]:
        """Those made inside the innermost span around `span` that holds any; else all."""
        if len(self.nodes) > 1:
            for around in (span, *span.ancestors()):
                if inside := self.inside(around):
                    return inside
        return self.nodes

    def inside(self, span: SeenSpan) -> list[int]:
        """Those made inside `span`."""
        if self._within is None:
            self._within = {}
            for node, made_in in self._made.items():
                self._place(node, made_in)
        return self._within.get(span.node, [])

    def _place(self, node: int, span: SeenSpan | None) -> None:
        assert self._within is not None
        if span is not None:
            for around in (span, *span.ancestors()):
                self._within.setdefault(around.node, []).append(node)


class RunScope:
    """One tree of runs."""

    _ticks: ClassVar[Iterator[int]] = count(1)  # tells what was before what, in any scope

    def __init__(self, run: int, session: str | None, process: RunScope | None) -> None:
        self.run = run
        self.session = session
        self.process = process
        self.around: tuple[RunScope, ...] = (self,) if process is None else (self, process)  # where to look, in order
        self.spans: dict[bytes, SeenSpan] = {}
        self.texts: dict[bytes, Makers] = {}  # text -> who made it
        self.items: dict[bytes, int] = {}  # message or value digest -> node
        self.again: dict[bytes, Makers] = {}  # the same of those that were met as several nodes
        self.lists: dict[bytes, int] = {}  # chain digest -> list node
        self.listed: dict[int, dict[bytes, int]] = {}  # list node -> its own messages and texts -> their nodes
        self.met_at: dict[int, tuple[SeenSpan, int]] = {}  # node -> where and when it was looked for
        self.said: dict[int, bytes] = {}  # message node -> digest of its text
        self.tick = 0  # when something was made last
        self.born: dict[int, int] = {}  # node -> since when it can be found
        self.brought: dict[int, int] = {}  # document -> when it was retrieved last
        self.message_ids: dict[str, int] = {}
        self.tool_calls: dict[str, int] = {}  # tool call id -> message that asked
        self.tool_results: dict[str, int] = {}  # tool call id -> result
        self.writes: dict[str, list[tuple[int, bytes]]] = {}  # channel -> node, digest
        self.meant: dict[int, tuple[int, ...]] = {}  # node of a written text -> who had made it
        self.pieces = Pieces()  # retrieved, produced, given
        self.sources: set[int] = set()  # of these, the documents and rows
        self.rows: set[int] = set()  # rows that were met as such
        self.reworked = Pieces()  # texts the program made itself
        self.literals: dict[bytes, list[Piece]] = {}  # template digest -> its literal parts
        self.retrievals: dict[int, list[int]] = {}  # document node -> retrievals that brought it
        self.answer: list[int] = []
        self.child_answer: list[int] = []
        self.last_response: list[int] = []
        self.derived: set[bytes] = set()  # documents whose source was declared
        self.datasets: list[Any] = []  # datasets declared here (only of a process run)

    def follows(self, earlier: list[RunScope]) -> None:
        """Look in the session's runs before this one too, given oldest first: here, then there, then in the process."""
        self.around = (self, *reversed(earlier), *self.around[1:])

    def let_go(self) -> None:
        """Nobody looks here again: without the circle through `around`, what was seen needs no garbage collector."""
        self.around = ()

    def find_item(self, digest: bytes, near: SeenSpan | None = None) -> int | None:
        """The node of a message or value with this digest: of several the last that was met nearest around `near`."""
        for scope in self.around:
            if digest in scope.items:
                if near is not None and scope is self and digest in self.again:
                    return self.again[digest].near(near)[-1]
                return scope.items[digest]
        return None

    def is_doubtful(self, digest: bytes, near: SeenSpan) -> bool:
        """Whether several nodes with this digest are equally near."""
        return digest in self.again and len(self.again[digest].near(near)) > 1

    def met(self, digest: bytes, node: int, span: SeenSpan | None) -> None:
        """A message or value was looked for, or made, as `node`."""
        before = self.items.get(digest)
        self.items[digest] = node
        if span is not None:
            self.met_at.setdefault(node, (span, self.newest()))
        if before is not None and before != node:
            if digest not in self.again:
                self.again[digest] = Makers()
                self.again[digest].add(before, self.met_at[before][0] if before in self.met_at else None)
            self.again[digest].add(node, span)

    def when_met(self, node: int) -> tuple[SeenSpan, int] | None:
        """Where and when a node was looked for."""
        return next((scope.met_at[node] for scope in self.around if node in scope.met_at), None)

    def newest(self) -> int:
        """When something was made last that can be found from here."""
        latest: int = max(map(_tick, self.around))
        return latest

    def since(self, node: int) -> int:
        """Since when a node can be found."""
        return min((scope.born[node] for scope in self.around if node in scope.born), default=0)

    def has_brought(self, node: int, since: int) -> bool:
        """Whether a retrieval brought this document after `since`."""
        return any(scope.brought.get(node, 0) > since for scope in self.around)

    def bring(self, document: int, retrieval: int) -> None:
        """A retrieval brought a document."""
        self.retrievals.setdefault(document, []).append(retrieval)
        self.tick = self.brought[document] = next(self._ticks)

    def says(self, node: int, text: bytes) -> bool:
        """Whether a message has this text, as far as is known."""
        return next((scope.said[node] for scope in self.around if node in scope.said), text) == text

    def _bear(self, node: int) -> None:
        if node not in self.born:
            self.tick = self.born[node] = next(self._ticks)

    def find_list(self, digest: bytes) -> int | None:
        """The node of a list with this digest."""
        for scope in self.around:
            if digest in scope.lists:
                return scope.lists[digest]
        return None

    def find(self, table: str, key: str) -> int | None:
        """The node registered under a name (a message id, a tool call id)."""
        for scope in self.around:
            node = getattr(scope, table).get(key)
            if node is not None:
                return int(node)
        return None

    def made(self, text: bytes, node: int, span: SeenSpan | None) -> None:
        """`node` is this text, made in `span`."""
        makers = self.texts.get(text)
        if makers is None:
            makers = self.texts[text] = Makers()
        makers.add(node, span)
        self._bear(node)

    def is_made(self, text: bytes, node: int) -> bool:
        """Whether `node` is known to be this text."""
        return text in self.texts and node in self.texts[text]

    def has_source(self, document: object) -> bool:
        """Whether this is a document, or row, that something brought: a retrieval, or who called the program."""
        return any(document in scope.sources for scope in self.around)

    def add_source(self, document: int, text: str, *, short_ok: bool = False) -> None:
        """A document, or a row, can be found from now on."""
        self.sources.add(document)
        self._bear(document)
        self.pieces.add(Piece(document, text, short_ok=short_ok))

    def is_derived(self, document: bytes) -> bool:
        """Whether the source of the document with this digest was declared."""
        return document in self.derived or (self.process is not None and document in self.process.derived)

    def producers(self, text: bytes, near: SeenSpan | None) -> list[int]:
        """Who produced this very text: those nearest around `near`, else all in the nearest scope. Not to be changed.

        Nearest is first what was made inside the same enclosing span, outwards, then the run, then the session.
        """
        for scope in self.around:
            if text in scope.texts:
                makers = scope.texts[text]
                if near is None or scope is not self:
                    return makers.nodes
                return self._as_read(text, makers.near(near), near)
        return []

    def read(self, text: bytes, found: Collection[int], span: SeenSpan) -> list[int]:
        """Of several that are one text, those in the nearest scope, and there those that were made nearest.

        Where `span`, or one around it, read that text from a state, it is those that the writer had it from, if
        all that was read and holds it agrees.
        """
        found = list(found)
        if len(found) < 2:
            return found
        for scope in self.around:
            makers = scope.texts.get(text)
            inside = [one for one in found if one in scope.retrievals or (makers is not None and one in makers)]
            if inside:
                found = inside
                break
        makers = self.texts.get(text) if len(found) > 1 else None
        if makers is None:
            return found
        for around in (span, *span.ancestors()):
            if near := set(makers.inside(around)).intersection(found):
                found = [one for one in found if one in near]
                break
        return self._as_read(text, found, span)

    def _as_read(self, text: bytes, found: list[int], span: SeenSpan) -> list[int]:
        """Of several equally near, those that the writer of a state had the text from: see `read`."""
        for around in (span, *span.ancestors()) if len(found) > 1 else ():
            if text in around.listed:
                return found  # a list that was read holds it too
            if not around.channels:
                continue
            meant = {self.meant.get(node, ()) for node, digest in around.channels.values() if digest == text}
            if len(meant) > 1:
                return found  # channels that hold it had it from different makers
            if kept := [one for one in found if any(one in makers for makers in meant)]:
                return kept
        return found

    def pieces_of(self, keys: Iterable[int]) -> Near:
        """What nodes are as pieces, and the literal parts of templates."""
        pieces = [
            piece
            for key in dict.fromkeys(keys)
            for scope in self.around
            for piece in (*scope.pieces.of(key), *scope.reworked.of(key))
        ]
        for literals in self.literals.values():
            pieces.extend(literals)
        return Near(pieces, True)

    def pieces_in(self, text: str) -> Near:
        """What `text` may hold a piece of, nearest scope first."""
        pieces: list[Piece] = []
        complete = True
        for scope in self.around:
            near = scope.pieces.near(text)
            pieces.extend(near.pieces)
            complete = complete and near.all
        for literals in self.literals.values():
            pieces.extend(literals)
        if self.process is not None and self.process is not self:
            for literals in self.process.literals.values():
                pieces.extend(literals)
        near = self.reworked.near(text)
        pieces.extend(near.pieces)
        return Near(pieces, complete and near.all)
