"""Embeddings: one call, one span, and the space it answered in."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import BaseModel, SecretStr

import clew
from clew.integrations.langchain.space import space_of
from clew.store import encoding
from tests.integrations.boundary_bed import traced


class Lengths(Embeddings):
    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [self.scale * len(text), 1.0]


class AsyncFirst(Lengths):
    async def aembed_query(self, text: str) -> list[float]:
        return self.embed_query(text)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return asyncio.run(self.aembed_documents(texts))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(len(text)), 2.0] for text in texts]


class Broken(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise RuntimeError("no such model")

    embed_query = embed_documents  # type: ignore[assignment]


class Duck:
    """Behaves like embeddings and says so nowhere."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(len(text)), 3.0] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(len(text)), 3.0]


class Remote(BaseModel, Embeddings):
    model: str = "small"
    api_key: SecretStr = SecretStr("hunter2hunter2")
    timeout: float = 3.0
    client: Any = None

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1.0]] * len(texts)

    def embed_query(self, text: str) -> list[float]:
        return [1.0]


class Fitted(Lengths):
    def __init__(self) -> None:
        super().__init__()
        self.weights = np.zeros(3)


def test_a_call_is_one_span_with_texts_space_and_vectors(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        assert Lengths().embed_documents(["ab", "c"]) == [[2.0, 1.0], [1.0, 1.0]]
        log = bed.log
        span = log.one("embedding")
        assert span.status == "ok"
        assert span.name == "embeddings Lengths"
        texts, model = span.used
        assert (texts.role, texts.kind, log.value(texts)) == ("texts", "value", ("ab", "c"))
        assert (model.role, model.kind, model.name) == ("model", "model", "Lengths")
        assert log.value(model)["class"].endswith("test_embedding.Lengths")
        assert log.value(model)["configuration"] == {"scale": 1.0}
        (vectors,) = span.generated
        assert (vectors.role, vectors.kind) == ("vectors", "embedding")
        dtype, shape, elements = log.value(vectors)
        assert (dtype, shape) == ("<f8", (2, 2))
        assert array("d", elements).tolist() == [2.0, 1.0, 1.0, 1.0]
        assert span.attributes["gen_ai.embeddings.dimension.count"] == 2
        assert not bed.faults


async def test_async_calls_are_one_span_whatever_they_delegate_to(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        await Lengths().aembed_documents(["ab"])  # LangChain's default runs the sync method in an executor
        await Lengths().aembed_query("ab")
        await AsyncFirst().aembed_query("ab")
        assert len(bed.log.of("embedding")) == 3
        await asyncio.to_thread(AsyncFirst().embed_documents, ["ab"])  # sync from async
        assert len(bed.log.of("embedding")) == 4


async def test_concurrent_calls_keep_their_own_texts_and_parents(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        embeddings = AsyncFirst()

        async def one(i: int) -> None:
            with clew.trace(f"task {i}"):
                await embeddings.aembed_query("x" * i)

        await asyncio.gather(*(one(i) for i in range(20)))

        def two(i: int) -> None:
            with clew.trace(f"task {i}"):
                embeddings.embed_query("y" * i)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(two, range(20)))
        log = bed.log
        spans = log.of("embedding")
        assert len(spans) == 40
        for span in spans:
            parent = log.parent(span)
            assert parent is not None
            (text,) = log.value(span.used[0])
            assert parent.name == f"task {len(text)}"


def test_an_error_ends_the_span_and_reaches_the_program(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        with pytest.raises(RuntimeError, match="no such model"):
            Broken().embed_documents(["a"])
        span = bed.log.one("embedding")
        assert span.status == "error"
        assert span.attributes["exception.message"] == "no such model"


def test_an_embeddings_object_of_no_known_class_is_caught_at_the_store(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        store = InMemoryVectorStore(Duck())  # type: ignore[arg-type]
        store.add_texts(["abc"])
        store.similarity_search("ab")
        assert [span.name for span in bed.log.of("embedding")] == ["embeddings Duck"] * 2
    assert not hasattr(Duck.__dict__["embed_query"], "__wrapped__")


def test_ragged_and_foreign_vectors_are_captured_as_they_are(tmp_path: Path) -> None:
    class Odd(Lengths):
        def embed_documents(self, texts: list[str]) -> Any:
            return [[1.0], [1.0, 2.0]]

        def embed_query(self, text: str) -> Any:
            return np.ones(3, dtype="float32")

    with traced(tmp_path) as bed:
        assert Odd().embed_documents(["a", "b"]) == [[1.0], [1.0, 2.0]]
        Odd().embed_query("a")
        log = bed.log
        ragged, plain = log.of("embedding")
        assert log.value(ragged.generated[0]) == [[1.0], [1.0, 2.0]]
        assert log.value(plain.generated[0])[:2] == ("<f8", (3,))
        assert not bed.faults


def test_vectors_have_one_digest_with_and_without_numpy() -> None:
    program = (
        "import sys\n{}\nfrom clew.integrations.langchain import embedding\nfrom clew.tracer import init\n"
        "import tempfile\ntracer = init.init(store=tempfile.mkdtemp() + '/s')\n"
        "assert ('numpy' in sys.modules) == bool({!r})\n"
        "slots, _ = embedding._vectors([[1, 2.5], [3.0, -1.0]])\nprint(slots[0][2][1].hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program.format(line, line)],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
        ).stdout
        for line in ("import numpy", "")
    }
    assert len(found) == 1


def test_the_space_is_made_once_and_again_when_a_setting_changes() -> None:
    embeddings = Lengths()
    first = space_of(embeddings)
    assert space_of(embeddings) is first
    embeddings.scale = 2.0
    assert space_of(embeddings)["configuration"] == {"scale": 2.0}
    assert space_of(Lengths(2.0)) == space_of(embeddings)


def test_the_space_follows_state_that_was_fitted_later() -> None:
    embeddings = Fitted()
    first = space_of(embeddings)
    assert first["configuration"] == {"scale": 1.0}
    embeddings.weights = np.ones(3)
    assert space_of(embeddings)["state"] != first["state"]
    again = Fitted()
    again.weights = np.ones(3)
    assert space_of(again) == space_of(embeddings)


def test_the_space_of_an_estimator_follows_its_fit() -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")

    class TfIdf(Lengths):
        def __init__(self) -> None:
            super().__init__()
            self.vectorizer = text.TfidfVectorizer()

    embeddings = TfIdf()
    unfitted = space_of(embeddings)
    embeddings.vectorizer.fit(["a cat", "a dog"])
    fitted = space_of(embeddings)
    assert fitted["state"] != unfitted["state"]
    other = TfIdf()
    other.vectorizer.fit(["a cat", "a dog"])
    assert space_of(other) == fitted
    other.vectorizer.fit(["a cat", "a cow"])
    assert space_of(other) != fitted


def test_how_a_service_is_reached_is_no_part_of_the_space(tmp_path: Path) -> None:
    one = Remote()
    other = Remote(api_key=SecretStr("another-key-altogether"), timeout=9.0, client=object())
    assert space_of(one) == space_of(other)
    assert space_of(one)["configuration"] == {"model": "small"}
    assert space_of(Remote(model="large")) != space_of(one)
    with traced(tmp_path) as bed:
        one.embed_query("x")
        assert bed.log.one("embedding").name == "embeddings small"


def test_two_classes_of_one_name_have_two_spaces() -> None:
    def made(value: float) -> Embeddings:
        if value == 1.0:

            class Same(Lengths):
                def embed_query(self, text: str) -> list[float]:
                    return [1.0]
        else:

            class Same(Lengths):  # type: ignore[no-redef]
                def embed_query(self, text: str) -> list[float]:
                    return [2.0]

        return Same()

    one, other = space_of(made(1.0)), space_of(made(2.0))
    assert one["class"] == other["class"]
    assert one["code"] != other["code"]


def test_wrapping_does_not_change_the_space(tmp_path: Path) -> None:
    class Fresh(Lengths):
        def embed_query(self, text: str) -> list[float]:
            return [7.0]

    class Twin(Lengths):
        def embed_query(self, text: str) -> list[float]:
            return [7.0]

    plain = space_of(Fresh())
    with traced(tmp_path):
        assert space_of(Twin())["code"] == plain["code"]


def test_a_space_is_encodable_and_holds_no_object(tmp_path: Path) -> None:
    assert encoding.encode_key(space_of(DeterministicFakeEmbedding(size=3)))
    assert encoding.encode_key(space_of(Fitted()))
