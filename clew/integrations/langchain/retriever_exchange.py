"""What a call of a retriever asks, as data."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any, NamedTuple

from langchain_core.documents import Document
from langchain_core.vectorstores.base import VectorStoreRetriever

from clew.integrations.langchain import answer as _answer  # noqa: F401 - LangChain's classes become answers
from clew.integrations.langchain.index import store_of
from clew.integrations.langchain.transport import unread
from clew.integrations.langchain.vectors import vectors_of
from clew.replay.answer import register_answer
from clew.replay.code.witness import Witness, Witnessed
from clew.replay.identity import identity
from clew.replay.key import Remembered, plain_part
from clew.replay.value_exchange import ValueExchange
from clew.store.encoding import qualified_name
from clew.store.errors import Unkeyable, Unstorable

_TRACED = ("callbacks", "tags", "metadata", "name")
# Which name no document.
_MEASURES = frozenset(("query", "embedding", "k", "fetch_k", "lambda_mult", "score_threshold"))
_SEEN = 1000  # documents: to look at more takes as long as to tell them
_CONTENT = ("store", "index", "docstore", "index_to_docstore_id")
_DOCSTORE = "langchain_community.docstore.in_memory.InMemoryDocstore"

with contextlib.suppress(ImportError):
    import numpy as np

    register_answer(np.float64, float, np.float64)  # a score
    register_answer(np.float32, float, np.float32)


class _Held(NamedTuple):
    """What a vector store holds: as it is told, and the ids that its documents have there, in their order."""

    told: Remembered
    ids: list[Any]


class _Search(ValueExchange):
    """Documents of a vector store, found by what they are: a store gives ids of its own to those that have none, so they
    are named by their place in it, unless the search may look at ids itself."""

    def __init__(self, operation: str, store: Any, *, renames: bool) -> None:
        super().__init__(operation)
        self._store = store
        self._renames = renames
        self._held: _Held | None = None  # when it was asked

    def state(self) -> Remembered:
        """What the store holds."""
        self._held = _stores[self._renames].of(self._store, _state, self._renames)
        return self._held.told

    def _ids(self) -> list[Any]:
        return [one.id for one in _entries(self._store)] if self._held is None else self._held.ids

    def dump(self, response: Any, chunks: list[tuple[int, Any]] | None) -> Any:
        if not self._renames:
            return super().dump(response, chunks)
        places = {name: f"#{at}" for at, name in enumerate(self._ids())}
        return super().dump(_named(response, places), chunks)

    def load(self, data: Any) -> Any:
        found = super().load(data)
        if not self._renames:
            return found
        return _named(found, {f"#{at}": name for at, name in enumerate(self._ids())})


def _entries(store: Any) -> list[Any]:
    table = store_of(type(store))
    if table is None:
        raise Unkeyable(f"what a {type(store).__qualname__} holds cannot be seen")
    return list(table.entries(store))


def _named(found: Any, names: dict[Any, Any]) -> Any:
    """Documents, or pairs of them and their scores, with the ids that these are called by. Raises Unstorable."""
    if isinstance(found, Document):
        if found.id not in names:
            raise Unstorable("a document that is not in the store")
        return found.model_copy(update={"id": names[found.id]})
    if type(found) in (list, tuple):
        return type(found)(_named(part, names) for part in found)
    return found


class RetrieverExchange(_Search):
    """A call of a retriever. `more` are its other arguments."""

    def __init__(self, retriever: Any, query: Any, more: dict[str, Any]) -> None:
        store = getattr(retriever, "vectorstore", None)
        alone = type(retriever) is VectorStoreRetriever and not more and _MEASURES.issuperset(retriever.search_kwargs)
        super().__init__("retrieve", store, renames=alone and store_of(type(store)) is not None)
        self._retriever = retriever
        self._query = query
        self._more = more

    def parts(self) -> dict[str, Any]:
        store = self._store
        traced = unread(_TRACED, type(self._retriever))
        without = [*traced, "vectorstore"] if store is not None else traced
        return {
            "retriever": _retrievers.of(self._retriever, _told, without),
            "store": None if store is None else self.state(),
            "query": plain_part(self._query),
            "more": plain_part(self._more),
        }

    def seen(self) -> dict[str, Any]:
        fields = {name: value for name, value in vars(self._retriever).items() if name not in _TRACED}
        return {"retriever": [type(self._retriever), fields], "query": self._query, "more": self._more}

    def made(self, value: Any, recorded: Any) -> Any:
        return [_document(one) for one in value]


def _document(value: Any) -> Document:
    if isinstance(value, Document):
        return value
    if isinstance(value, str):
        return Document(value)
    if not isinstance(value, dict) or not value.keys() <= {"text", "metadata", "id"} or "text" not in value:
        raise ValueError("a retriever answers with documents, texts, or dicts with text, metadata and id")
    return Document(value["text"], metadata=value.get("metadata") or {}, id=value.get("id"))


class SearchExchange(_Search):
    """A search of a vector store itself, without a retriever."""

    def __init__(self, store: Any, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        plain = len(args) <= 2 and _MEASURES.issuperset(kwargs) and store_of(type(store)) is not None
        super().__init__(operation, store, renames=plain)
        self._asked = {"args": list(args), **kwargs}

    def parts(self) -> dict[str, Any]:
        return {"store": self.state(), "asked": plain_part(self._asked)}

    def seen(self) -> dict[str, Any]:
        return {"store": self._store, "asked": self._asked}


def _told(retriever: Any, without: Collection[str], witness: Witness) -> Remembered:
    return Remembered(identity(retriever, without=without, witness=witness))


def _state(store: Any, renames: bool, witness: Witness) -> _Held:
    """All that a vector store holds, document by document: a version of the index says nothing of their metadata."""
    told = identity(store, without=_CONTENT, witness=witness)
    docstore = getattr(store, "docstore", None)
    if qualified_name(type(docstore)) == _DOCSTORE:
        _see_documents(getattr(store, "index_to_docstore_id", None), docstore, witness)
    else:
        _see_records(getattr(store, "store", None), witness)
    held = _entries(store)
    vectors = [None if docstore is None else _places(store), vectors_of(store, witness)]
    ids = [one.id for one in held]
    if renames:
        held = [one.model_copy(update={"id": f"#{at}"}) for at, one in enumerate(held)]
    return _Held(Remembered([told, vectors, [identity(document) for document in held]]), ids)


def _places(store: Any) -> Any:
    """Where in the index each document of FAISS has its vector, and whether it is there itself."""
    places = store.index_to_docstore_id.items()
    return identity([[place, isinstance(store.docstore.search(name), Document)] for place, name in places])


def _see_records(records: Any, witness: Witness) -> None:
    """What the documents are made of, where that is a dict of dicts; else it is read anew each time."""
    if type(records) is not dict or len(records) > _SEEN or any(type(one) is not dict for one in records.values()):
        witness.blind = True
        return
    witness.add_container(records)
    for record in records.values():
        witness.add_container(record)
        for name, value in record.items():
            if name != "vector":  # which is no part of a document: see vectors_of
                identity(value, witness=witness)


def _see_documents(names: Any, docstore: Any, witness: Witness) -> None:
    """The documents of FAISS, where they are in a dict; else they are read anew each time."""
    documents = vars(docstore).get("_dict")
    if type(names) is not dict or type(documents) is not dict or len(names) > _SEEN:
        witness.blind = True
        return
    witness.add_instance(docstore)
    witness.add_class(type(docstore))
    witness.add_container(names)
    witness.add_container(documents)
    for name in names.values():
        identity(documents.get(name), witness=witness)


_retrievers: Witnessed[Remembered] = Witnessed()
_stores: dict[bool, Witnessed[_Held]] = {renames: Witnessed() for renames in (False, True)}
