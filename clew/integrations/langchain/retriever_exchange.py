"""What a call of a retriever asks, as data."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

from langchain_core.documents import Document

from clew.integrations.langchain import answer as _answer  # noqa: F401 - LangChain's classes become answers
from clew.integrations.langchain.index import store_of
from clew.integrations.langchain.transport import unread
from clew.replay.code.witness import Witness, Witnessed
from clew.replay.identity import identity
from clew.replay.key import Remembered, plain_part
from clew.replay.value_exchange import ValueExchange
from clew.store.errors import Unkeyable

_TRACED = ("callbacks", "tags", "metadata", "name")
_SEEN = 1000  # documents: to look at more takes as long as to tell them
_CONTENT = ("store", "index", "docstore", "index_to_docstore_id")


class RetrieverExchange(ValueExchange):
    """A call of a retriever. `more` are its other arguments."""

    def __init__(self, retriever: Any, query: Any, more: dict[str, Any]) -> None:
        super().__init__("retrieve")
        self._retriever = retriever
        self._query = query
        self._more = more

    def parts(self) -> dict[str, Any]:
        store = getattr(self._retriever, "vectorstore", None)
        traced = unread(_TRACED, type(self._retriever))
        without = [*traced, "vectorstore"] if store is not None else traced
        return {
            "retriever": _retrievers.of(self._retriever, functools.partial(_told, self._retriever, without)),
            "store": None if store is None else _stores.of(store, functools.partial(_state, store)),
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


def _told(retriever: Any, without: Collection[str], witness: Witness) -> Remembered:
    return Remembered(identity(retriever, without=without, witness=witness))


def _state(store: Any, witness: Witness) -> Remembered:
    """All that a vector store holds, document by document: a version of the index says nothing of their metadata."""
    table = store_of(type(store))
    if table is None:
        raise Unkeyable(f"what a {type(store).__qualname__} holds cannot be seen")
    told = identity(store, without=_CONTENT, witness=witness)
    _see(getattr(store, "store", None), witness)
    return Remembered([told, [identity(document) for document in table.entries(store)]])


def _see(records: Any, witness: Witness) -> None:
    """What the documents are made of, where that is a dict of dicts; else it is read anew each time."""
    if type(records) is not dict or len(records) > _SEEN or any(type(one) is not dict for one in records.values()):
        witness.blind = True
        return
    witness.add_container(records)
    for record in records.values():
        witness.add_container(record)
        for name, value in record.items():
            if name != "vector":  # no part of a document
                identity(value, witness=witness)


_retrievers: Witnessed[Remembered] = Witnessed()
_stores: Witnessed[Remembered] = Witnessed()
