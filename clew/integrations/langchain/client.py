"""Clients that a model holds: how a provider is reached is no part of a request, but *which* is.

A model's fields mostly name its server. But a client can be given one by itself: as an argument, or by an environment
variable that the client's own package reads. So of a client counts where it leads, and what it adds to each request.
"""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

from clew.integrations.langchain.attachment import is_service
from clew.integrations.langchain.hook import FIXED, Hooks, package_of
from clew.integrations.langchain.settings import called_by
from clew.integrations.langchain.transport import named
from clew.replay.code.witness import Witness
from clew.replay.identity import identity
from clew.replay.provider import PACKAGES, settings
from clew.store.plain import is_plain

_INNER = ("_client", "client", "_api_client", "_client_wrapper", "_http_options", "meta", "_raw_client")
_ADDRESSES = (
    "base_url",
    "_base_url",
    "endpoint_url",
    "_endpoint_url",
    "api_endpoint",
    "_api_endpoint",
    "host",
    "_host",
)
_ADDED = ("_params", "_custom_query", "_custom_headers", "_headers")
_ADDED_BY_SESSIONS = ("params", "headers")  # of requests
_TRANSPORT_HEADERS = frozenset((
    "accept", "accept-encoding", "accept-language", "authorization", "connection", "content-length", "content-type",
    "cookie", "host", "user-agent", "x-api-key", "api-key", "x-goog-api-key", "x-goog-api-client", "x-request-id",
    "traceparent", "tracestate", "baggage",
))  # fmt: skip
_READ = (
    *_ADDRESSES, *_ADDED, *_ADDED_BY_SESSIONS, *_INNER, "_transport", "_mounts", "_event_hooks", "_auth", "adapters"
)  # fmt: skip
_RESOURCES = frozenset(("openai", "anthropic", "groq"))  # whose clients consist of parts
_ASIDE = frozenset(("threading", "_thread", "asyncio", "concurrent", "logging"))  # which send nothing
_DEPTH, _VALUES = 4, 200
_HTTP, _SESSIONS = frozenset(("httpx", "httpx2")), frozenset(("requests",))
_NETWORK = frozenset(("HTTPTransport", "AsyncHTTPTransport", "AiohttpTransport"))  # they answer nothing themselves,
_WHOSE = _HTTP | {"openai", "anthropic", "httpx_aiohttp"}  # where they are of one of these


def destinations(
    owner: object,
    fields: dict[str, Any],
    names: Collection[str],
    witness: Witness | None = None,
    packages: Collection[str] = (),
) -> dict[str, Any]:
    """Where the clients among an object's fields lead, by name. Raises Unkeyable for one whose requests are answered by
    something that has no canonical form. While `witness` holds, that is where they lead; it has the fields seen already.
    `packages` are those that the owner's code is known to call.

    A client that is made when it is first needed must say the same before and after: of it counts only what no field
    of its owner says.
    """
    witness = witness or Witness()
    witness.add_class(type(owner))
    found = {}
    for name in sorted(names):
        if is_service(fields[name]):
            lazy = isinstance(inspect.getattr_static(type(owner), name, None), functools.cached_property)
            if told := _leads(fields[name], (), _said(fields, witness) if lazy else frozenset(), witness):
                found[name] = told
    called = called_by(owner, [fields[name] for name in names])
    for package in sorted({*called, *(one for one in packages if one in PACKAGES)}):
        leads = lambda client, said: _leads(client, (), said, witness)  # noqa: E731
        if set_to := settings(package, _said(fields, witness), leads, witness):
            found[f"settings of {package}"] = set_to
    return found


def _said(fields: dict[str, Any], witness: Witness) -> frozenset[str]:
    held = [value for value in fields.values() if type(value) is dict]
    for value in held:
        witness.add_container(value)
    inner = [part for value in held for part in value.values()]
    return frozenset(value.rstrip("/") for value in [*fields.values(), *inner] if isinstance(value, str))


def _leads(client: Any, around: tuple[int, ...], said: Collection[str], witness: Witness) -> dict[str, Any]:
    held = getattr(client, "__dict__", None)
    if held is None:
        witness.blind = True  # it may have a dictionary later, as an object without one may be of another class
        held = {}
    witness.add(client)
    if aside := package_of(type(client)) in _ASIDE:
        witness.add_names(held, _READ)
    else:
        witness.add_class(type(client))
        witness.add_container(held)
    found: dict[str, Any] = {name: str(held[name]) for name in _ADDRESSES if _is_address(held.get(name))}
    found = {name: address for name, address in found.items() if address.rstrip("/") not in said}
    session = _is_of(client, _SESSIONS)
    everywhere = (*_ADDED, *_ADDED_BY_SESSIONS) if session else _ADDED
    for name in (*_ADDRESSES, *everywhere):
        _watch(held.get(name), witness)
    for name in everywhere:
        added = _added(held.get(name), folded=name.endswith("headers")).items()
        if left := {key: value for key, value in added if type(value) is not str or value not in said}:
            found[name] = left
    inner = (*around, id(client))
    leads = functools.partial(_leads, around=inner, said=said, witness=witness)
    parts = [name for name in held if name in _INNER or _is_resource(client, held[name])]
    hooks = Hooks({*inner, *(id(held[name]) for name in parts)}, leads, witness)
    if session:
        found.update(_adapters(held.get("adapters"), hooks, witness))
    if _is_of(client, _HTTP):
        found.update(_transports(held, hooks, witness))
        found.update(hooks.of_http(held))
    found.update(_own(client, held, witness))
    if not aside and (put := hooks.among(type(client), held, _READ)):
        found["own"] = put
    for name in parts:
        if len(around) < _DEPTH and id(held[name]) not in inner and (told := leads(held[name])):
            found[name] = told
    return found


