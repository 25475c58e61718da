"""LangChain documents as items."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document

from clew.store.encoding import register_item
from clew.tracer.capture import Given


def fields(document: Document) -> dict[str, Any]:
    """A document's encoding (docs/design/spans.md)."""
    return {"text": document.page_content, "metadata": document.metadata, "id": document.id}


def slots(documents: Any, scores: Any) -> list[Given]:
    """What a retriever found. `scores` are in the order of the documents; else a document's metadata may tell."""
    given: list[Given] = []
    for rank, found in enumerate(documents):
        score = scores[rank] if rank < len(scores) else _score(found.metadata)
        place = {"rank": rank} if score is None else {"rank": rank, "score": float(score)}
        given.append(("documents", "document", found, None, place))
    return given


def _score(metadata: dict[str, Any]) -> Any:
    for key in ("relevance_score", "score", "_score"):
        if isinstance(metadata.get(key), (int, float)):
            return metadata[key]
    return None


register_item(Document, "document", fields)
