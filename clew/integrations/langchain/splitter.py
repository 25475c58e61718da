"""Text splitters: which stretch of which document each chunk is.

A splitter's public methods call one another, and some splitters use another one inside: the outermost call is the one
that counts. What each inner `split_text` was given and returned says which chunks came from which text.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from langchain_core.documents import Document

from clew.integrations.langchain import document as _document  # noqa: F401 - documents become items
from clew.integrations.langchain import seam
from clew.integrations.langchain.seam import Family, Function
from clew.store.encoding import qualified_name
from clew.tracer import boundary, context, init
from clew.tracer.boundary import Call
from clew.tracer.capture import Batch, Given

_PACKAGE = "langchain_text_splitters"
_NO_SUBCLASSES = (
    "MarkdownHeaderTextSplitter",
    "ExperimentalMarkdownSyntaxTextSplitter",
    "HTMLHeaderTextSplitter",
    "HTMLSectionSplitter",
    "HTMLSemanticPreservingSplitter",
    "RecursiveJsonSplitter",
)
_METHODS = ("split_text", "create_documents", "split_documents", "transform_documents")

Pieces = list[tuple[Any, list[Any]]]


def families() -> list[Family]:
    """The classes and methods wrapped here; none where no text splitters are installed."""
    try:
        package = importlib.import_module(_PACKAGE)
    except ImportError:
        return []
    methods = seam.every(_METHODS, _split)
    bases = [package.TextSplitter, *(getattr(package, name) for name in _NO_SUBCLASSES if hasattr(package, name))]
    return [Family(base, methods, own=frozenset(methods)) for base in bases]


def _split(name: str, original: Function) -> Function:
    def split(self: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = seam.acting()
        if tracer is None:
            return original(self, *args, **kwargs)
        here = context.enclosing()
        if here is not None and "pieces" in here.facts:
            return _inner(here.facts, name, original, self, args, kwargs)
        if args and not isinstance(args[0], (str, list, tuple, dict)):
            args = (list(args[0]), *args[1:])
        call = seam.described(tracer, "split request", lambda: _call(tracer, self, name, args, kwargs))
        if call is None:
            return original(self, *args, **kwargs)
        return boundary.perform(call, lambda: original(self, *args, **kwargs))

    return split


def _inner(facts: dict[str, Any], name: str, original: Function, self: Any, args: Any, kwargs: Any) -> Any:
    """Part of an open split: the outermost `split_text` in it is noted."""
    if name != "split_text" or facts["splitting"] or not args:
        return original(self, *args, **kwargs)
    facts["splitting"] = True
    try:
        chunks = original(self, *args, **kwargs)
    finally:
        facts["splitting"] = False
    facts["pieces"].append((args[0], chunks))
    return chunks


def _call(tracer: init.Tracer, self: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    given = args[0] if args else next(iter(kwargs.values()), ())
    sources = [given] if isinstance(given, (str, dict)) else list(given)
    documents = any(isinstance(one, Document) for one in sources)
    used: list[Given] = [
        ("documents", "document", tuple(sources)) if documents else ("texts", "value", tuple(sources)),
        ("splitter", "value", _configuration(self)),
    ]

    def describe(response: Any) -> tuple[Iterable[Given], dict[str, Any]]:
        chunks = list(response)
        assert call.span is not None
        pieces: Pieces = call.span.facts.pop("pieces")
        overlap = getattr(self, "_chunk_overlap", 0) if getattr(self, "_length_function", None) is len else None
        batch = Batch(tracer.gate)
        pairs = []
        for chunk, source, start in _located(chunks, sources, pieces, overlap):
            end = None if start is None else start + len(_text(chunk))
            pairs.append((bytes(batch.part(chunk)[1]), bytes(batch.part(source)[1]), start, end))
        batch.commit()
        call.span.derive("derived_from", "chunk", "document" if documents else "value", pairs)
        return [("chunks", "chunk", tuple(chunks))], {}

    call = Call(
        "chain",
        "split",
        self,
        name=f"split {type(self).__name__}",
        used=used,
        describe=describe,
        servable=False,
        attributes={"clew.operation": "split"},
        facts={"pieces": [], "splitting": name == "split_text"},
    )
    return call


def _configuration(self: Any) -> dict[str, Any]:
    settings = {}
    for name, value in vars(self).items():
        if callable(value):
            value = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
        settings[name.lstrip("_")] = value
    return {"class": qualified_name(type(self)), **settings}


def _located(
    chunks: list[Any], sources: list[Any], pieces: Pieces, overlap: int | None
) -> Iterator[tuple[Any, Any, int | None]]:
    """(chunk, its source, offset of its text in the source's text or None), in the order of the chunks."""
    for chunk, source, previous in _paired(chunks, sources, pieces):
        yield chunk, source, _offset(_text(source), _text(chunk), previous, overlap)


class _Previous:
    """Where the previous chunk of the same source stood."""

    def __init__(self) -> None:
        self.start = -1
        self.end = 0


def _paired(chunks: list[Any], sources: list[Any], pieces: Pieces) -> Iterator[tuple[Any, Any, _Previous]]:
    if len(sources) == 1:
        previous = _Previous()
        yield from ((chunk, sources[0], previous) for chunk in chunks)
    elif len(pieces) == len(sources) and sum(len(made) for _, made in pieces) == len(chunks):
        remaining = iter(chunks)
        for source, (_, made) in zip(sources, pieces, strict=True):
            previous = _Previous()
            yield from ((next(remaining), source, previous) for _ in made)
    else:
        yield from _sought(chunks, sources)


def _sought(chunks: list[Any], sources: list[Any]) -> Iterator[tuple[Any, Any, _Previous]]:
    """Chunks come in the order of their sources: each belongs to the present one or a later one that holds its text
    and whose metadata it carries on. A chunk that none holds has no source."""
    at = 0
    previous = [_Previous() for _ in sources]
    for chunk in chunks:
        for i in range(at, len(sources)):
            if _text(chunk) in _text(sources[i]) and _carries(chunk, sources[i]):
                at = i
                yield chunk, sources[i], previous[i]
                break


def _carries(chunk: Any, source: Any) -> bool:
    if not isinstance(chunk, Document) or not isinstance(source, Document):
        return True
    return all(chunk.metadata.get(key, value) == value for key, value in source.metadata.items())


def _offset(text: str, chunk: str, previous: _Previous, overlap: int | None) -> int | None:
    starts = [previous.start + 1, 0]
    if overlap is not None and previous.end:  # where the splitter went on, if it counts in characters
        starts.insert(0, max(previous.start + 1, previous.end - overlap))
    for start in starts:
        found = text.find(chunk, start)
        if found >= 0:
            previous.start, previous.end = found, found + len(chunk)
            return found
    return None


def _text(value: Any) -> str:
    if isinstance(value, Document):
        return value.page_content
    return value if isinstance(value, str) else ""
