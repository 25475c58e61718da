"""What is remembered of an embedding model is what it is: whatever is changed in it, however deep, is another key."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from pydantic import BaseModel, ConfigDict, SecretStr

from clew.integrations.langchain import embedding_exchange
from clew.integrations.langchain.embedding_exchange import EmbeddingBatch, EmbeddingExchange, EmbeddingModel
from clew.store.errors import Unkeyable
from clew.tracer.init import Tracer
from tests.lineage.lineage_bed import BagOfWords
from tests.replay import remembered_bed
from tests.replay.remembered_bed import (
    CLIENT,
    MODEL,
    Change,
    Hears,
    Part,
    asked,
    changes,
    client,
    made,
    reached,
    wrapped,
)


class Counting(BaseModel, Embeddings):
    """Embeddings that are a pydantic model, as a provider's are."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    base_url: str = ""
    top_k: int = 1
    key: SecretStr = SecretStr("hidden")

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(len(text))] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(len(text))]


class Plain(Embeddings):
    """Embeddings that are a plain class, with a slot."""

    __slots__ = ("slot",)

    def __init__(self) -> None:
        self.words = {"a": [1]}
        self.part = Part()
        self.slot = [1]

    embed_documents = Counting.embed_documents
    embed_query = Counting.embed_query


def of_text(tracer: Tracer, embeddings: Any, more: Any = ((), {})) -> bytes:
    model = EmbeddingModel(embeddings, list(more), "model")
    one = asked(tracer, EmbeddingExchange("embed_query", model, "hello"), "embedding")
    assert asked(tracer, EmbeddingBatch("embed_query", model, ("hi", "hello")).each()[1], "embedding") == one
    return one


def is_remembered(embeddings: Any) -> bool:
    """Whether the model is not looked at again."""
    try:
        embedding_exchange._models.of(embeddings, _made_again)
    except LookupError:
        return False
    return True


def _made_again(*args: Any) -> Any:
    raise LookupError


@pytest.mark.parametrize("change", MODEL.values(), ids=MODEL.keys())
def test_what_a_model_is_made_of(tracer: Tracer, way: None, change: Change) -> None:
    model = made(Counting, 1)(part=Part(), stops={"a": [1]})
    model.part.inner = {"a": [1, {"b": 2}]}
    assert changes(lambda: of_text(tracer, model), lambda: change(model))
    assert is_remembered(model)


PLAIN: dict[str, Change] = {
    "an attribute": lambda model: setattr(model, "words", {}),
    "a new attribute": lambda model: setattr(model, "new", 1),
    "an attribute less": lambda model: delattr(model, "words"),
    "a list in a dict": lambda model: model.words["a"].append(2),
    "a part": lambda model: model.part.inner["a"][1].update(b=3),
    "a slot": lambda model: setattr(model, "slot", [2]),
    "a list in a slot": lambda model: model.slot.append(2),
    "a client that was none": lambda model: setattr(model, "client", client(base_url="https://two.example")),
    "its class": lambda model: setattr(model, "__class__", type("Other", (Plain,), {})),
}


@pytest.mark.parametrize("change", PLAIN.values(), ids=PLAIN.keys())
def test_what_a_plain_model_is_made_of(tracer: Tracer, way: None, change: Change) -> None:
    model = Plain()
    assert changes(lambda: of_text(tracer, model), lambda: change(model))
    assert is_remembered(model)


