"""Vector stores: what is written to an index, what is found in it, and the files it is saved to and loaded from.

A write or search that reaches another one of the same store is one call, and so is a search below a retriever: that
tells the retriever's span which index answered and with what scores. `from_texts` and `from_documents` are one `add`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores.base import VectorStore

from clew.integrations.langchain import embedding, index, seam
from clew.integrations.langchain.seam import Family, Function, Wrap
from clew.integrations.langchain.space import model_slot
from clew.store.digest import Domain, digest
from clew.tracer import boundary, context
from clew.tracer.boundary import Call
from clew.tracer.capture import Batch, Given
from clew.tracer.init import Tracer
from clew.tracer.span import OpenSpan

_ADD = ("add_texts", "add_documents")
_FROM = ("from_texts", "from_documents")
_SEARCH = (
    "similarity_search",
    "similarity_search_with_score",
    "similarity_search_with_relevance_scores",
    "similarity_search_by_vector",
    "max_marginal_relevance_search",
    "max_marginal_relevance_search_by_vector",
)
_SAVE = tuple({store.save: None for store in index.STORES.values()})
_LOAD = tuple({store.load: None for store in index.STORES.values()})


def families() -> list[Family]:
    """The classes and methods wrapped here."""
    methods: dict[str, Wrap] = {}
    for names, describe in ((_ADD, _add), (_FROM, _make), (("delete",), _delete), (_SEARCH, _search)):
        methods.update({name: _sync(name, describe) for name in names})
        methods.update({f"a{name}": _async(f"a{name}", describe) for name in names})
    methods.update({name: _sync(name, _save) for name in _SAVE})
    methods.update({name: _sync(name, _load) for name in _LOAD})
    on_base = frozenset(name for name in methods if name not in ("delete", "adelete") and hasattr(VectorStore, name))
    return [Family(VectorStore, methods, own=on_base)]


class _Passing:
    """One call on its way through a wrapper: its boundary, or None; the arguments it goes on with; what to do after."""

    __slots__ = ("args", "call", "kwargs", "note")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.call: Call | None = None
        self.args = args
        self.kwargs = kwargs
        self.note: Any = None  # an inner half tells the open call what it saw: note(response)


_Describe = Any  # (tracer, self, name, passing) -> None: fills `passing` in


def _sync(name: str, describe: _Describe) -> Wrap:
    def wrap(original: Function) -> Function:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            tracer = seam.acting()
            if tracer is None:
                return original(self, *args, **kwargs)
            passing = _Passing(args, kwargs)
            seam.described(tracer, f"{name} request", lambda: describe(tracer, self, name, passing))
            if passing.call is not None:
                return boundary.perform(passing.call, lambda: original(self, *passing.args, **passing.kwargs))
            response = original(self, *passing.args, **passing.kwargs)
            if passing.note is not None:
                seam.described(tracer, f"{name} response", lambda: passing.note(response))
            return response

        return method

    return wrap


def _async(name: str, describe: _Describe) -> Wrap:
    def wrap(original: Function) -> Function:
        async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            tracer = seam.acting()
            if tracer is None:
                return await original(self, *args, **kwargs)
            passing = _Passing(args, kwargs)
            seam.described(tracer, f"{name} request", lambda: describe(tracer, self, name.removeprefix("a"), passing))
            if passing.call is not None:
                return await boundary.perform_async(
                    passing.call, lambda: original(self, *passing.args, **passing.kwargs)
                )
            response = await original(self, *passing.args, **passing.kwargs)
            if passing.note is not None:
                seam.described(tracer, f"{name} response", lambda: passing.note(response))
            return response

        return method

    return wrap


# -- writing


def _add(tracer: Tracer, self: Any, name: str, passing: _Passing) -> None:
    opened = _opened_add()
    if opened is not None and (opened.facts["adding"] is self or opened.facts["adding"] is type(self)):
        passing.note = lambda response: opened.facts.update(ids=response, store=self)
        return
    given = _materialised(passing)
    if given is not None:
        passing.call = _adding(tracer, self, given, passing.kwargs, index.embeddings_of(self), passing.args)


def _make(tracer: Tracer, cls: Any, name: str, passing: _Passing) -> None:
    opened = _opened_add()
    if opened is not None and opened.facts["adding"] is cls:
        return
    given = _materialised(passing)
    if given is not None:
        embeddings = passing.args[1] if len(passing.args) > 1 else passing.kwargs.get("embedding")
        metadatas = passing.args[:1] + passing.args[2:]
        passing.call = _adding(tracer, cls, given, passing.kwargs, embeddings, metadatas)


def _adding(
    tracer: Tracer, target: Any, given: list[Any], kwargs: dict[str, Any], embeddings: Any, args: tuple[Any, ...]
) -> Call:
    """The call that adds to `target`: a store, or a class that makes one."""
    embedding.notice(embeddings)
    documents = _documents(given, args[1] if len(args) > 1 else kwargs.get("metadatas"), kwargs.get("ids"))
    used: list[Given] = [("documents", "document", tuple(documents))]
    if embeddings is not None:
        used.append(model_slot(tracer.gate, embeddings))

    def describe(response: Any) -> tuple[Iterable[Given], dict[str, Any]]:
        assert call.span is not None
        store = response if isinstance(target, type) else target
        ids = call.span.facts.get("ids") if isinstance(target, type) else response
        entries = _entries(documents, ids or kwargs.get("ids"), store)
        batch = Batch(tracer.gate)
        names = [
            (bytes(batch.part(entry)[1]), bytes(batch.part(document)[1]))
            for entry, document in zip(entries, documents, strict=True)
        ]
        written = [bytes(batch.part(index.settled(entry))[1]) for entry in entries]
        batch.commit()
        call.span.derive(
            "derived_from", "document", "document", [(one, other, None, None) for one, other in names if one != other]
        )
        index.wrote(store, b"add" + b"".join(written))
        return [("entries", "document", tuple(entries))], {"clew.index.entries": len(entries)}

    title = target.__name__ if isinstance(target, type) else type(target).__name__
    call = Call(
        "index",
        "add",
        target,
        name=f"add {title}",
        used=used,
        describe=describe,
        servable=False,
        attributes={"clew.operation": "add"},
        facts={"adding": target},
    )
    return call


def _opened_add() -> OpenSpan | None:
    here = context.enclosing()
    return here if here is not None and "adding" in here.facts else None


def _materialised(passing: _Passing) -> list[Any] | None:
    """The texts or documents, which may be an iterator: the call goes on with a list. None if there are none given."""
    if passing.args:
        first = passing.args[0]
        given: list[Any] = first if isinstance(first, list) else list(first)
        if not isinstance(first, (list, tuple)):
            passing.args = (given, *passing.args[1:])
        return given
    for name in ("documents", "texts"):
        if name in passing.kwargs:
            first = passing.kwargs[name]
            given = first if isinstance(first, list) else list(first)
            if not isinstance(first, (list, tuple)):
                passing.kwargs = {**passing.kwargs, name: given}
            return given
    return None


def _documents(given: list[Any], metadatas: Sequence[Any] | None, ids: Sequence[Any] | None) -> list[Any]:
    if not given or not isinstance(given[0], str):
        return list(given)
    metadatas = (
        metadatas if isinstance(metadatas, (list, tuple)) and len(metadatas) == len(given) else [{}] * len(given)
    )
    ids = ids if isinstance(ids, (list, tuple)) and len(ids) == len(given) else [None] * len(given)
    return [
        Document(page_content=text, metadata=metadata or {}, id=None if one is None else str(one))
        for text, metadata, one in zip(given, metadatas, ids, strict=True)
    ]


def _entries(documents: list[Any], ids: Any, store: object) -> list[Any]:
    """The documents with the ids they have in the index: those it gave, else what it holds, else as they came."""
    if not isinstance(ids, (list, tuple)) or len(ids) != len(documents):
        table = index.store_of(type(store))
        held = list(table.entries(store)) if table is not None and table.size(store) == len(documents) else []
        ids = [entry.id for entry in held] if len(held) == len(documents) else [one.id for one in documents]
    return [
        one if one.id == name or name is None else one.model_copy(update={"id": str(name)})
        for one, name in zip(documents, ids, strict=True)
    ]


def _delete(tracer: Tracer, self: Any, name: str, passing: _Passing) -> None:
    if boundary.is_open("index", self):
        return
    ids = passing.args[0] if passing.args else passing.kwargs.get("ids")
    names = tuple(ids) if ids is not None else ()

    def describe(response: Any) -> tuple[Iterable[Given], dict[str, Any]]:
        index.wrote(self, b"delete" + bytes(digest(Domain.TREE, repr(names).encode())))
        return (), {}

    passing.call = _call(self, "delete", [("ids", "value", names)], describe)


# -- saving and loading


def _save(tracer: Tracer, self: Any, name: str, passing: _Passing) -> None:
    table = index.store_of(type(self))
    if table is None or table.save != name or boundary.is_open("index", self):
        return
    paths = _paths(table, passing)

    def describe(response: Any) -> tuple[Iterable[Given], dict[str, Any]]:
        assert call.span is not None
        version = index.version(tracer, self, call.span)
        call.span.use(version.slot)
        files = index.file_slots(paths)
        call.span.derive(
            "derived_from", "file", "index", [(bytes(one[2][1]), bytes(version.digest), None, None) for one in files]
        )
        return files, {"clew.index.entries": version.size}

    call = passing.call = _call(self, "save", [], describe)


def _load(tracer: Tracer, cls: Any, name: str, passing: _Passing) -> None:
    table = index.store_of(cls)
    if table is None or table.load != name or boundary.is_open("index", cls):
        return
    embeddings = (
        passing.args[1] if len(passing.args) > 1 else passing.kwargs.get("embedding", passing.kwargs.get("embeddings"))
    )
    embedding.notice(embeddings)
    files = index.file_slots(_paths(table, passing))

    def describe(response: Any) -> tuple[Iterable[Given], dict[str, Any]]:
        index.loaded(response, [("index", *one[1:]) for one in files])
        return (), {}

    passing.call = _call(cls, "load", files, describe)


def _paths(table: index.Store, passing: _Passing) -> list[str]:
    path = passing.args[0] if passing.args else passing.kwargs.get("path", passing.kwargs.get("folder_path"))
    position = 1 if table.save == "save_local" else 2
    name = passing.kwargs.get("index_name")
    if name is None:
        name = (
            passing.args[position]
            if len(passing.args) > position and isinstance(passing.args[position], str)
            else "index"
        )
    return [] if path is None else table.files(os.path.abspath(os.fspath(path)), name)


def _call(target: Any, operation: str, used: list[Given], describe: Any) -> Call:
    title = target.__name__ if isinstance(target, type) else type(target).__name__
    return Call(
        "index",
        operation,
        target,
        name=f"{operation} {title}",
        used=used,
        describe=describe,
        servable=False,
        attributes={"clew.operation": operation},
    )


# -- searching


def _search(tracer: Tracer, self: Any, name: str, passing: _Passing) -> None:
    here = context.enclosing()
    if here is not None and here.kind == "retriever":
        stores = here.facts.setdefault("stores", [])
        if not any(one is self for one in stores):
            stores.append(self)
            embedding.notice(index.embeddings_of(self))
            here.use(*index.slots(tracer, self, here))
        passing.note = lambda response: note_scores(here, response)
        return
    embedding.notice(index.embeddings_of(self))
    query = passing.args[0] if passing.args else next(iter(passing.kwargs.values()), None)
    k = passing.args[1] if len(passing.args) > 1 else passing.kwargs.get("k", 4)

    def describe(response: Any) -> tuple[Iterable[Given], dict[str, Any]]:
        assert call.span is not None
        note_scores(call.span, response)
        documents = [one[0] if isinstance(one, tuple) else one for one in response]
        return document_slots(documents, scores_of(call.span, documents)), {}

    call = passing.call = Call(
        "retriever",
        name,
        self,
        name=f"retrieval {index.index_name(self)}",
        used=[("query", "value", query), *index.slots(tracer, self, here)],
        describe=describe,
        exchange=functools.partial(_exchange, self, name, passing),
        attributes={
            "gen_ai.data_source.id": index.index_name(self),
            "gen_ai.retrieval.top_k": k if isinstance(k, int) else None,
            "clew.operation": name,
        },
        facts={"stores": [self]},
    )


def _exchange(self: Any, name: str, passing: _Passing) -> Any:
    """The search as a cache or a replay sees it."""
    from clew.integrations.langchain.retriever_exchange import SearchExchange

    return SearchExchange(self, name, passing.args, passing.kwargs)


def note_scores(span: OpenSpan, response: Any) -> None:
    """Keep the scores of a search's (document, score) pairs, for whoever describes the documents in the end."""
    if isinstance(response, list) and response and isinstance(response[0], tuple):
        known: dict[int, tuple[Any, float]] = span.facts.setdefault("scored", {})
        for document, score, *_ in response:
            known[id(document)] = (document, float(score))


def scores_of(span: OpenSpan, documents: Sequence[Any]) -> list[float | None]:
    """The scores of documents, in their order; None where none was seen."""
    known: dict[int, tuple[Any, float]] = span.facts.get("scored", {})
    return [known[id(one)][1] if id(one) in known else None for one in documents]


def document_slots(documents: Sequence[Any], scores: Sequence[float | None]) -> list[Given]:
    """A slot for each document found, with its rank and, where known, its score."""
    return [
        ("documents", "document", one, None, {"rank": rank} if score is None else {"rank": rank, "score": score})
        for rank, (one, score) in enumerate(zip(documents, scores, strict=True))
    ]
