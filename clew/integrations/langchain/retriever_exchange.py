"""What a call of a retriever asks, as data."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document

from clew.integrations.langchain import answer as _answer  # noqa: F401 - LangChain's classes become answers
from clew.integrations.langchain.index import store_of
from clew.integrations.langchain.transport import unread
from clew.replay.identity import identity
from clew.replay.value_exchange import ValueExchange
from clew.store.errors import Unkeyable

_TRACED = ("callbacks", "tags", "metadata", "name")
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
        return {
            "retriever": identity(self._retriever, without=[*traced, "vectorstore"] if store is not None else traced),
            "store": None if store is None else _state(store),
            "query": identity(self._query),
            "more": identity(self._more),
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


class SearchExchange(ValueExchange):
    """A search of a vector store itself, without a retriever."""

    def __init__(self, store: Any, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(operation)
        self._store = store
        self._asked = {"args": list(args), **kwargs}

    def parts(self) -> dict[str, Any]:
        return {"store": _state(self._store), "asked": identity(self._asked)}

    def seen(self) -> dict[str, Any]:
        return {"store": self._store, "asked": self._asked}


def _state(store: Any) -> Any:
    """All that a vector store holds, document by document: a version of the index says nothing of their metadata."""
    table = store_of(type(store))
    if table is None:
        raise Unkeyable(f"what a {type(store).__qualname__} holds cannot be seen")
    held = [identity(document) for document in table.entries(store)]
    return [identity(store, without=_CONTENT), held]
