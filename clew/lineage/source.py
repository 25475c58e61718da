"""Sources: datasets and their rows, documents, and the literal text of the program's code.

A document is its text, metadata and id together (its full digest); that its text is also a row's field, or another
document's, is found through `leaf`, whichever was indexed first. A document that a process met and that no declared
derivation explains is searched for the rows that the same process declared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from clew.lineage.candidate import identities, scalars
from clew.lineage.constant import Constants
from clew.lineage.containment import Attribution, attribute
from clew.lineage.piece import Piece, PieceIndex
from clew.lineage.rows import Rows
from clew.store.catalog import CANDIDATE, GLOBAL, Evidence, Relation
from clew.store.decoding import Code, Reference
from clew.store.digest import TEXT, VALUE, Digest, text_digest
from clew.store.errors import ClewError
from clew.store.record import Artifact, Derivation
from clew.store.store import Store

if TYPE_CHECKING:
    from clew.lineage.scope import RunScope

MINIMUM = 32
_AHEAD = 1024  # rows that are looked up at once
Reader = Callable[[bytes], Any]


class Dataset:
    """A dataset version that a process declared, as rows to search in."""

    def __init__(
        self,
        name: str | None,
        rows: list[tuple[int, dict[str, Any]]],
        key: str | None,
        digests: Iterable[bytes] = (),
    ) -> None:
        self.name = name
        self.key = key
        self.by_digest = {bytes(digest): row for digest, (row, _) in zip(digests, rows, strict=False)}
        self.by_node: dict[int, dict[str, Any]] = {}
        self.by_text: dict[bytes, list[int]] = {}
        self._index: PieceIndex | None = None
        for row, fields in rows:
            self.by_node.setdefault(row, fields)
            for value in fields.values():
                if isinstance(value, str) and len(value) >= MINIMUM:
                    self.by_text.setdefault(text_digest(value), []).append(row)

    def candidates(self, text: str) -> list[Piece]:
        """Fields of rows that the text may hold."""
        if self._index is None:
            self._index = PieceIndex(minimum=MINIMUM // 2)  # which surely finds MINIMUM - 1 shared characters
            for row, fields in self.by_node.items():
                for value in fields.values():
                    if isinstance(value, str) and len(value) >= MINIMUM:
                        self._index.add(Piece(row, value))
        return self._index.candidates(text)

    def names(self, row: int) -> set[str]:
        """What a document can name the row by: its key where one is declared, else any field."""
        fields = self.by_node.get(row, {})
        return scalars({self.key: fields.get(self.key)} if self.key else fields)


def narrow(rows: list[int], datasets: list[Dataset], text: str, identity: list[str]) -> list[int]:
    """Of rows that explain a text equally: those that the document names, else those that explain more of it with
    their other fields, else those of their dataset's newest version."""
    for name in identity:
        if len(rows) > 1:
            agreeing = [row for row in rows if any(name in dataset.names(row) for dataset in datasets)]
            rows = agreeing or rows
    if len(rows) > 1:
        covered = {row: max(_covered(dataset.by_node.get(row, {}), text) for dataset in datasets) for row in rows}
        most = max(covered.values())
        rows = [row for row in rows if covered[row] == most]
    if len(rows) > 1:
        newest = {dataset.name: dataset for dataset in datasets}.values()
        rows = [row for row in rows if any(row in dataset.by_node for dataset in newest)] or rows
    return rows


def _covered(fields: dict[str, Any], text: str) -> int:
    return sum(len(value) for value in fields.values() if isinstance(value, str) and len(value) > 2 and value in text)


