"""What a call of an embedding model asks, as data: each text by itself, so that a batch computes only the texts that are new.

A query and a document are asked differently by some models, so they have keys of their own.
"""

from __future__ import annotations

from typing import Any

from clew.integrations.langchain.attachment import is_service
from clew.integrations.langchain.space import fields_of
from clew.replay.identity import identity
from clew.replay.value_exchange import ValueExchange
from clew.store.digest import Domain, raw_digest
from clew.store.encoding import encode_key
from clew.store.errors import EncodingError, Unkeyable
from clew.tracer import init
from clew.tracer.capture import Batch
from clew.tracer.exchange import Exchange


def model_digest(embeddings: Any, more: Any) -> bytes:
    """What the model is, and what else it is given, once for all its texts. Raises Unkeyable."""
    reaching = [name for name, value in fields_of(embeddings).items() if is_service(value)]
    try:
        about = [identity(embeddings, without=reaching), identity(more)]
        return raw_digest(Domain.VALUE, encode_key(about, Batch(init.current().gate)))
    except EncodingError as error:
        raise Unkeyable(str(error)) from error


class EmbeddingExchange(ValueExchange):
    """The vector of one text."""

    def __init__(self, operation: str, model: Any, text: str, name: str) -> None:
        super().__init__(operation)
        self._model = model
        self._text = text
        self.model = name

    def parts(self) -> dict[str, Any]:
        return {"model": self._model, "text": self._text}


class EmbeddingBatch:
    """The vectors of several texts."""

    def __init__(self, operation: str, embeddings: Any, texts: tuple[str, ...], name: str, more: Any) -> None:
        self._operation = operation
        self._more = more
        self._embeddings = embeddings
        self._texts = texts
        self._name = name

    def each(self) -> list[Exchange]:
        model = model_digest(self._embeddings, self._more)
        return [EmbeddingExchange(self._operation, model, text, self._name) for text in self._texts]

    def narrowed(self, positions: list[int]) -> list[str]:
        return [self._texts[position] for position in positions]
