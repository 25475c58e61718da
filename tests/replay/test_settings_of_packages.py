"""A provider's package can be told by a variable where to lead: that counts where its clients are made or used with a call."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import httpx
import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.tools import tool

import clew
from clew.integrations.langchain import embedding_exchange
from clew.integrations.langchain.embedding_exchange import EmbeddingExchange, EmbeddingModel
from clew.tracer.init import Tracer
from tests.replay.conftest import LIVE, Caching, Counted, live
from tests.replay.node_cache_bed import State, graph
from tests.replay.remembered_bed import Change, asked, changes
from tests.replay.test_remembered import of_model

openai = ModuleType("openai")  # as far as it is looked at
openai.dimensions = 1  # type: ignore[attr-defined]
anthropic = ModuleType("anthropic")
anthropic.Client = httpx.Client  # type: ignore[attr-defined]


class Calling(Embeddings):
    """Asks the package itself."""

    def embed_query(self, text: str) -> list[float]:
        live("embedding")
        return [float(openai.dimensions)]  # type: ignore[attr-defined]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


class Plain(Embeddings):
    def embed_query(self, text: str) -> list[float]:
        return [1.0]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("OPENAI_BASE_URL", "OPENAI_CUSTOM_HEADERS", "ANTHROPIC_CUSTOM_HEADERS", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("base_url", "api_base", "default_headers", "http_client", "_client"):
        monkeypatch.setattr(openai, name, None, raising=False)
    monkeypatch.setitem(sys.modules, "openai", openai)
    return openai


def of_embeddings(tracer: Tracer, embeddings: Any) -> bytes:
    return asked(tracer, EmbeddingExchange("embed_query", EmbeddingModel(embeddings, {}, "e"), "hello"), "embedding")


SET: dict[str, Change] = {
    "an address": lambda patch: patch.setattr(openai, "base_url", "https://two.example"),
    "an address, as it was called": lambda patch: patch.setattr(openai, "api_base", "https://two.example"),
    "an address of the environment": lambda patch: patch.setenv("OPENAI_BASE_URL", "https://two.example"),
    "headers": lambda patch: patch.setattr(openai, "default_headers", {"region": "two"}),
    "headers of the environment": lambda patch: patch.setenv("OPENAI_CUSTOM_HEADERS", "region: two"),
    "a client": lambda patch: patch.setattr(openai, "http_client", httpx.Client(base_url="https://two.example")),
    "a client with a hook": lambda patch: patch.setattr(
        openai, "http_client", httpx.Client(event_hooks={"request": [live]})
    ),
    "a client that was made before": lambda patch: patch.setattr(openai, "_client", made("https://two.example/")),
}


def made(address: str) -> Any:
    """The client that a module makes for itself when it is first asked."""
    client = type("_ModuleClient", (), {"__module__": "openai"})()
    client._base_url = httpx.URL(address)
    return client


@pytest.mark.parametrize("change", SET.values(), ids=SET.keys())
def test_how_a_package_is_set(tracer: Tracer, way: None, monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    calling, plain = Calling(), Plain()
    before = of_embeddings(tracer, plain)
    assert changes(lambda: of_embeddings(tracer, calling), lambda: change(monkeypatch))
    assert of_embeddings(tracer, plain) == before  # which does not call it


def test_what_is_set_is_not_asked_again(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    calling = Calling()
    monkeypatch.setenv("OPENAI_BASE_URL", "https://two.example")
    for _ in range(2):  # an object gets its dictionary when it is first asked for
        of_embeddings(tracer, calling)
    assert embedding_exchange._models.of(calling, pytest.fail).reached is not None


def test_two_servers_of_a_package_are_two(caching: Caching, monkeypatch: pytest.MonkeyPatch) -> None:
    with caching():
        for address in ("https://one.example", "https://two.example", "https://one.example"):
            monkeypatch.setattr(openai, "base_url", address)
            Calling().embed_query("hello")
    assert LIVE == {"embedding": 2}


def test_a_package_that_made_its_client_says_the_same(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> None:
        openai._client, openai.http_client = (
            made("https://two.example/v1/"),
            httpx.Client(base_url="https://two.example/v1/"),
        )
        openai.default_headers = {}

    calling = Calling()
    monkeypatch.setenv("OPENAI_BASE_URL", "https://two.example/v1")
    assert not changes(lambda: of_embeddings(tracer, calling), make)


class Held(Counted):
    client: Any = None


def test_a_client_that_stands_for_the_module(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Held(client=made("https://api.openai.com/v1/"))
    change = lambda: monkeypatch.setattr(openai, "base_url", "https://two.example")  # noqa: E731
    assert changes(lambda: of_model(tracer, model), change)


class Lazy(Counted):
    address: str = "https://one.example"

    @functools.cached_property
    def _client(self) -> httpx.Client:
        return anthropic.Client(self.address)  # type: ignore[attr-defined, no-any-return]


def test_the_environment_of_a_client_that_is_still_to_be_made(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Lazy()
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://one.example")  # as its field says
    assert of_model(tracer, model) == of_model(tracer, Lazy())
    change = lambda: monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "anthropic-beta: two")  # noqa: E731
    assert changes(lambda: of_model(tracer, model), change)


class Asker:
    def ask(self) -> float:
        return float(openai.dimensions)  # type: ignore[attr-defined]


asker = Asker()


class CallingByAnother(Plain):
    def embed_query(self, text: str) -> list[float]:
        return [asker.ask()]


@pytest.mark.parametrize("change", SET.values(), ids=SET.keys())
def test_a_package_that_is_called_further_in(
    tracer: Tracer, way: None, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    embeddings = CallingByAnother()
    assert changes(lambda: of_embeddings(tracer, embeddings), lambda: change(monkeypatch))


@clew.cached
def by_a_function(x: int) -> int:
    import openai

    return live(f"{openai.dimensions}")


@clew.cached
def by_an_argument(asking: Asker) -> int:
    return live(f"{asking.ask()}")


@clew.effect("pure")
@tool
def by_a_tool(x: int) -> int:
    """Ask."""
    return live(f"{asker.ask()}")


def by_a_node(state: State) -> State:
    return {"answer": live(f"{asker.ask()}")}


CALLING: dict[str, Callable[[], int]] = {
    "a function": lambda: by_a_function(1),
    "an argument of a function": lambda: by_an_argument(asker),
    "a tool": lambda: by_a_tool.invoke({"x": 1}),
    "a node": lambda: graph(by_a_node).invoke({"question": "x"})["answer"],
}
ADDRESSES = {name: change for name, change in SET.items() if "client" not in name}


@pytest.mark.parametrize("change", ADDRESSES.values(), ids=ADDRESSES.keys())
@pytest.mark.parametrize("call", CALLING.values(), ids=CALLING.keys())
def test_a_package_that_a_function_calls(
    caching: Caching, monkeypatch: pytest.MonkeyPatch, call: Callable[[], int], change: Change
) -> None:
    with caching():
        assert [call(), call()] == [1, 1]
        change(monkeypatch)
        assert [call(), call()] == [2, 2]


@pytest.mark.parametrize("call", CALLING.values(), ids=CALLING.keys())
def test_a_package_that_was_given_a_client_makes_no_key_of_a_function_that_calls_it(
    caching: Caching, monkeypatch: pytest.MonkeyPatch, call: Callable[[], int]
) -> None:
    with caching(), httpx.Client() as client:
        monkeypatch.setattr(openai, "http_client", client)
        assert [call(), call()] == [1, 2]
