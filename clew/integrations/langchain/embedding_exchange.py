"""What a call of an embedding model asks, as data: each text by itself, so that a batch computes only the texts that are new.

A query and a document are asked differently by some models, so they have keys of their own.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, NamedTuple

from clew.integrations.langchain.attachment import is_service
from clew.integrations.langchain.reach import known_reach, reach
from clew.integrations.langchain.space import fields_of
from clew.replay.code.witness import Witness, Witnessed
from clew.replay.identity import identity, is_hidden
from clew.replay.key import Part, Remembered, plain_part
from clew.replay.recording.loose import loose
from clew.replay.value_exchange import ValueExchange
from clew.store.errors import Unkeyable
from clew.tracer.exchange import Exchange


class _Model(NamedTuple):
    """What is known of a model while it is as it was."""

    told: Remembered | Unkeyable  # what it is
    services: list[str]  # fields that hold a client or the like
    reached: Part | None  # where those lead; None where that must be asked each time


def _model(embeddings: Any, witness: Witness) -> _Model:
    witness.add_instance(embeddings)
    fields = fields_of(embeddings)
    services = [name for name, value in fields.items() if is_service(value)]
    hidden = [name for name, value in fields.items() if is_hidden(value)]
    try:
        told: Any = Remembered(identity(embeddings, without=[*services, *hidden], witness=witness))
    except Unkeyable as error:
        told, witness.blind = error, True
    return _Model(told, services, known_reach(embeddings, fields, services, witness))


_models: Witnessed[_Model] = Witnessed()


class EmbeddingModel:
    """The model of a batch, and what else it is given: looked at once for all texts."""

    def __init__(self, embeddings: Any, more: Any, name: str) -> None:
        self.embeddings = embeddings
        self.more = more
        self.name = name

    @functools.cached_property
    def _known(self) -> _Model:
        return _models.of(self.embeddings, _model)

    @functools.cached_property
    def _asked(self) -> dict[str, Any]:
        model = self._known
        reached = model.reached or reach(self.embeddings, fields_of(self.embeddings), model.services)
        return {"model": model.told, "reached": reached, "more": plain_part(self.more)}

    def parts(self) -> dict[str, Any]:
        """What is the same for each text. Raises Unkeyable."""
        if isinstance(self._known.told, Unkeyable):
            raise self._known.told
        return self._asked

    @functools.cached_property
    def seen(self) -> Any:
        """What can be seen of it."""
        return loose([type(self.embeddings), self.embeddings, self.more])


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
        return {**self._model.parts(), "text": self._text}

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
