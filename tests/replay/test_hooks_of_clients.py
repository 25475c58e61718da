"""Code of the program's own in a library's client counts, wherever it was put; what is the library's own does not."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Iterator
from types import MethodType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest
import requests
import requests.adapters

from clew.integrations.langchain import model_exchange
from clew.integrations.langchain.embedding_exchange import EmbeddingExchange, EmbeddingModel
from clew.store.errors import Unkeyable
from clew.tracer.init import Tracer
from tests.lineage.lineage_bed import BagOfWords
from tests.replay.conftest import LIVE, Caching, Counted
from tests.replay.remembered_bed import asked, changes, helped, part_of, reached, wrapped
from tests.replay.test_remembered import of_model

Reached = reached(Counted)


def one(request: Any = None, *more: Any, **options: Any) -> Any:
    return "one"


def two(request: Any = None, *more: Any, **options: Any) -> Any:
    return "two"


class Signed(httpx.Auth):
    def __init__(self, sign: Any) -> None:
        self.sign = sign

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:
        self.sign(request)
        yield request


class Caller:
    def __init__(self, call: Any) -> None:
        self.call = call

    def __call__(self) -> Any:
        return self.call()


def holding(**held: Any) -> Any:
    made = wrapped(httpx.Client(base_url="https://one.example"))
    vars(made).update(held)
    return made


def in_a_part(call: Any) -> Any:
    made = holding()
    made.chat.create = call
    return made


def in_the_transport(call: Any) -> httpx.Client:
    made = httpx.Client()
    made._transport.handle_request = call  # type: ignore[method-assign]
    return made


PLACES: dict[str, Callable[[Any], Any]] = {
    "a method": lambda call: holding(create=call),
    "a method, bound": lambda call: holding(create=MethodType(call, holding())),
    "a method of a part": in_a_part,
    "an authentication of the HTTP client": lambda call: holding(_client=httpx.Client(auth=call)),
    "a method of the way to the network": in_the_transport,
    "a partial": lambda call: holding(create=functools.partial(call, 1)),
    "an object": lambda call: holding(create=Caller(call)),
    "a part of its own": lambda call: holding(chat=Caller(call)),
    "a list": lambda call: holding(_middleware=[call]),
    "a dict": lambda call: holding(_handlers={"before": [call]}),
    "in a library's wrapper": lambda call: holding(create=contextlib.contextmanager(call)),
    "a hook on requests": lambda call: httpx.Client(event_hooks={"request": [call]}),
    "a hook on responses": lambda call: httpx.Client(event_hooks={"response": [call]}),
    "an authentication": lambda call: httpx.Client(auth=call),
    "an authentication by class": lambda call: httpx.Client(auth=Signed(call)),
}


@pytest.mark.parametrize("put", PLACES.values(), ids=PLACES.keys())
def test_what_the_program_puts_into_a_client_counts_by_its_code(caching: Caching, put: Callable[[Any], Any]) -> None:
    with caching():
        for call in (one, two, one, two):
            Reached(client=put(call)).invoke("hello")
    assert LIVE == {"llm": 2}


def test_where_it_is_put_counts(tracer: Tracer) -> None:
    clients = [
        httpx.Client(event_hooks={"request": [one]}),
        httpx.Client(event_hooks={"response": [one]}),
        httpx.Client(event_hooks={"request": [one, one]}),
        httpx.Client(event_hooks={"request": [one, two]}),
        httpx.Client(event_hooks={"request": [two, one]}),
        httpx.Client(auth=one),
    ]
    assert len({of_model(tracer, Reached(client=client)) for client in clients}) == len(clients)


def test_a_hook_of_another_library_counts_by_its_name(tracer: Tracer) -> None:
    keys = {
        of_model(tracer, Reached(client=httpx.Client(event_hooks={"request": hooks})))
        for hooks in ([], [json.dumps], [json.loads], [print])
    }
    assert len(keys) == 4


@pytest.mark.parametrize("put", [MagicMock(), SimpleNamespace(create=one)], ids=lambda put: type(put).__name__)
def test_what_shows_no_code_makes_no_key(tracer: Tracer, put: Any) -> None:
    with pytest.raises(Unkeyable):
        of_model(tracer, Reached(client=holding(chat=put)))


def test_a_librarys_own_is_nothing(caching: Caching) -> None:
    """Who asks is no part of a request, and a part that is made when it is needed changes nothing."""
    with caching():
        for auth in (None, ("user", "password"), httpx.BasicAuth("other", "password"), httpx.DigestAuth("a", "b")):
            Reached(client=httpx.Client(auth=auth)).invoke("hello")
    assert LIVE == {"llm": 1}


class Kept(logging.Handler):
    def emit(self, record: Any) -> None:
        pass


def test_what_listens_to_a_log_is_nothing(tracer: Tracer) -> None:
    model = Reached(client=logging.getLogger("a model's own"))
    assert not changes(lambda: of_model(tracer, model), lambda: model.client.addHandler(Kept()))


def test_a_part_that_is_made_when_it_is_needed_changes_nothing(tracer: Tracer, way: None) -> None:
    model = Reached(client=holding())
    change = lambda: setattr(model.client, "embeddings", part_of(model.client))  # noqa: E731
    assert not changes(lambda: of_model(tracer, model), change)


def test_a_method_of_a_librarys_class(tracer: Tracer, way: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Reached(client=holding())
    change = lambda: monkeypatch.setattr(httpx.Client, "send", one)  # noqa: E731
    assert changes(lambda: of_model(tracer, model), change)


def test_what_a_patched_class_reads_counts_from_then_on(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class's words were remembered as they were before the patch."""

    class Patched(Counted):
        pass

    models = [Patched(metadata={"tenant": who}) for who in "ab"]
    assert len({of_model(tracer, model) for model in models}) == 1
    monkeypatch.setattr(Patched, "tell", lambda self: self.metadata["tenant"], raising=False)
    assert len({of_model(tracer, model) for model in models}) == 2


