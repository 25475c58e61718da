"""Index versions: what a vector store holds, as one digest, and the files it is saved to.

`STORES` says how each store we know is saved, loaded and enumerated. Any other is *observed*: its index is its
connection, without secrets, and the digest of the writes that were seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from langchain_core.documents import Document

from clew.integrations.langchain import document as _document  # noqa: F401 - documents become items
from clew.integrations.langchain.attachment import Attachments
from clew.integrations.langchain.space import class_name, fields_of, is_secret, space_of
from clew.store.digest import Digest, DigestStream, Domain, digest
from clew.store.encoding import qualified_name
from clew.store.identifier import is_made_anew
from clew.store.record import Artifact, Derivation
from clew.tracer.capture import Batch, Given
from clew.tracer.init import Tracer
from clew.tracer.span import OpenSpan

Pair = tuple[bytes, bytes, int | None, int | None]

_PIECE_BYTES = 1 << 20
_USER_INFO = re.compile(r"//[^/@\s]*@")


class Store(NamedTuple):
    """How a class of vector stores is saved, loaded and enumerated.

    `files(path, index_name)` are the files of a save; `entries(store)` yields the documents as they stand in the index,
    with the ids they have there; `size(store)` counts them cheaply.
    """

    save: str
    load: str
    files: Callable[[str, str], list[str]]
    entries: Callable[[Any], Iterable[Document]]
    size: Callable[[Any], int]


def _in_memory_entries(store: Any) -> Iterator[Document]:
    for name, entry in list(store.store.items()):
        yield Document(page_content=entry["text"], metadata=entry["metadata"], id=name)


def _faiss_entries(store: Any) -> Iterator[Document]:
    for name in list(store.index_to_docstore_id.values()):
        found = store.docstore.search(name)
        if isinstance(found, Document):
            yield found if found.id == name else found.model_copy(update={"id": name})


STORES: dict[str, Store] = {
    "langchain_core.vectorstores.in_memory.InMemoryVectorStore": Store(
        "dump", "load", lambda path, name: [path], _in_memory_entries, lambda store: len(store.store)
    ),
    "langchain_community.vectorstores.faiss.FAISS": Store(
        "save_local",
        "load_local",
        lambda path, name: [os.path.join(path, f"{name}.faiss"), os.path.join(path, f"{name}.pkl")],
        _faiss_entries,
        lambda store: len(store.index_to_docstore_id),
    ),
}


def store_of(cls: type) -> Store | None:
    """How a class's instances are saved and enumerated; None where clew does not know it."""
    return next((STORES[name] for one in cls.__mro__ if (name := qualified_name(one)) in STORES), None)


class Version(NamedTuple):
    """One version of an index."""

    digest: Digest
    name: str
    size: int

    @property
    def slot(self) -> Given:
        """The slot that names it."""
        return ("index", "index", (Domain.VALUE, self.digest), self.name)


class _Known:
    """What is known of one store object. `version` and `files` hold until the next write."""

    __slots__ = ("files", "size", "version", "writes")

    def __init__(self) -> None:
        self.version: Version | None = None
        self.files: list[Given] = []
        self.size = -1  # how many entries there were when the files were loaded
        self.writes = digest(Domain.TREE, b"")


_known: Attachments[_Known] = Attachments(_Known)


def wrote(store: object, what: bytes) -> None:
    """The store was written to: its version has to be made again. `what` names the write."""
    known = _known.of(store)
    known.version, known.files = None, []
    known.writes = digest(Domain.TREE, bytes(known.writes) + what)


def loaded(store: object, files: list[Given]) -> None:
    """The store was read from these files."""
    known = _known.of(store)
    known.version, known.files = None, files
    table = store_of(type(store))
    known.size = table.size(store) if table is not None else -1


def settled(entry: Document) -> Document:
    """A document as a write names it: without an id that was made anew, of which another run has another one."""
    return entry.model_copy(update={"id": None}) if is_made_anew(entry.id) else entry


