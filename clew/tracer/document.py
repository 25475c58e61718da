"""A document as clew yields it from a dataset; each integration converts it to its framework's own class."""

from __future__ import annotations

import importlib
from typing import Any

import msgspec

from clew.store.encoding import register_item
from clew.store.errors import MissingExtra


class Document(msgspec.Struct, frozen=True, dict=True):
    """Text with its metadata, id and the name of what it was made from (such as ``dataset/handbook@1[7]``).

    The source is not part of the document's identity: text, metadata and id are.
    """

    text: str
    metadata: dict[str, Any] = {}
    id: str | None = None
    source: str | None = None

    def to_langchain(self) -> Any:
        """This document as a `langchain_core.documents.Document`; ImportError where LangChain is not installed."""
        try:
            documents = importlib.import_module("langchain_core.documents")
        except ImportError as error:
            raise MissingExtra("langchain_core is not installed: pip install 'clew[langchain]' brings it") from error
        return documents.Document(self.text, metadata=dict(self.metadata), id=self.id)


register_item(Document, "document", lambda it: {"text": it.text, "metadata": it.metadata, "id": it.id})