class Sources:
    """Registers sources in the catalog as the indexer meets them."""

    def __init__(self, store: Store, rows: Rows) -> None:
        self.store = store
        self.rows = rows
        self._texts: dict[int, str | None] = {}
        self.constants = Constants(store)
        self.code: dict[int, bytes] = {}  # run number of a process run -> code digest

    def forget(self) -> None:
        """What is remembered of nodes may be stale."""
        self._texts.clear()
        self.code.clear()

    # -- datasets

    def dataset(self, scope: RunScope, record: Artifact) -> None:
        """A dataset version was declared: its rows become members, their texts leaves."""
        rows = self.rows
        node, new = rows.node(
            record.digest, GLOBAL, "dataset", domain=record.domain, name=record.name, detail=record.detail
        )
        if not new:
            rows.name_node(node, record.name, record.detail)
        key = record.detail.get("key")
        members: list[tuple[int, dict[str, Any]]] = []
        leaves = self._leaves(record)
        digests = self._row_digests(record.digest)
        for position, digest in enumerate(digests):
            if position % _AHEAD == 0:
                self._expect(digests[position : position + _AHEAD], content=leaves is None)
            row, fresh = rows.node(digest, GLOBAL, "row", domain=int(VALUE))
            if new:
                rows.members.append((node, position, row))
            fields = self._fields(digest) if leaves is None else {}
            members.append((row, fields))
            if fresh:
                texts = (
                    [text_digest(value) for value in fields.values() if isinstance(value, str) and value]
                    if leaves is None
                    else leaves[position]
                )
                rows.leaves.update((bytes(text), row) for text in texts)
        (scope.process or scope).datasets.append(Dataset(record.name, members, key, digests))

    def _expect(self, digests: list[bytes], *, content: bool) -> None:
        """Look up many rows at once, before they are asked for one by one."""
        self.rows.know_nodes(digests)
        if content and self.rows.connection is not None:
            self.store.gather(digests, self.rows.connection)

    def _row_digests(self, root: bytes) -> list[bytes]:
        pages = self.store.blob(root, self.rows.connection)[1]
        digests: list[bytes] = []
        for start in range(0, len(pages), 32):
            page = self.store.blob(pages[start : start + 32], self.rows.connection)[1]
            digests.extend(page[at : at + 32] for at in range(0, len(page), 32))
        return digests

    def _leaves(self, record: Artifact) -> list[list[bytes]] | None:
        manifest = record.detail.get("leaves")
        if not manifest:
            return None
        found: list[list[bytes]] = self.store.value(int(VALUE), manifest, self.rows.connection)
        return found

    def _fields(self, digest: bytes) -> dict[str, Any]:
        try:
            value = self.store.value(int(VALUE), digest, self.rows.connection)
        except ClewError:
            return {}
        return value if isinstance(value, dict) else {"value": value}

    # -- documents

    def document(
        self, scope: RunScope, item: Digest, kind: str, read_item: Reader, read_text: Reader
    ) -> tuple[int, str | None]:
        """The node and text of a document; registered, and its sources searched, when it is met first."""
        node, new = self.rows.node(item, GLOBAL, kind, domain=int(VALUE))
        if not new and node in self._texts:
            return node, self._texts[node]
        fields = read_item(item) or {}
        text = fields.get("text")
        text_name = None
        if isinstance(text, Reference) and text.code == Code.TEXT:
            text_name, text = text.digest, read_text(text.digest)
        elif isinstance(text, str):
            text_name = text_digest(text)
        if len(self._texts) > 100_000:
            self._texts.clear()
        self._texts[node] = text
        if new:
            if text_name is not None:
                self.rows.leaves.add((bytes(text_name), node))
            identity = fields.get("id")
            if isinstance(identity, str) and identity:
                self.rows.name_node(node, None, {"id": identity})
            if text and not scope.is_derived(item):
                self._search_rows(scope, node, text, fields)
        return node, text

    def text_node(
        self, scope: RunScope, kind: str, digest: Digest, read_text: Reader, text: str | None = None
    ) -> tuple[int, str | None]:
        """The node of a bare text that is a document or chunk."""
        node, new = self.rows.node(digest, GLOBAL, kind, domain=int(TEXT))
        text = text if text is not None else read_text(digest)
        if new:
            self.rows.leaves.add((bytes(digest), node))
            if text and len(text) >= MINIMUM:
                self._search_rows(scope, node, text, {})
        return node, text

    def _search_rows(self, scope: RunScope, node: int, text: str, fields: dict[str, Any]) -> None:
        datasets: list[Dataset] = (scope.process or scope).datasets
        identity = identities(fields)
        name = text_digest(text)
        equal = list(dict.fromkeys(row for dataset in datasets for row in dataset.by_text.get(name, ())))
        if equal:
            narrowed = narrow(equal, datasets, text, identity)
            if len(narrowed) == 1:  # else the index that answers may tell them apart: see `candidate`
                self._connect(node, narrowed, Relation.DERIVED, Evidence.CONTENT)
            return
        pieces = [piece for dataset in datasets for piece in dataset.candidates(text)]
        for match in attribute(text, pieces).matches if pieces else ():
            by_row = {int(str(piece.key)): (start, end) for piece, start, end in match.candidates}
            narrowed = narrow(list(by_row), datasets, text, identity)
            at = (match.start, match.end)
            self._connect(node, narrowed, Relation.CONTAINS, Evidence.CONTAINED, at=at, sources=by_row)

    def _connect(
        self,
        node: int,
        found: list[int],
        relation: Relation,
        evidence: Evidence,
        *,
        at: tuple[int, int] | None = None,
        sources: dict[int, tuple[int, int]] | None = None,
    ) -> None:
        if len(found) == 1:
            self.rows.edge(node, found[0], relation, evidence, at=at, source=(sources or {}).get(found[0]))
            return
        for one in found[:20]:
            self.rows.edge(node, one, CANDIDATE, evidence, at=at, info={"candidate_count": len(found)})

    def derivation(self, scope: RunScope, record: Derivation) -> None:
        """Item-to-item lineage that was declared."""
        relation = Relation.PART if record.relation == "part_of" else Relation.DERIVED
        self.rows.know_nodes([name for effect, cause, _, _ in record.pairs for name in (effect, cause)])
        for effect, cause, start, end in record.pairs:
            src, _ = self.rows.node(effect, GLOBAL, record.from_kind)
            dst, _ = self.rows.node(cause, GLOBAL, record.to_kind)
            source = (start, end) if start is not None and end is not None else None
            self.rows.edge(src, dst, relation, source=source)
            if relation is Relation.DERIVED:
                scope.derived.add(bytes(effect))

    # -- literal text of the code

    def in_code(self, scope: RunScope, text: str) -> Attribution:
        """What of a text stands in the source files of the process's program."""
        code = self.code.get((scope.process or scope).run)
        return self.constants.attributed(code, text) if code is not None else attribute(text, [])

    def facet(self, process_run: int, code: bytes | None) -> None:
        """The code of a process became known."""
        if code:
            self.code[process_run] = code