@pytest.mark.parametrize(
    ("name", "value"), [("LIMIT", 4), ("WORDS", ["b"]), ("helped", lambda of: of + 1)], ids=lambda one: str(one)[:8]
)
def test_what_a_module_holds(tracer: Tracer, way: None, monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    model = made(Counting, 1)()
    assert changes(lambda: of_text(tracer, model), lambda: monkeypatch.setattr(remembered_bed, name, value))


def test_a_method_of_a_class_above(tracer: Tracer, way: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(Counting, 1)()
    change = lambda: monkeypatch.setattr(Counting, "embed_query", lambda self, text: [1.0])  # noqa: E731
    assert changes(lambda: of_text(tracer, model), change)


@pytest.mark.parametrize("change", CLIENT.values(), ids=CLIENT.keys())
def test_where_a_client_leads(tracer: Tracer, way: None, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hears, "handle_request", Hears.handle_request)
    inner = client(base_url="https://one.example", headers={"tenant": "one"}, mounts={"all://": Hears()})
    model = reached(Counting)(client=wrapped(inner))
    assert changes(lambda: of_text(tracer, model), lambda: change(model))


def test_a_client_that_is_made_when_it_is_needed(tracer: Tracer, way: None) -> None:
    model = reached(Counting)(client=wrapped(client()), base_url="https://one.example", headers={"tenant": "one"})
    assert not changes(lambda: of_text(tracer, model), lambda: model.lazy)
    assert changes(lambda: of_text(tracer, model), lambda: model.headers.update(tenant="two"))


def test_a_client_that_is_not_changed_is_not_asked_again(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    model = reached(Counting)(client=wrapped(client(base_url="https://one.example")))
    for _ in range(2):  # httpx finds out how its headers are encoded when they are first read
        of_text(tracer, model)
    assert is_remembered(model)
    monkeypatch.setattr(embedding_exchange, "reach", pytest.fail)
    of_text(tracer, model)


class Closed:
    """A client that has no dictionary, so that nobody can see what will be in it."""

    __slots__ = ("base_url",)
    __module__ = "openai"


def test_a_client_that_cannot_be_seen_is_asked_each_time_and_the_model_is_not(tracer: Tracer, way: None) -> None:
    inner = client(base_url="https://one.example")
    model = reached(Counting)(client=wrapped(inner), headers=Closed())
    assert changes(lambda: of_text(tracer, model), lambda: setattr(inner, "base_url", "https://two.example"))
    assert is_remembered(model)
    assert embedding_exchange._models.of(model, pytest.fail).reached is None


def test_a_client_whose_requests_something_unknown_answers(tracer: Tracer) -> None:
    class Holding(Hears):
        def __init__(self) -> None:
            self.held = iter([])

    model = reached(Counting)(client=wrapped(client(transport=Holding())))
    for _ in range(2):
        with pytest.raises(Unkeyable, match="iterator"):
            of_text(tracer, model)
    model.client._client._transport.held = []
    of_text(tracer, model)


def test_a_model_that_has_no_form_has_no_key_until_it_has_one(tracer: Tracer, way: None) -> None:
    model = Plain()
    before = of_text(tracer, model)
    words, model.words = model.words, iter([])  # type: ignore[assignment]
    for _ in range(2):
        with pytest.raises(Unkeyable, match="words"):
            of_text(tracer, model)
    model.words = words
    assert of_text(tracer, model) == before


def test_what_else_a_call_is_given(tracer: Tracer) -> None:
    model = BagOfWords()
    given = [((), {}), ((1,), {}), ((), {"chunk_size": 1}), ((), {"chunk_size": 1.0}), ((), {"part": Part()})]
    assert len({of_text(tracer, model, one) for one in given}) == len(given)
    with pytest.raises(Unkeyable, match="lock"):
        of_text(tracer, model, ((), {"lock": threading.Lock()}))


def test_what_is_only_how_a_model_is_known_is_no_part_of_it(tracer: Tracer) -> None:
    model = Counting()
    assert not changes(lambda: of_text(tracer, model), lambda: setattr(model, "key", SecretStr("another")))


def test_a_new_secret_changes_what_is_remembered(tracer: Tracer) -> None:
    """One that no other test adds: a process never forgets a secret."""
    model = Counting(base_url="swordfish-swordfish")
    assert changes(lambda: of_text(tracer, model), lambda: tracer.gate.secrets.add("swordfish-swordfish"))


def test_an_array_that_is_changed_in_place(tracer: Tracer) -> None:
    numpy = pytest.importorskip("numpy")
    model = Plain()
    model.part.depth = numpy.zeros(3)
    assert changes(lambda: of_text(tracer, model), lambda: model.part.depth.__setitem__(1, 1))
    assert not is_remembered(model)


def test_a_model_that_is_gone_is_forgotten(tracer: Tracer) -> None:
    def keys() -> Iterator[bytes]:
        for scale in range(50):
            model = Plain()
            model.words = {"scale": [scale]}
            yield of_text(tracer, model)

    assert len(set(keys())) == 50