def test_a_client_with_hooks_is_not_looked_at_anew(tracer: Tracer) -> None:
    model = Reached(client=httpx.Client(event_hooks={"request": [one]}, auth=two))
    for _ in range(2):
        of_model(tracer, model)
    assert model_exchange._models.of(model, pytest.fail).reached is not None


def test_clients_of_embedding_models(tracer: Tracer) -> None:
    model = BagOfWords()
    model.client = holding()  # type: ignore[attr-defined]
    exchange = lambda: EmbeddingExchange("embed_query", EmbeddingModel(model, {}, "bag"), "hello")  # noqa: E731
    change = lambda: setattr(model.client.chat, "create", helped)  # type: ignore[attr-defined]  # noqa: E731
    assert changes(lambda: asked(tracer, exchange(), "embedding"), change)


class Sending(requests.adapters.HTTPAdapter):
    """Adapters like it are made for timeouts."""

    def __init__(self, region: str) -> None:
        super().__init__()
        self.region = region

    def send(self, request: Any, *more: Any, **options: Any) -> Any:
        request.headers["x-region"] = self.region
        return super().send(request, *more, **options)


def session(**held: Any) -> requests.Session:
    made = requests.Session()
    for name, value in held.items():
        setattr(made, name, value)
    return made


def mounted(adapter: Any, **held: Any) -> requests.Session:
    made = requests.Session()
    vars(adapter).update(held)
    made.mount("https://", adapter)
    return made


IN_SESSIONS: dict[str, Callable[[str], requests.Session]] = {
    "a header": lambda region: session(headers={"x-region": region}),
    "a parameter": lambda region: session(params={"region": region}),
    "an adapter": lambda region: mounted(Sending(region)),
    "a method of an adapter": lambda region: mounted(
        requests.adapters.HTTPAdapter(), send=one if region == "eu" else two
    ),
}


@pytest.mark.parametrize("make", IN_SESSIONS.values(), ids=IN_SESSIONS.keys())
def test_what_is_put_into_a_session_of_requests(tracer: Tracer, make: Callable[[str], requests.Session]) -> None:
    models = [Reached(client=make(region)) for region in ("eu", "us", "eu")]
    eu, us, again = (of_model(tracer, model) for model in models)
    assert eu == again != us
    assert of_model(tracer, Reached(client=requests.Session())) not in (eu, us)


SET_IN_SESSIONS: dict[str, Callable[[requests.Session], object]] = {
    "a header": lambda held: held.headers.update({"x-region": "us"}),
    "a parameter": lambda held: held.params.update({"region": "us"}),  # type: ignore[union-attr]
    "an adapter": lambda held: held.mount("https://one.example", Sending("us")),
    "what an adapter reads": lambda held: setattr(held.adapters["https://"], "region", "us"),
}


@pytest.mark.parametrize("change", SET_IN_SESSIONS.values(), ids=SET_IN_SESSIONS.keys())
def test_a_session_of_requests_is_remembered_until_something_is_set(
    tracer: Tracer, way: None, change: Callable[[requests.Session], object]
) -> None:
    model = Reached(client=mounted(Sending("eu")))
    for _ in range(2):
        of_model(tracer, model)
    assert model_exchange._models.of(model, pytest.fail).reached is not None
    assert changes(lambda: of_model(tracer, model), lambda: change(model.client))