def _is_resource(client: Any, part: Any) -> bool:
    """Whether a part of a provider's client is one that requests are made with, such as `chat.completions`."""
    package = package_of(type(part))
    made = package in _RESOURCES and package == package_of(type(client)) and hasattr(part, "__dict__")
    return made and not _is_of(client, _HTTP) and not hasattr(part, "__dataclass_fields__")


def _is_of(client: Any, packages: Collection[str]) -> bool:
    return any(package_of(cls) in packages for cls in type(client).__mro__)


def _watch(value: Any, witness: Witness) -> None:
    """Have all of a value seen, which is plain or one of an HTTP library's own."""
    waiting = [value]
    for one in waiting:  # grows while it is read
        cls = type(one)
        if cls in FIXED:
            continue
        if len(waiting) > _VALUES:
            witness.blind = True
            return
        if isinstance(one, tuple):
            waiting += one
        elif cls is list or cls is dict:
            witness.add_container(one)
            waiting += one if cls is list else one.values()
        elif cls is OrderedDict:
            witness.add_read(one, _pairs)
            waiting += one.values()
        elif package_of(cls) in (*_HTTP, *_SESSIONS) and hasattr(one, "__dict__"):
            witness.add_instance(one)
            waiting += vars(one).values()
        else:
            witness.blind = True


def _pairs(held: Any) -> list[Any]:
    return [part for pair in held.items() for part in pair]


def _is_address(value: Any) -> bool:
    return isinstance(value, str) or type(value).__qualname__ == "URL"


def _added(values: Any, *, folded: bool) -> dict[str, Any]:
    """What a client adds to each request, less what only transports it. Headers may hold anything, so plain values only;
    their names are `folded`."""
    if not hasattr(values, "items"):
        return {}
    found: dict[str, Any] = {}
    for name, value in values.items():
        lower = str(name).lower()
        if lower in _TRANSPORT_HEADERS or str(name).startswith("X-St"):
            continue
        said = lower if folded else str(name)
        several = values.get_list(name) if hasattr(values, "multi_items") else ()  # an HTTP library's gives the first
        if len(several) > 1:
            found[said] = list(several)
        elif isinstance(value, str):
            found[said] = str(value)
        elif type(value) is bytes or (value is not None and is_plain(value)):
            found[said] = value
    return found


def _transports(held: dict[str, Any], hooks: Hooks, witness: Witness) -> dict[str, Any]:
    """Transports that are not an HTTP library's own way to the network, or hold what is not: they may answer themselves."""
    mounted = held.get("_mounts")
    if mounted is not None:
        witness.add_container(mounted)
    transports = {"transport": held.get("_transport")}
    for key, one in (mounted or {}).items():
        if hasattr(key, "__dict__"):  # a pattern
            witness.add_instance(key)
        transports[f"mount {getattr(key, 'pattern', key)}"] = one
    witness.add(*transports.values())
    found = {}
    for name, one in transports.items():
        known = one is None or (type(one).__name__ in _NETWORK and package_of(type(one)) in _WHOSE)
        if told := (hooks.inside(one) if known else identity(one, witness=witness)):
            found[name] = told
    return found


def _adapters(mounted: Any, hooks: Hooks, witness: Witness) -> dict[str, Any]:
    """Of those of a session of requests, which send and may answer themselves, what is the program's."""
    if not isinstance(mounted, OrderedDict):
        return {}
    witness.add_read(mounted, _pairs)
    witness.add(*mounted.values())
    found = {}
    for prefix, one in mounted.items():
        if told := _own(one, getattr(one, "__dict__", {}), witness) or (hooks.inside(one) if is_service(one) else None):
            found[f"adapter {prefix}"] = told
    return found


def _own(client: Any, held: dict[str, Any], witness: Witness) -> dict[str, Any]:
    """Of a client whose class is the program's: that class, and what its code reads of the client."""
    cls = type(client)
    if not (words := named(cls)):
        return {}
    read = sorted(words.intersection(held))
    witness.add_names(held, words)
    return {"class": identity(cls, witness=witness), **{name: identity(held[name], witness=witness) for name in read}}