def slots(tracer: Tracer, store: object, span: OpenSpan | None) -> list[Given]:
    """The slots that name the index as it stands: its files while it is what was loaded, else its version."""
    known = _known.of(store)
    if known.files:
        table = store_of(type(store))
        if table is None or table.size(store) == known.size:
            return known.files
    return [version(tracer, store, span).slot]


def version(tracer: Tracer, store: object, span: OpenSpan | None) -> Version:
    """The version of the index as it stands, made only if something was written since the last was.

    Making it writes the manifest, the facts of the index and, for `span`, that each entry is part of it.
    """
    known = _known.of(store)
    table = store_of(type(store))
    found = known.version
    if found is None or (table is not None and table.size(store) != found.size):
        made = _enumerated(tracer, store, table, span) if table is not None else _observed(tracer, store, known.writes)
        found = known.version = made
    return found


def file_slots(paths: Iterable[str]) -> list[Given]:
    """A slot for each file that exists, named by the digest of its bytes."""
    return [("file", "file", (Domain.BYTES, _file_digest(path)), path) for path in paths if os.path.isfile(path)]


def index_name(store: object) -> str:
    """The name a store gives its index, else its class's."""
    for name in ("collection_name", "_collection_name", "index_name", "_index_name", "table_name"):
        value = getattr(store, name, None)
        if isinstance(value, str) and value:
            return value
    return type(store).__name__


def embeddings_of(store: object) -> Any:
    """The embeddings object of a store, where it shows one."""
    for name in ("embeddings", "embedding", "_embedding", "embedding_function", "_embedding_function"):
        value = getattr(store, name, None)
        if value is not None and (hasattr(value, "embed_query") or hasattr(value, "embed_documents")):
            return value
    return None


def _enumerated(tracer: Tracer, store: object, table: Store, span: OpenSpan | None) -> Version:
    held = list(table.entries(store))
    batch = Batch(tracer.gate)
    members = [bytes(batch.part(entry)[1]) for entry in held]
    batch.commit()
    batch = Batch(tracer.gate)  # to which these are known
    embeddings = embeddings_of(store)
    space = None if embeddings is None else batch.part(space_of(embeddings))[1]
    entries = _entries(batch, held)
    domain, name = batch.part({"entries": entries, "space": None if space is None else bytes(space)})
    title = index_name(store)
    run = span.run if span is not None else tracer.process_run
    facts = {"entries": len(entries), "space": None if space is None else space.hex(), "name": title}
    batch.record(Artifact("index", int(domain), name, run.run_id, title, facts))
    if span is not None and members:
        pairs: list[Pair] = [(member, bytes(name), None, None) for member in members]
        batch.record(Derivation(span.trace_id, span.span_id, "part_of", "document", "index", pairs, run.run_id))
    batch.commit()
    return Version(name, title, table.size(store))


def _entries(batch: Batch, held: list[Document]) -> list[Any]:
    """What a version says of its documents: id and text, by their ids; where ids were made anew, and so their order, the
    documents as they stand in the index, of which whoever compares two versions can leave the ids out."""
    if any(is_made_anew(entry.id) for entry in held):
        return list(held)
    return sorted(([entry.id, batch.text(entry.page_content)] for entry in held), key=lambda one: (str(one[0]), one[1]))


def _observed(tracer: Tracer, store: object, writes: bytes) -> Version:
    batch = Batch(tracer.gate)
    connection = {
        name.lstrip("_"): _USER_INFO.sub("//", value) if isinstance(value, str) else value
        for name, value in fields_of(store).items()
        if isinstance(value, (str, int, float)) and not is_secret(name)
    }
    about = {"class": class_name(type(store)), "connection": connection, "writes": bytes(writes)}
    domain, name = batch.part(about)
    title = index_name(store)
    batch.record(Artifact("index", int(domain), name, tracer.process_id, title, {"name": title, "observed": True}))
    batch.commit()
    return Version(name, title, -1)


def _file_digest(path: str) -> Digest:
    stream = DigestStream(Domain.BYTES)
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            stream.update(piece)
    return stream.digest()
