"""What a call of an embedding model asks, as data: each text by itself, so that a batch computes only the texts that are new.

A query and a document are asked differently by some models, so they have keys of their own.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, NamedTuple

from clew.integrations.langchain.attachment import is_service
from clew.integrations.langchain.client import destinations
from clew.integrations.langchain.space import fields_of
from clew.replay.code.witness import Witness, Witnessed
from clew.replay.identity import identity, is_hidden
from clew.replay.key import Remembered
from clew.replay.recording.loose import loose
from clew.replay.value_exchange import ValueExchange
from clew.store.errors import EncodingError, Unkeyable
from clew.tracer import init
from clew.tracer.capture import Batch
from clew.tracer.exchange import Exchange


class EmbeddingModel:
    """The model of a batch, and what else it is given: looked at once for all texts."""

    def __init__(self, embeddings: Any, more: Any, name: str) -> None:
        self.embeddings = embeddings
        self.more = more
        self.name = name

    @functools.cached_property
    def digest(self) -> bytes:
        """What the model is. Raises Unkeyable."""
        known = _models.of(self.embeddings, _told)
        if isinstance(known, Unkeyable):
            raise known
        told = Remembered([*known.value, identity(self.more)]) if any(self.more) else known.bare
        try:
            return told.digest(Batch(init.current().gate))
        except EncodingError as error:
            raise Unkeyable(str(error)) from error

    @functools.cached_property
    def seen(self) -> Any:
        """What can be seen of it."""
        return loose([type(self.embeddings), self.embeddings, self.more])


class _Told(NamedTuple):
    """What is known of a model while it is as it was: what it is and where it leads, alone and asked with nothing more."""

    value: list[Any]
    bare: Remembered


def _told(embeddings: Any, witness: Witness) -> _Told | Unkeyable:
    fields = fields_of(embeddings)
    reaching = [name for name, value in fields.items() if is_service(value) or is_hidden(value)]
    try:
        found = [
            identity(embeddings, without=reaching, witness=witness),
            destinations(embeddings, fields, reaching, witness),
        ]
    except Unkeyable as error:
        witness.blind = True
        return error
    return _Told(found, Remembered([*found, identity(_NOTHING)]))


_NOTHING: list[Any] = [(), {}]  # more arguments
_models: Witnessed[_Told | Unkeyable] = Witnessed()


class Vector(NamedTuple):
    """A text's vector, out of an answer that is no list of vectors."""

    value: Any
    of: str  # "tuple", or "ndarray": a row of a matrix


class EmbeddingExchange(ValueExchange):
    """The vector of one text: a list of numbers, or an array."""

    def __init__(self, operation: str, model: EmbeddingModel, text: str) -> None:
        super().__init__(operation)
        self._model = model
        self._text = text
        self.model = model.name

    def parts(self) -> dict[str, Any]:
        return {"model": self._model.digest, "text": self._text}

    def seen(self) -> dict[str, Any]:
        return {"model": self._model.seen, "text": self._text}

    def dump(self, response: Any, chunks: list[tuple[int, Any]] | None) -> Any:
        value, told = (response.value, {"of": response.of}) if type(response) is Vector else (response, {})
        if is_array(value) and not value.dtype.hasobject:
            return {"array": [value.dtype.str, list(value.shape), value.tobytes()], **told}
        return {"value": value, **told}

    def load(self, data: Any) -> Any:
        if "array" in data:
            import numpy

            dtype, shape, elements = data["array"]
            value: Any = numpy.frombuffer(elements, dtype).reshape(shape).copy()
        else:
            value = data["value"]
        return Vector(value, data["of"]) if "of" in data else value


class EmbeddingBatch:
    """The vectors of several texts."""

    def __init__(self, operation: str, model: EmbeddingModel, texts: tuple[str, ...]) -> None:
        self._operation = operation
        self._model = model
        self._texts = texts

    def each(self) -> list[Exchange]:
        return [EmbeddingExchange(self._operation, self._model, text) for text in self._texts]

    def narrowed(self, positions: list[int]) -> list[str]:
        return [self._texts[position] for position in positions]

    def parted(self, response: Any) -> list[Any] | None:
        if type(response) is list:
            return response
        if type(response) is tuple:
            return [Vector(one, "tuple") for one in response]
        if is_array(response) and response.ndim == 2:
            return [Vector(one, "ndarray") for one in response]
        return None

    def joined(self, parts: list[Any]) -> Any:
        of = {one.of if type(one) is Vector else "list" for one in parts}
        if len(of) > 1:
            return None
        values = [one.value if type(one) is Vector else one for one in parts]
        if of <= {"list"}:
            return values
        if of == {"tuple"}:
            return tuple(values)
        import numpy

        alike = len({(one.dtype.str, one.shape) for one in values}) == 1
        return numpy.stack(values) if alike else None


def is_array(value: Any) -> bool:
    """Whether it is an array of numpy's, and of no class made from that."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray
