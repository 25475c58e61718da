"""What a call of a retriever asks, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clew.integrations.langchain import answer as _answer  # noqa: F401 - LangChain's classes become answers
from clew.integrations.langchain.identity import identity
from clew.replay.value_exchange import ValueExchange
from clew.store.errors import Unkeyable
from clew.tracer.capture import Given


class RetrieverExchange(ValueExchange):
    """A call of a retriever. Of a vector store it depends on the index, which stands for all that the store holds."""

    def __init__(self, retriever: Any, query: Any, stores: Sequence[Any], index: Sequence[Given]) -> None:
        super().__init__("retrieve")
        self._retriever = retriever
        self._query = query
        self._stores = stores
        self._index = index

    def parts(self) -> dict[str, Any]:
        if len(self._stores) != len(self._index):
            raise Unkeyable("the state of its vector store is not known")
        without = ("vectorstore",) if self._stores else ()
        return {
            "retriever": identity(self._retriever, without=without),
            "index": [_digest(given) for given in self._index],
            "query": self._query,
        }


def _digest(given: Given) -> Any:
    value = given[2]
    return bytes(value[1]) if type(value) is tuple else value
