"""Indexes are compared by their documents as they were added, and not by ids that were made anew for them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

import clew
from clew.lineage.difference.result import Difference
from tests.lineage.diff_bed import changes_of, echo, newest, parted
from tests.lineage.lineage_bed import Fake, traced

TEXTS = ["Leave is 20 days.", "Refunds take a week.", "Invoices go by post.", "Travel is by train.", "Keys are lent."]


class Letters(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(text.count(letter)) + 0.1 for letter in "abcdefghijklmnop"] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


class Remote(VectorStore):
    """A store that clew cannot look into, which makes ids as those of LangChain do."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}

    def add_texts(self, texts: Iterable[str], metadatas: Any = None, *, ids: Any = None, **kwargs: Any) -> list[str]:
        given = list(texts)
        names = list(ids) if ids else [str(uuid.uuid4()) for _ in given]
        self.held.update(zip(names, given, strict=True))
        return names

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return [Document(text, id=name) for name, text in list(self.held.items())[:k]]

    @classmethod
    def from_texts(cls, texts: list[str], embedding: Embeddings, metadatas: Any = None, **kwargs: Any) -> Remote:
        raise NotImplementedError


@pytest.fixture
def store(clean_tracing: None, tmp_path: Path) -> Iterator[Path]:
    with traced(tmp_path) as folder:
        yield folder


def filled(documents: Sequence[Document], ids: list[str] | None = None) -> InMemoryVectorStore:
    made = InMemoryVectorStore(Letters())
    made.add_documents([one.model_copy() for one in documents], ids=ids)
    return made


def given(*texts: str, **metadata: Any) -> list[Document]:
    return [Document(text, metadata=metadata) for text in texts]


def ask(index: VectorStore) -> None:
    found = index.as_retriever(search_kwargs={"k": 1}).invoke("refunds")
    Fake(reply=echo).invoke(found[0].page_content)


def asked(store: Path, index: VectorStore) -> str:
    """A run that asks an index, which was filled outside of it."""
    with clew.run("asked"):
        ask(index)
    return newest(store)


def data_of(found: Difference) -> bool | None:
    return next(facet.equal for facet in found.facets if facet.name == "data")


def test_a_strict_replay_that_fills_an_index_anew_is_equal(clean_tracing: None, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    clew.init(project="tests", store=folder, record=True)
    clew.instrument()

    def program() -> str:
        index = InMemoryVectorStore.from_texts(TEXTS[:2], Letters())
        index.add_documents(given(*TEXTS[2:]))
        found = index.as_retriever(search_kwargs={"k": 2}).invoke("refunds")
        index.similarity_search("keys")
        return str(Fake(reply=echo).invoke(found[0].page_content).content)

    with clew.run("rag") as run:
        first = program()
    with clew.replay(run) as again:
        assert program() == first
    assert again.certificate.holds
    found = clew.diff(again.id, store=folder)
    assert found.equal, found.text()
    assert data_of(found)


def test_the_same_documents_under_ids_that_were_made_anew_are_the_same_index(store: Path) -> None:
    found = clew.diff(asked(store, filled(given(*TEXTS))), asked(store, filled(given(*TEXTS))), store=store)
    assert found.equal, found.text()
    assert data_of(found)


@pytest.mark.parametrize(
    ("other", "path"),
    [
        (given(*TEXTS[:4], "Keys are sold."), "index.entries[4].text"),
        (given(*TEXTS[:4]), "index.entries[4]"),
        ([*given(*TEXTS[:4]), *given(TEXTS[4], page=2)], "index.entries[4].metadata.page"),
        (given(*TEXTS[:3], TEXTS[4], TEXTS[3]), "index.entries[3].text"),
    ],
    ids=["another text", "one less", "other metadata", "another order"],
)
def test_an_index_of_other_documents_is_another(store: Path, other: list[Document], path: str) -> None:
    found = clew.diff(asked(store, filled(given(*TEXTS))), asked(store, filled(other)), store=store)
    assert not found.equal
    assert not data_of(found)
    where = found.divergences[0]
    assert (where.state, where.step.kind) == ("asked otherwise", "retriever")
    assert next(one.path for one in changes_of(where) if one.path.startswith("index")) == path


def test_ids_that_the_program_gave_count(store: Path) -> None:
    def once(*names: str) -> str:
        return asked(store, filled(given(*TEXTS[:2]), list(names)))

    assert clew.diff(once("a", "b"), once("a", "b"), store=store).equal
    found = clew.diff(once("a", "b"), once("a", "c"), store=store)
    assert ("asked otherwise", "retriever", "asked/VectorStoreRetriever") in parted(found)
    mixed = [str(uuid.uuid4()), "b"], [str(uuid.uuid4()), "c"]
    assert not clew.diff(once(*mixed[0]), once(*mixed[1]), store=store).equal
    assert clew.diff(once(*mixed[0]), once(str(uuid.uuid4()), "b"), store=store).equal


def test_a_store_that_cannot_be_looked_into_is_what_was_written_to_it(store: Path) -> None:
    def once(texts: list[str], ids: list[str] | None = None) -> str:
        with clew.run("asked"):
            index = Remote()
            index.add_texts(texts, ids=ids)
            ask(index)
        return newest(store)

    assert clew.diff(once(TEXTS), once(TEXTS), store=store).equal
    for one, other in (
        (once(TEXTS), once(TEXTS[:4])),
        (once(TEXTS), once(TEXTS[::-1])),
        (once(TEXTS[:1], ["a"]), once(TEXTS[:1], ["b"])),
    ):
        found = clew.diff(one, other, store=store)
        retriever = next(pair for pair in found.pairs() if pair.step.kind == "retriever")
        assert any(change.path == "index.writes" for change in changes_of(retriever)), found.text()
