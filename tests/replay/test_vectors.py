"""Two stores with equal documents and other vectors find something else, so their vectors count, and how they are searched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

import clew
from clew.integrations.langchain import vectors
from clew.replay.code.witness import Witness
from clew.store.errors import Unkeyable
from clew.tracer.init import Tracer
from tests.replay.conftest import Caching
from tests.replay.remembered_bed import Change, changes
from tests.replay.test_remembered import in_memory, of_store

NAMES = ("one", "two")


class Given(Embeddings):
    """Whoever asks has the vector; the documents got theirs when they were put in."""

    def embed_query(self, text: str) -> list[float]:
        return [1.0, 0.0]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1.0, float(at)] for at, _ in enumerate(texts)]


def held_in_memory(order: int) -> Any:
    store = InMemoryVectorStore(Given())
    store.add_documents([Document(name, id=name) for name in NAMES])
    for at, name in enumerate(NAMES[::order]):
        store.store[name]["vector"] = [1.0, float(at)]
    return store


def held_in_faiss(order: int) -> Any:
    community = pytest.importorskip("langchain_community.vectorstores.faiss")
    pytest.importorskip("faiss")
    store = community.FAISS.from_documents([Document(name, id=name) for name in NAMES], Given())
    store.index.reset()
    store.index.add(np.array([[1, 0], [1, 1]][::order], "float32"))
    return store


@pytest.mark.parametrize("held", [held_in_memory, held_in_faiss], ids=lambda held: held.__name__)
def test_equal_documents_with_other_vectors_are_another_store(caching: Caching, held: Callable[[int], Any]) -> None:
    """Once the first store's answer was served to the second."""
    with caching(clew.Cache(retriever=True)):
        found = [held(order).as_retriever(search_kwargs={"k": 1}).invoke("q")[0].page_content for order in (1, -1, 1)]
    assert found == ["one", "two", "one"]


def test_equal_vectors_have_one_key(tracer: Tracer) -> None:
    for make in (held_in_memory, held_in_faiss):
        assert len({of_store(tracer, make(1)) for _ in range(2)}) == 1


@pytest.mark.parametrize("kind", [np.float64, np.float32], ids=lambda kind: kind.__name__)
def test_numbers_of_numpy_in_a_vector(tracer: Tracer, kind: Any) -> None:
    store = in_memory()
    plain = of_store(tracer, store)
    for record in store.store.values():
        record["vector"] = [*map(kind, record["vector"])]
    assert of_store(tracer, store) != plain
    assert changes(lambda: of_store(tracer, store), lambda: store.store["1"]["vector"].__setitem__(0, kind(0.5)))


VECTOR: dict[str, Any] = {
    "an array": np.array([0.5, 1.0]),
    "a tuple": (0.5, 1.0),
    "with a number of another type": [0.5, 1],
    "longer": [0.5, 1.0, 1.0],
}


@pytest.mark.parametrize("vector", VECTOR.values(), ids=VECTOR.keys())
def test_a_vector_that_is_no_list_of_floats(tracer: Tracer, vector: Any) -> None:
    store = in_memory()
    store.store["1"]["vector"] = [0.5, 1.0]
    change = lambda: store.store["1"].update(vector=copy.copy(vector))  # noqa: E731
    assert changes(lambda: of_store(tracer, store), change)
    if not isinstance(vector, tuple):
        assert changes(lambda: of_store(tracer, store), lambda: store.store["1"]["vector"].__setitem__(0, 7.5))


def test_an_array_that_is_put_into_a_vector(tracer: Tracer) -> None:
    store = in_memory()
    assert changes(lambda: of_store(tracer, store), lambda: store.store["1"]["vector"].__setitem__(0, np.zeros(2)))


def test_vectors_are_told_once(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    for store in (held_in_memory(1), held_in_faiss(1)):
        retrieved = of_store(tracer, store)
        with monkeypatch.context() as patched:
            patched.setattr(vectors, "digest", pytest.fail)
            assert of_store(tracer, store) == retrieved


# -- indexes of FAISS


def hnsw(faiss: Any) -> Any:
    return faiss.IndexHNSWFlat(4, 8)


def ivf(faiss: Any) -> Any:
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(4), 4, 2)
    index.train(np.eye(4, dtype="float32"))
    return index


SEARCHED: dict[str, tuple[Callable[[Any], Any], Change]] = {
    "neighbours that are looked at": (hnsw, lambda index: setattr(index.hnsw, "efSearch", 77)),
    "how neighbours are searched": (hnsw, lambda index: setattr(index.hnsw, "check_relative_distance", False)),
    "cells that are looked at": (ivf, lambda index: setattr(index, "nprobe", 2)),
    "vectors that are looked at": (ivf, lambda index: setattr(index, "max_codes", 1)),
    "vectors": (ivf, lambda index: index.add(np.ones((1, 4), "float32"))),
}


@pytest.mark.parametrize(("make", "change"), SEARCHED.values(), ids=SEARCHED.keys())
def test_how_an_index_is_searched(make: Callable[[Any], Any], change: Change) -> None:
    faiss = pytest.importorskip("faiss")
    index = make(faiss)
    index.add(np.eye(4, dtype="float32"))
    witness = Witness()
    told = vectors._indexed(index, witness)
    assert vectors._indexed(index, Witness()) == told
    assert witness.holds()
    change(index)
    assert not witness.holds()
    assert vectors._indexed(index, Witness()) != told


def test_how_an_index_finds(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    store = held_in_faiss(1)
    change = lambda: monkeypatch.setattr(type(store.index), "search", lambda self, *args: ([[0.0]], [[0]]))  # noqa: E731
    assert changes(lambda: of_store(tracer, store), change)


def test_an_index_that_cannot_be_read_makes_no_key(tracer: Tracer) -> None:
    store = held_in_faiss(1)
    store.index.search = print
    with pytest.raises(Unkeyable, match="cannot be seen"):
        of_store(tracer, store)
    store.index = type("Own", (), {})()
    with pytest.raises(Unkeyable, match="Own cannot be seen"):
        of_store(tracer, store)
