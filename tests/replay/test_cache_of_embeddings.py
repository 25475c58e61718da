"""The cache of embeddings: a batch computes only its new texts."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.embeddings import Embeddings

from tests.replay.cache_bed import spans
from tests.replay.conftest import LIVE, Caching, live


class Vectors(Embeddings):
    """Counts each text that it really embeds."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        live("call")
        return [[len(text) * self.scale, float(live(text))] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed_documents(texts)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_batch_computes_only_its_new_texts(caching: Caching, is_async: bool) -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        return asyncio.run(Vectors().aembed_documents(texts)) if is_async else Vectors().embed_documents(texts)

    texts = [f"text {number}" for number in range(100)]
    with caching() as tracer:
        first = embed(texts[:97])
        again = embed([*texts[3:], "text 5", *texts[:3]])
        assert embed(texts)[:97] == first
        hits = [span.attributes["clew.cache.hits"] for span in spans(tracer, "embedding")]
    assert again[:94] == first[3:]
    assert again[97] == first[5]
    assert again[98:] == first[:3]
    assert hits == [0, 98, 100]
    assert {"call": 2, **dict.fromkeys(texts, 1)} == LIVE


def test_a_query_and_a_document_are_asked_differently(caching: Caching) -> None:
    with caching():
        assert Vectors().embed_query("x") == Vectors().embed_query("x")
        Vectors().embed_documents(["x"])
        Vectors(scale=2.0).embed_query("x")
        assert Vectors().embed_documents(texts=["x", "y", "x"]) == [[1.0, 2.0], [1.0, 1.0], [1.0, 2.0]]
    assert LIVE["call"] == 4


def test_texts_that_run_together_are_different_batches(caching: Caching) -> None:
    """LlamaIndex (run-llama#23002): ['ab', 'c'] was answered with what ['a', 'bc'] was."""
    with caching():
        assert [vector[0] for vector in Vectors().embed_documents(["ab", "c"])] == [2, 1]
        assert [vector[0] for vector in Vectors().embed_documents(["a", "bc"])] == [1, 2]


def test_a_model_that_was_fitted_anew_computes_anew(caching: Caching) -> None:
    model = Vectors()
    with caching():
        first = model.embed_documents(["abc"])
        model.scale = 3.0
        assert model.embed_documents(["abc"]) != first
