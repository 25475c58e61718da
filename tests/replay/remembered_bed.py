"""What can be changed in a model and in the clients that it holds, and whether a change makes another key."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any

import httpx
from pydantic import PrivateAttr

from clew.replay.key import asked_key, key_of
from clew.tracer.init import Tracer

LIMIT = 3
WORDS = ["a"]


class Part:
    def __init__(self) -> None:
        self.depth: Any = 1
        self.inner = {"a": [1, {"b": 2}]}


def made(base: type[Any], factor: int) -> type[Any]:
    """A class whose method has a closure."""

    class Scaled(base):  # type: ignore[misc]
        stops: Any = None
        part: Any = None
        _private: Any = PrivateAttr(default_factory=lambda: {"x": 1})

        def scaled(self, of: int = 1) -> Any:
            return helped(of) * factor * LIMIT, WORDS[0]

    return Scaled


def helped(of: int) -> int:
    return of


def asked(tracer: Tracer, exchange: Any, kind: str = "llm") -> bytes:
    """The key, and what is remembered of it says the same."""
    made = key_of(tracer.gate, kind, exchange, exchange.parts(), ("", 0))
    for _ in range(2):
        assert asked_key(tracer.gate, kind, exchange, ("", 0)) == made
    return bytes(made.digest)


def changes(key: Callable[[], bytes], change: Callable[[], object]) -> bool:
    """Whether a change makes another key, where the same was asked before and after."""
    before = key()
    assert key() == before
    change()
    after = key()
    assert key() == after
    return after != before


Change = Callable[[Any], object]
MODEL: dict[str, Change] = {
    "a field": lambda model: setattr(model, "top_k", 2),
    "a field of another type": lambda model: setattr(model, "top_k", True),
    "a field behind pydantic's back": lambda model: model.__dict__.update(top_k=2),
    "a field's name": lambda model: model.__dict__.update(tip_k=model.__dict__.pop("top_k")),
    "a dict in a field": lambda model: model.stops.update(b=1),
    "a list in a dict in a field": lambda model: model.stops["a"].append(2),
    "a value in a list, of another type": lambda model: model.stops["a"].__setitem__(0, True),
    "a key in a dict": lambda model: model.stops.update(b=model.stops.pop("a")),
    "an attribute of an object": lambda model: setattr(model.part, "depth", 2),
    "a dict deep in an object": lambda model: model.part.inner["a"][1].update(b=3),
    "an object's class": lambda model: setattr(model.part, "__class__", type("Other", (Part,), {})),
    "a private attribute": lambda model: model._private.update(x=2),
    "the model's class": lambda model: setattr(model, "__class__", made(type(model).__mro__[1], 2)),
    "a constant of the class": lambda model: setattr(type(model), "extra_words", 2),
    "a method": lambda model: setattr(type(model), "scaled", lambda self: 1),
    "a method's default": lambda model: setattr(type(model).scaled, "__defaults__", (2,)),
    "a method's code": lambda model: setattr(type(model).scaled, "__code__", made_otherwise.__code__),
    "a cell": lambda model: setattr(cell_of(type(model).scaled, "factor"), "cell_contents", 2),
    "an attribute of a method": lambda model: setattr(type(model).scaled, "mark", 1),
}


def otherwise(factor: int) -> Any:
    def scaled(self: Any, of: int = 1) -> Any:
        return factor

    return scaled


made_otherwise = otherwise(1)


def cell_of(function: Any, name: str) -> Any:
    return function.__closure__[function.__code__.co_freevars.index(name)]


def reached(base: type[Any]) -> type[Any]:
    """A model that is reached through clients, of which one is made when it is first needed."""

    class Reached(base):  # type: ignore[misc]
        client: Any = None
        headers: Any = None

        @functools.cached_property
        def lazy(self) -> httpx.Client:
            return httpx.Client(base_url=self.base_url, headers=self.headers, verify=False)

    return Reached


class Hears(httpx.BaseTransport):
    status = 200

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(self.status)


def client(**more: Any) -> httpx.Client:
    """A client that reads no certificates: that would take most of a test's time."""
    return httpx.Client(verify=False, **more)


def wrapped(inner: httpx.Client) -> Any:
    """A provider's client around the one that it sends with."""
    made = type("Provider", (), {"__module__": "openai"})()
    made._client, made._custom_headers, made.base_url = inner, {"region": "one"}, inner.base_url
    made.chat = part_of(made)
    return made


def part_of(client: Any) -> Any:
    """A part of a provider's client, by which requests are made."""
    made = type("Completions", (), {"__module__": "openai"})()
    made._client, made._post = client, MethodType(httpx.Client.post, client)
    return made


def mounted(model: Any) -> Any:
    return next(iter(model.client._client._mounts.values()))


CLIENT: dict[str, Change] = {
    "another client": lambda model: setattr(model, "client", wrapped(client(base_url="https://two.example"))),
    "the client inside": lambda model: setattr(model.client, "_client", client(base_url="https://two.example")),
    "its address": lambda model: setattr(model.client._client, "base_url", "https://two.example"),
    "the outer address": lambda model: setattr(model.client, "base_url", httpx.URL("https://two.example")),
    "a text for an address": lambda model: setattr(model.client, "base_url", "https://two.example"),
    "an address more": lambda model: setattr(model.client, "_base_url", "https://two.example"),
    "an address less": lambda model: delattr(model.client, "base_url"),
    "a header": lambda model: model.client._client.headers.update({"region": "two"}),
    "a header less": lambda model: model.client._client.headers.pop("tenant"),
    "a header of its own": lambda model: model.client._custom_headers.update({"region": "two"}),
    "a query": lambda model: setattr(model.client._client, "params", {"tenant": "two"}),
    "a transport": lambda model: setattr(model.client._client, "_transport", Hears()),
    "a mount": lambda model: model.client._client._mounts.update({"https://": Hears()}),
    "a mount's pattern": lambda model: setattr(next(iter(model.client._client._mounts)), "pattern", "http://"),
    "a transport's field": lambda model: setattr(mounted(model), "status", 201),
    "a transport's class": lambda model: setattr(Hears, "handle_request", lambda self, request: None),
    "a function": lambda model: setattr(model.client, "create", helped),
    "a function of a part": lambda model: setattr(model.client.chat, "create", helped),
    "a function, bound": lambda model: setattr(model.client.chat, "create", MethodType(helped, model.client.chat)),
    "another client of a part": lambda model: setattr(
        model.client.chat, "_client", client(base_url="https://two.example")
    ),
    "a function in a tuple": lambda model: setattr(model.client, "_middleware", (helped,)),
    "a hook": lambda model: model.client._client.event_hooks["request"].append(helped),
    "hooks": lambda model: setattr(model.client._client, "event_hooks", {"response": [helped]}),
    "an authentication": lambda model: setattr(model.client._client, "auth", helped),
    "a function of the way to the network": lambda model: setattr(
        model.client._client._transport, "handle_request", helped
    ),
    "a lazy one that says more": lambda model: model.__dict__.update(lazy=client(base_url="https://two.example")),
}
