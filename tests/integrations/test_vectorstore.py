"""Vector stores: writes, index versions, files, and searches with and without a retriever."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

import clew
from clew.integrations.langchain.index import STORES, index_name
from clew.store import decoding, encoding
from clew.store.digest import Digest, Domain, digest, text_digest
from tests.integrations.boundary_bed import Bed, instrumented, traced
from tests.integrations.log_reader import Read, read

BENCH = Path(__file__).parents[2].parent / "shared" / "bench"
DOCUMENTS = [
    Document(f"The {word} is on desk {i}.", metadata={"row": i}) for i, word in enumerate(["lamp", "cup", "key"])
]


class Letters(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(text.count(letter)) + 0.1 for letter in "abcdefghijklmnop"] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


class Pinned(VectorStore):
    """A remote store: not in the table, connection and all."""

    def __init__(self) -> None:
        self._collection_name = "desks"
        self.url = "https://someone:secret-word@db.example/desks"
        self.api_key = "an-api-key-of-theirs"
        self.held: dict[str, str] = {}

    def add_texts(
        self, texts: Iterable[str], metadatas: list[dict[str, Any]] | None = None, **kwargs: Any
    ) -> list[str]:
        names = [f"p{len(self.held) + i}" for i, _ in enumerate(texts)]
        self.held.update(zip(names, texts, strict=False))
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        return all(self.held.pop(name, None) for name in ids or [])

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return [Document(text, id=name) for name, text in list(self.held.items())[:k]]

    @classmethod
    def from_texts(cls, texts: list[str], embedding: Embeddings, metadatas: Any = None, **kwargs: Any) -> Pinned:
        store = cls()
        store.add_texts(texts, metadatas)
        return store


def name_of(document: Document) -> bytes:
    fields = {"text": document.page_content, "metadata": document.metadata, "id": document.id}
    return bytes(encoding.value_digest(fields))


def index_slots(span: Read) -> list[tuple[str, bytes]]:
    return [(slot.kind, slot.digest) for slot in span.used if slot.role == "index"]


def manifest(bed: Bed, name: bytes) -> Any:
    return decoding.decode(bed.log.blobs[Digest(name)])


def test_adding_documents_relates_each_entry_to_its_document(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        store = InMemoryVectorStore(Letters())
        names = store.add_documents(DOCUMENTS)
        log = bed.log
        span = log.one("index")
        assert span.name == "add InMemoryVectorStore"
        assert span.attributes["clew.operation"] == "add"
        documents, model = span.used
        assert [one["text"] for one in log.value(documents)] == [one.page_content for one in DOCUMENTS]
        assert (model.role, model.kind, model.name) == ("model", "model", "Letters")
        assert [one["id"] for one in log.value(span.generated[0])] == names
        assert [log.parent(one) for one in log.of("embedding")] == [span]
        entries = [one.model_copy(update={"id": name}) for one, name in zip(DOCUMENTS, names, strict=True)]
        assert bed.declared.pairs("document", "document", "derived_from") == [
            (name_of(entry), name_of(one), None, None) for entry, one in zip(entries, DOCUMENTS, strict=True)
        ]
        assert not bed.faults


def test_an_entry_that_is_its_document_is_not_derived_from_itself(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        InMemoryVectorStore(Letters()).add_documents([Document("a text", id="a")])
        assert bed.declared.derivations == []


@pytest.mark.parametrize("way", ["add_texts", "from_texts", "from_documents", "aadd_documents", "afrom_texts"])
async def test_every_way_of_adding_is_one_span(way: str, tmp_path: Path) -> None:
    texts = [one.page_content for one in DOCUMENTS]
    metadatas = [one.metadata for one in DOCUMENTS]
    with traced(tmp_path) as bed:
        match way:
            case "add_texts":
                store = InMemoryVectorStore(Letters())
                store.add_texts(iter(texts), metadatas)
            case "from_texts":
                store = InMemoryVectorStore.from_texts(texts, Letters(), metadatas)
            case "from_documents":
                store = InMemoryVectorStore.from_documents(DOCUMENTS, Letters())
            case "aadd_documents":
                store = InMemoryVectorStore(Letters())
                await store.aadd_documents(DOCUMENTS)
            case _:
                store = await InMemoryVectorStore.afrom_texts(texts, Letters(), metadatas)
        log = bed.log
        span = log.one("index")
        held = [Document(one["text"], metadata=one["metadata"], id=name) for name, one in store.store.items()]
        assert [one["id"] for one in log.value(span.generated[0])] == [one.id for one in held]
        assert bed.declared.pairs("document", "document", "derived_from") == [
            (name_of(entry), name_of(one), None, None) for entry, one in zip(held, DOCUMENTS, strict=True)
        ]
        assert len(log.of("embedding")) == 1
        assert not bed.faults


def test_a_save_names_the_version_its_members_and_its_file(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    with traced(tmp_path) as bed:
        store = InMemoryVectorStore(Letters())
        names = store.add_documents(DOCUMENTS)
        store.dump(str(path))
        log, declared = bed.log, bed.declared
        span = log.of("index")[1]
        assert span.name == "save InMemoryVectorStore"
        ((kind, version),) = index_slots(span)
        assert kind == "index"
        held = manifest(bed, version)
        entries = [one.model_copy(update={"id": name}) for one, name in zip(DOCUMENTS, names, strict=True)]
        assert [one.digest for one in held["entries"]] == [name_of(one) for one in entries]  # ids that were made anew
        (file,) = span.generated
        assert (file.role, file.kind, file.domain, file.name) == ("file", "file", Domain.BYTES, str(path))
        assert file.digest == digest(Domain.BYTES, path.read_bytes())
        assert declared.pairs("file", "index", "derived_from") == [(file.digest, version, None, None)]
        assert declared.pairs("document", "index", "part_of") == [
            (name_of(one), version, None, None) for one in entries
        ]
        (artifact,) = declared.artifacts
        assert (artifact.kind, artifact.digest, artifact.name) == ("index", version, "InMemoryVectorStore")
        space = log.of("index")[0].used[1].digest
        assert artifact.detail == {"entries": 3, "space": space.hex(), "name": "InMemoryVectorStore"}
        assert held["space"] == space
        assert file.digest not in log.blobs  # its bytes are not copied


def test_the_same_entries_are_the_same_version_in_any_order(tmp_path: Path) -> None:
    named = [one.model_copy(update={"id": str(i)}) for i, one in enumerate(DOCUMENTS)]
    with traced(tmp_path) as bed:
        for i, documents in enumerate((named, named[::-1], named[:2])):
            store = InMemoryVectorStore(Letters())
            store.add_documents(documents)
            store.dump(str(tmp_path / f"{i}.json"))
        versions = [index_slots(span)[0][1] for span in bed.log.of("index", "save InMemoryVectorStore")]
        assert versions[0] == versions[1] != versions[2]
        held = [[one.id, bytes(text_digest(one.page_content))] for one in named]
        assert manifest(bed, versions[0])["entries"] == held


def test_a_retriever_says_which_version_answered_and_a_version_is_made_once(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        store = InMemoryVectorStore(Letters())
        store.add_documents(DOCUMENTS)
        retriever = store.as_retriever(search_kwargs={"k": 2})
        retriever.invoke("lamp")
        retriever.invoke("cup")
        store.delete([next(iter(store.store))])
        retriever.invoke("lamp")
        first, second, third = (index_slots(span) for span in bed.log.of("retriever"))
        assert first == second != third
        assert [kind for kind, _ in first] == ["index"]
        assert len(bed.declared.artifacts) == 2
        assert len(bed.declared.pairs("document", "index", "part_of")) == 3 + 2


def test_writes_that_nobody_saw_are_counted_when_they_change_the_size(tmp_path: Path) -> None:
    store = InMemoryVectorStore(Letters())
    store.add_documents(DOCUMENTS[:2])  # before there was a tracer
    with traced(tmp_path) as bed:
        store.similarity_search("lamp")
        store.store["late"] = {"id": "late", "vector": [0.1] * 16, "text": "late text", "metadata": {}}
        store.similarity_search("lamp")
        sizes = [artifact.detail["entries"] for artifact in bed.declared.artifacts]
        assert sizes == [2, 3]


async def test_a_search_below_a_retriever_is_the_same_call_with_scores(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        store = InMemoryVectorStore.from_documents(DOCUMENTS, Letters())
        wanted = [score for _, score in store.similarity_search_with_score("lamp", k=2)]
        for kind, more in (("similarity", {}), ("mmr", {"fetch_k": 3})):
            retriever = store.as_retriever(search_type=kind, search_kwargs={"k": 2, **more})
            retriever.invoke("lamp")
            await retriever.ainvoke("lamp")
        log = bed.log
        direct, *spans = log.of("retriever")
        assert direct.name == "retrieval InMemoryVectorStore"
        assert len(spans) == 4
        for span in spans:
            assert [log.parent(one) for one in log.of("embedding")].count(span) == 1
            assert [slot.info["rank"] for slot in span.generated if slot.info] == [0, 1]
        for span in spans[:2]:
            assert [slot.info["score"] for slot in span.generated if slot.info] == pytest.approx(wanted)


def test_relevance_scores_and_thresholds(tmp_path: Path) -> None:
    class Relevant(InMemoryVectorStore):
        def _select_relevance_score_fn(self) -> Any:
            return lambda score: score / 2

    with traced(tmp_path) as bed:
        store = Relevant.from_documents(DOCUMENTS, Letters())
        found = store.similarity_search_with_relevance_scores("lamp", k=1)
        (slot,) = bed.log.one("retriever").generated
        assert slot.info == {"rank": 0, "score": pytest.approx(found[0][1])}


async def test_a_direct_search_is_a_retriever_span(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        store = InMemoryVectorStore.from_documents(DOCUMENTS, Letters())
        with clew.trace("tool"):
            store.similarity_search("lamp", k=1)
        await store.asimilarity_search("cup", k=1)
        store.similarity_search_by_vector(Letters().embed_query("key"), k=1)
        log = bed.log
        spans = log.of("retriever")
        assert len(spans) == 3
        parent = log.parent(spans[0])
        assert parent is not None
        assert parent.name == "tool"
        assert log.value(spans[0].used[0]) == "lamp"
        assert spans[0].attributes["gen_ai.retrieval.top_k"] == 1
        assert len(index_slots(spans[0])) == 1
        assert not bed.faults


def test_a_retriever_of_ones_own_that_searches_a_store_names_its_index(tmp_path: Path) -> None:
    class Mine(BaseRetriever):
        store: Any

        def _get_relevant_documents(self, query: str) -> list[Document]:
            return [one for one, _ in self.store.similarity_search_with_score(query, k=1)]

    with instrumented(tmp_path) as bed:
        store = InMemoryVectorStore.from_documents(DOCUMENTS, Letters())
        Mine(store=store).invoke("lamp")
        span = bed.log.one("retriever")
        assert span.name == "Mine"
        assert len(index_slots(span)) == 1
        (slot,) = span.generated
        assert slot.info is not None
        assert slot.info["score"] > 0


def test_a_loaded_store_is_its_file_until_it_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    InMemoryVectorStore.from_documents(DOCUMENTS, Letters()).dump(str(path))
    name = digest(Domain.BYTES, path.read_bytes())
    with instrumented(tmp_path) as bed:
        store = InMemoryVectorStore.load(str(path), Letters())
        store.as_retriever().invoke("lamp")
        store.add_texts(["another text"])
        store.as_retriever().invoke("lamp")
        log = bed.log
        load = log.one("index", "load InMemoryVectorStore")
        assert [(slot.role, slot.kind, slot.domain, slot.digest, slot.name) for slot in load.used] == [
            ("file", "file", Domain.BYTES, name, str(path))
        ]
        before, after = (index_slots(span) for span in log.of("retriever"))
        assert before == [("file", name)]
        assert after[0][0] == "index"
        assert len(manifest(bed, after[0][1])["entries"]) == 4


def test_a_file_that_is_not_there_is_the_programs_error(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        with pytest.raises(FileNotFoundError):
            InMemoryVectorStore.load(str(tmp_path / "none.json"), Letters())
        span = bed.log.one("index")
        assert span.status == "error"
        assert span.start.used == []


def test_a_store_that_is_not_in_the_table_is_observed_without_its_secrets(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        store = Pinned()
        store.add_documents(DOCUMENTS)
        store.similarity_search("lamp")
        store.similarity_search("lamp")
        store.delete(["p0"])
        store.similarity_search("lamp")
        log = bed.log
        first, again, later = (index_slots(span)[0] for span in log.of("retriever"))
        assert first == again != later
        about = log.value(next(slot for slot in log.of("retriever")[0].used if slot.role == "index"))
        assert about["connection"] == {"collection_name": "desks", "url": "https://db.example/desks"}
        assert {artifact.name for artifact in bed.declared.artifacts} == {"desks"}
        assert not any(b"secret-word" in blob or b"api-key-of" in blob for blob in log.blobs.values())
        assert not bed.faults


def test_a_store_in_a_table_row_of_faiss_is_saved_loaded_and_enumerated(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    community = pytest.importorskip("langchain_community.vectorstores.faiss")
    folder = tmp_path / "faiss"
    with instrumented(tmp_path) as bed:
        store = community.FAISS.from_documents(DOCUMENTS, Letters())
        store.save_local(str(folder))
        again = community.FAISS.load_local(str(folder), Letters(), allow_dangerous_deserialization=True)
        again.as_retriever(search_kwargs={"k": 1}).invoke("lamp")
        log = bed.log
        add, save, load = log.of("index")
        assert [one["text"] for one in log.value(add.generated[0])] == [one.page_content for one in DOCUMENTS]
        assert all(one["id"] for one in log.value(add.generated[0]))
        assert len(manifest(bed, index_slots(save)[0][1])["entries"]) == 3
        files = {slot.name: slot.digest for slot in save.generated}
        assert sorted(files) == [str(folder / "index.faiss"), str(folder / "index.pkl")]
        assert {slot.name: slot.digest for slot in load.used} == files
        assert [kind for kind, _ in index_slots(log.one("retriever"))] == ["file", "file"]
        assert not bed.faults


def test_the_tables_names_are_those_of_the_classes() -> None:
    assert encoding.qualified_name(InMemoryVectorStore) in STORES
    assert index_name(Pinned()) == "desks"


def test_two_processes_join_by_file_and_entry_digests(tmp_path: Path) -> None:
    script = BENCH / "two_process_rag.py"
    if not script.exists():
        pytest.skip(f"{script} is not there: the bench lies beside the repository")
    path = tmp_path / "kb.json"
    environment = {"PATH": "", "PYTHONPATH": str(Path(__file__).parents[2]), "CLEW_STORE": str(tmp_path / "s")}
    environment |= {"TRACED": "1", "PYTHONWARNINGS": "ignore"}

    def run(*arguments: str) -> str:
        command = [sys.executable, str(script), *arguments]
        return subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout

    run("index", str(path))
    told = json.loads(run("ask", str(path), "Which desk handles parental leave?"))
    log = read(tmp_path / "s" / "log")
    save, load = log.one("index", "save InMemoryVectorStore"), log.one("index", "load InMemoryVectorStore")
    assert [slot.digest for slot in save.generated] == [slot.digest for slot in load.used]
    retriever = log.one("retriever")
    assert index_slots(retriever) == [("file", load.used[0].digest)]
    add = log.one("index", "add InMemoryVectorStore")
    entries = {encoding.value_digest(one) for one in log.value(add.generated[0])}
    found = [(log.value(slot), slot.digest) for slot in retriever.generated]
    assert told["used"] == ["h0"]
    assert {one["metadata"]["row"] for one, _ in found} >= {"h0"}
    assert {name for _, name in found} <= entries
    spaces = {slot.digest for span in log.of("embedding") for slot in span.used if slot.role == "model"}
    assert len(spaces) == 1
