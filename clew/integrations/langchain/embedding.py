"""Embeddings: LangChain fires no callback for them, so the boundary's span is the only one.

An async method that runs its sync twin, and a sync one that runs its async twin, is one call.
"""

from __future__ import annotations

import functools
import sys
from array import array
from collections.abc import Iterable
from typing import Any

from langchain_core.embeddings import Embeddings

from clew.integrations.langchain import seam
from clew.integrations.langchain.seam import Family, Function, Wrap
from clew.integrations.langchain.space import model_slot
from clew.store.digest import Domain
from clew.store.tensor import tensor_bytes
from clew.tracer import boundary, init
from clew.tracer.boundary import Call
from clew.tracer.capture import Batch, Given

KIND = "embedding"


def families() -> list[Family]:
    """The classes and methods wrapped here."""
    return [Family(Embeddings, METHODS)]


def _sync(name: str, original: Function) -> Function:
    def embed(self: Any, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = _drawn(args, kwargs)
        call = _call(self, name, args, kwargs)
        if call is None:
            return original(self, *args, **kwargs)
        return boundary.perform(call, lambda: original(self, *_rest(call, args), **_named(call, args, kwargs)))

    return embed


def _async(name: str, original: Function) -> Function:
    async def embed(self: Any, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = _drawn(args, kwargs)
        call = _call(self, name, args, kwargs)
        if call is None:
            return await original(self, *args, **kwargs)
        return await boundary.perform_async(
            call, lambda: original(self, *_rest(call, args), **_named(call, args, kwargs))
        )

    return embed


def _drawn(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments; texts that can be read but once are a list, as more than the model reads them."""
    if args and hasattr(args[0], "__next__"):
        return (list(args[0]), *args[1:]), kwargs
    if not args and kwargs and hasattr(next(iter(kwargs.values())), "__next__"):
        name = next(iter(kwargs))
        return args, {**kwargs, name: list(kwargs[name])}
    return args, kwargs


def _rest(call: Call, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, or what of them is not known yet."""
    return args if call.narrowed is None else (call.narrowed, *args[1:])


def _named(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return kwargs if call.narrowed is None else _others(args, kwargs)


METHODS: dict[str, Wrap] = {
    **seam.every(("embed_documents", "embed_query"), _sync),
    **seam.every(("aembed_documents", "aembed_query"), _async),
}


def notice(embeddings: object) -> None:
    """An embeddings object that a vector store uses: one that is no `Embeddings` is wrapped now."""
    here = seam.installed()
    if here is None or isinstance(embeddings, Embeddings):
        return
    if callable(getattr(embeddings, "embed_query", None)) or callable(getattr(embeddings, "embed_documents", None)):
        here.cover_duck(type(embeddings), METHODS)


def _call(self: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    """The call; None where it passes unseen: nothing acts here, or it is the inner half of an open one."""
    tracer = seam.acting()
    if tracer is None or boundary.is_open(KIND, self):
        return None
    return seam.described(tracer, "embedding request", lambda: _described(tracer, self, name, args, kwargs))


def _described(tracer: init.Tracer, self: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    given = args[0] if args else next(iter(kwargs.values()), ())
    texts = (given,) if isinstance(given, str) else tuple(given)
    model = next((m for m in (getattr(self, key, None) for key in ("model", "model_name")) if isinstance(m, str)), None)
    title = type(self).__name__
    return Call(
        KIND,
        name.removeprefix("a"),
        self,
        name=f"embeddings {model or title}",
        used=[("texts", "value", texts), model_slot(tracer.gate, self)],
        exchange=functools.partial(
            _exchange, self, name.removeprefix("a"), given, texts, model or title, [args[1:], _others(args, kwargs)]
        ),
        describe=_vectors,
        attributes={"gen_ai.request.model": model, "embedding.model_name": model or title},
    )


def _others(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The named arguments that are not the texts."""
    return kwargs if args else {name: kwargs[name] for name in list(kwargs)[1:]}


def _exchange(self: Any, operation: str, given: Any, texts: tuple[Any, ...], name: str, more: Any) -> Any:
    """The call as a cache or a replay sees it."""
    from clew.integrations.langchain.embedding_exchange import EmbeddingBatch, EmbeddingExchange, EmbeddingModel

    model = EmbeddingModel(self, more, name)
    return (
        EmbeddingExchange(operation, model, given)
        if isinstance(given, str)
        else EmbeddingBatch(operation, model, texts)
    )


def _vectors(response: Any) -> tuple[Iterable[Given], dict[str, Any]]:
    if not hasattr(response, "__len__"):  # a generator: its vectors are the program's to draw
        return [], {}
    many = len(response) > 0 and not isinstance(response[0], (int, float)) and hasattr(response[0], "__len__")
    width = (len(response[0]) if many else len(response)) if len(response) else 0
    return [("vectors", "embedding", _tensor(response, width, many))], {"gen_ai.embeddings.dimension.count": width}


def _tensor(response: Any, width: int, many: bool) -> Any:
    """The vectors as one float64 array, named by its elements; as given where they are ragged or no numbers."""
    numpy = sys.modules.get("numpy")
    try:
        if numpy is not None:
            matrix = numpy.ascontiguousarray(response, dtype="<f8")
            shape, data = matrix.shape, matrix.tobytes()
        else:
            shape, data = (
                (len(response), width) if many else (width,),
                _elements(response if many else [response], width),
            )
    except (TypeError, ValueError):
        return response
    batch = Batch(init.current().gate)
    name = batch.data(Domain.TENSOR, tensor_bytes("<f8", shape, data))
    batch.commit()
    return (Domain.TENSOR, name)


def _elements(rows: Iterable[Iterable[float]], width: int) -> bytes:
    elements = array("d")
    for row in rows:
        before = len(elements)
        elements.extend(row)
        if len(elements) - before != width:
            raise ValueError("rows of different lengths")
    if sys.byteorder == "big":
        elements.byteswap()
    return elements.tobytes()
