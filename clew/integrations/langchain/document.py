"""LangChain documents as items."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document

from clew.store.encoding import register_item


def fields(document: Document) -> dict[str, Any]:
    """A document's encoding (docs/design/spans.md)."""
    return {"text": document.page_content, "metadata": document.metadata, "id": document.id}


register_item(Document, "document", fields)
