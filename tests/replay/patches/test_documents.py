"""Patches of documents: one says something else wherever it is found."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore

import clew
from tests.replay.conftest import LIVE
from tests.replay.patches.bed import Recording, cited, hybrid, recorded, spans


@pytest.mark.parametrize("which", ["d1", "old text", "digest"])
def test_a_document_says_something_else_wherever_it_is_found(recording: Recording, which: str) -> None:
    with recording() as tracer:
        run = recorded(cited)
        if which == "digest":
            which = spans(tracer, run.id, "retriever")[0].generated[0].digest
        given, certificate, again = hybrid(run, clew.Retrieved(which, "new text", {"page": 2}), cited)
        assert given == "answer 1 to new text / other"
        assert LIVE == {"llm": 1}
        assert [one.kind for one in certificate.live] == ["llm"]
        assert any("not modelled" in note for note in certificate.notes)
        first, second = (slot.value for slot in spans(tracer, again.id, "retriever")[0].generated)
        assert (first["text"], first["metadata"], first["id"]) == ("new text", {"page": 2}, "d1")
        assert second["text"] == "other"


def test_a_document_found_live_in_a_vector_store_has_its_new_text_and_its_score(recording: Recording) -> None:
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=4))
    store.add_documents([Document("old text", id="d1")])

    class Scoring(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return [one for one, _ in store.similarity_search_with_score(query)]

    def body() -> list[str]:
        found = [one for one, _ in store.similarity_search_with_score("q")]
        found += [*Scoring().invoke("q"), *Scoring()._get_relevant_documents("q", run_manager=None)]
        return [one.page_content for one in found]

    with recording() as tracer:
        run = recorded(lambda: None)
        given, _, again = hybrid(run, [clew.Retrieved("d1", "new text"), clew.Retrieved("d9", "x")], body)
        assert given == ["new text"] * 3
        found = [slot for one in spans(tracer, again.id, "retriever") for slot in one.generated]
        assert [(slot.value["text"], "score" in slot.info) for slot in found] == [("new text", True)] * 3
        assert "the patch of document 'd9' met nothing" in again.certificate.notes
