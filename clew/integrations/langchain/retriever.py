"""Retrievers: which index answered and how the documents scored, which LangChain's callbacks do not tell."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores.base import VectorStore

from clew.integrations.langchain import index, run, seam
from clew.integrations.langchain.open_runs import span_of
from clew.integrations.langchain.seam import Family, Function
from clew.integrations.langchain.vectorstore import document_slots, scores_of
from clew.tracer import boundary, context
from clew.tracer.boundary import Call
from clew.tracer.capture import Given
from clew.tracer.init import Tracer

KIND = "retriever"


def families() -> list[Family]:
    """The classes and methods wrapped here."""
    return [
        Family(
            BaseRetriever,
            {"_get_relevant_documents": _get, "_aget_relevant_documents": _aget},
            inner={"invoke": _door, "ainvoke": _door},
        )
    ]


def _door(original: Function) -> Function:
    """The public method: a class that was missed is wrapped before it is used."""

    def door(self: Any, *args: Any, **kwargs: Any) -> Any:
        seam.cover(type(self))
        return original(self, *args, **kwargs)

    return door


def _get(original: Function) -> Function:
    def _get_relevant_documents(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = _call(self, args, kwargs)
        if call is None:
            return original(self, *args, **kwargs)
        return boundary.perform(call, lambda: _kept(call, original(self, *args, **kwargs)))

    return _get_relevant_documents


def _aget(original: Function) -> Function:
    async def _aget_relevant_documents(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = _call(self, args, kwargs)
        if call is None:
            return await original(self, *args, **kwargs)

        async def body() -> Any:
            return _kept(call, await original(self, *args, **kwargs))

        return await boundary.perform_async(call, body)

    return _aget_relevant_documents


def _kept(call: Call, documents: Any) -> Any:
    if call.observed and call.span is not None and "scored" in call.span.facts:
        call.span.facts["scores"] = scores_of(call.span, documents)
    return documents


def _call(self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    tracer = seam.traced()
    if tracer is None:
        return None
    run_id = run.given(args, kwargs) or run.announced(KIND)
    if boundary.is_open(KIND, self, run_id) or (span_of(run_id) is None and seam.acting() is None):
        return None
    return seam.described(tracer, "retriever request", lambda: _described(tracer, self, args, kwargs, run_id))


def _described(tracer: Tracer, self: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run_id: Any) -> Call:
    query = args[0] if args else kwargs.get("query")
    span = run.observed(run_id, KIND, self)
    store = getattr(self, "vectorstore", None)
    used: list[Given] = [("query", "value", query)]
    stores = []
    if isinstance(store, VectorStore):
        used += index.slots(tracer, store, span or context.enclosing())
        stores.append(store)
        if span is not None:
            span.use(*used[1:])
            span.facts["stores"] = stores

    def describe(response: Any) -> tuple[Iterable[Given], dict[str, Any]]:
        assert call.span is not None
        slots = document_slots(response, scores_of(call.span, response))
        return slots, {"clew.document.count": len(slots)}

    call = Call(
        KIND,
        "retrieve",
        self,
        name=type(self).__name__,
        span=span,
        parent=span_of(run_id) if span is None else None,
        run_key=run_id,
        used=used,
        exchange=functools.partial(_exchange, self, query, args, kwargs),
        describe=describe,
        facts={"stores": stores},
    )
    return call


def _exchange(self: Any, query: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The call as a cache or a replay sees it."""
    from clew.integrations.langchain.retriever_exchange import RetrieverExchange

    more = {name: value for name, value in kwargs.items() if name not in ("query", "run_manager")}
    return RetrieverExchange(self, query, {"args": list(args[1:]), **more} if args[1:] else more)
