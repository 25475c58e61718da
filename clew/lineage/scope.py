"""What a run has seen so far, for telling where a value came from.

A scope belongs to one tree of runs (a run and the runs inside it). A lookup goes from the run to its session's earlier
runs and to the process run; never to another session.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from clew.lineage.piece import Near, Piece, Pieces

ASKED = frozenset(("tool", "retriever", "reranker"))  # kinds of spans that answer what they are asked
ENCLOSING = frozenset(("workflow", "node", "agent", "step", "tool", "pipeline"))
BOUNDARIES = frozenset(("llm", "tool", "retriever", "reranker"))


class SeenSpan:
    """A span as the indexer remembers it while its run is open."""

    __slots__ = (
        "channels",
        "function",
        "given",
        "kind",
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

    def __init__(self, run: int, session: str | None, process: RunScope | None) -> None:
        self.run = run
        self.session = session
        self.process = process
        self.around: tuple[RunScope, ...] = (self,) if process is None else (self, process)  # where to look, in order
        self.spans: dict[bytes, SeenSpan] = {}
        self.texts: dict[bytes, Makers] = {}  # text -> who made it
        self.items: dict[bytes, int] = {}  # message or value digest -> node
        self.lists: dict[bytes, int] = {}  # chain digest -> list node
        self.message_ids: dict[str, int] = {}
        self.tool_calls: dict[str, int] = {}  # tool call id -> message that asked
        self.tool_results: dict[str, int] = {}  # tool call id -> result
        self.writes: dict[str, list[tuple[int, bytes]]] = {}  # channel -> node, digest
        self.writers: dict[int, SeenSpan] = {}  # node of a write -> who wrote it
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

    def find_item(self, digest: bytes) -> int | None:
        """The node of a message or value with this digest."""
        for scope in self.around:
            if digest in scope.items:
                return scope.items[digest]
        return None

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

    def is_made(self, text: bytes, node: int) -> bool:
        """Whether `node` is known to be this text."""
        return text in self.texts and node in self.texts[text]

    def has_source(self, document: object) -> bool:
        """Whether this is a document, or row, that something brought: a retrieval, or who called the program."""
        return any(document in scope.sources for scope in self.around)

    def add_source(self, document: int, text: str, *, short_ok: bool = False) -> None:
        """A document, or a row, can be found from now on."""
        self.sources.add(document)
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
                return self.read(text, makers.near(near), near)
        return []

    def read(self, text: bytes, found: list[int], span: SeenSpan) -> list[int]:
        """Of several that made one text, those inside the nodes from whose writes `span` has it, if it read it so."""
        makers = self.texts.get(text) if len(found) > 1 else None
        if makers is not None:
            for around in (span, *span.ancestors()):
                writers = [self.writers.get(node) for node, digest in around.channels.values() if digest == text]
                written = {node for writer in writers if writer is not None for node in makers.inside(writer)}
                if kept := [node for node in found if node in written]:
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
