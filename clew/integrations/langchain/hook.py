"""Code of the program's own in a library's client: a function set on it, an event hook, an authentication, a middleware.

A client is how a model is reached, and its library's code says nothing of the request. What the program put into one may
send another request or answer itself, so it counts, by its code. It is looked for in what the client holds, and in the
wrappers of libraries around it; what is a library's own is nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable
from gc import get_referents
from types import BuiltinFunctionType, FunctionType, MethodType, SimpleNamespace
from typing import Any

from clew.integrations.langchain.attachment import is_of_service, is_service
from clew.integrations.langchain.space import is_secret
from clew.replay.code.module import is_installed, is_of_its_module, name_in, stands_in, versions
from clew.replay.code.reading import ABSENT, cell_content
from clew.replay.code.witness import HEAP_TYPE, Witness
from clew.replay.identity import identity
from clew.store.errors import Unkeyable

FIXED = frozenset((str, bytes, int, float, bool, type(None)))  # types of values that cannot change
_CREDENTIALS = frozenset((
    "_api_key_provider", "_azure_ad_token_provider", "_token", "_token_cache", "_workload_identity_auth"
))  # fmt: skip
_CODE = frozenset((FunctionType, MethodType, functools.partial, type, type(print)))
_MANY = 2000


class Hooks:
    """A look for what the program put into one client. `own` are clients that are told anyhow, by their ids; of another
    one, whose method is called, `leads` tells where it leads."""

    def __init__(self, own: Collection[int], leads: Callable[[Any], Any], witness: Witness) -> None:
        self._own = own
        self._leads = leads
        self._witness = witness
        self._seen: dict[int, tuple[Any, Any]] = {}  # wrappers and containers, and what was found in each

    def among(self, cls: type, held: dict[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
        """What the program put into an object of a library's class that holds this, by name. Raises Unkeyable."""
        found = {}
        for name, value in held.items():
            if name in without or name in _CREDENTIALS or (is_secret(name) and not callable(value)):
                continue
            told = self._told(value)
            if told is None and callable(value) and type(value) not in _CODE and callable(getattr(cls, name, None)):
                told = identity(value, witness=self._witness)  # an object that stands in for a method
            if told is not None:
                found[name] = told
        return found

    def of_http(self, held: dict[str, Any]) -> dict[str, Any]:
        """What an HTTP client calls with each request: each hook, but of libraries that are clients themselves; and how it
        says who asks, where the program made that."""
        found: dict[str, Any] = {}
        if "_event_hooks" in held:
            self._witness.add_container(held["_event_hooks"])
            for event, called in held["_event_hooks"].items():
                self._witness.add_container(called)
                if told := [one for one in map(self._hook, called) if one is not None]:
                    found[f"hook {event}"] = told
        if (auth := held.get("_auth")) is not None and (told := self.inside(auth)):
            found["auth"] = told
        return found

    def _hook(self, called: Any) -> Any:
        told = self._told(called)
        return _label(called) if told is None else told

    def inside(self, part: Any) -> Any:
        """What the program put into a part of a client, such as the way to the network; all of it, where the program made
        the part."""
        if not is_service(part) and _is_programs(type(part)):
            return identity(part, witness=self._witness)
        held = getattr(part, "__dict__", None)
        if type(held) is not dict:
            return None
        self._witness.add_instance(part)
        found = self.among(type(part), held)
        if (called := held.get("_func")) is not None and (name := _label(called)):  # as an authentication
            found.setdefault("_func", name)
        return found

    def _told(self, value: Any) -> Any:
        """What of a value is the program's; None where nothing is."""
        cls = type(value)
        if cls in FIXED or is_service(value):
            return None
        if id(value) in self._seen:
            return self._seen[id(value)][1]
        if len(self._seen) > _MANY:
            raise Unkeyable("a client holds too much")
        self._seen[id(value)] = value, None  # in itself it is nothing more
        told = self._found(value, cls)
        self._seen[id(value)] = value, told
        return told

    def _found(self, value: Any, cls: type) -> Any:
        if cls is FunctionType:
            return self._function(value)
        if cls is MethodType:
            owner, told = value.__self__, self._told(value.__func__)
            if is_service(owner):
                of = None if id(owner) in self._own else self._leads(owner) or None
            else:
                of = self._told(owner)
            return None if told is None and of is None else ("method", told, of)
        if cls is functools.partial:
            self._witness.add_instance(value)
            return self._several((value.func, value.args, value.keywords))
        if cls is dict:
            self._witness.add_container(value)
            told = {str(key): self._told(part) for key, part in value.items()}
            return told if any(one is not None for one in told.values()) else None
        if cls in (list, tuple, set, frozenset):
            self._witness.add_container(value)
            return self._several(value)
        if isinstance(value, type):
            return identity(value, witness=self._witness) if _is_programs(value) else None
        if cls is BuiltinFunctionType or _is_programs(cls):
            return identity(value, witness=self._witness)
        if not callable(value):
            return None
        self._witness.add(value)
        if package_of(cls) == "wrapt":  # as libraries that trace wrap a method
            return self._several(get_referents(value))
        return self._told(getattr(value, "__dict__", None))

    def _several(self, parts: Iterable[Any]) -> Any:
        told = [*map(self._told, parts)]
        return told if any(one is not None for one in told) else None

    def _function(self, function: FunctionType) -> Any:
        if not is_installed(function.__code__.co_filename):
            return identity(function, witness=self._witness)
        if is_of_its_module(function):
            return None
        self._witness.add_function(function)
        cells = [cell_content(cell) for cell in function.__closure__ or ()]
        inside = [*cells, function.__defaults__, function.__kwdefaults__, function.__dict__]
        return self._several([one for one in inside if one is not ABSENT])


def _label(called: Any) -> str | None:
    """The name of a library's function, of another library than the clients'."""
    function = getattr(called, "__func__", getattr(called, "func", called))
    return None if is_of_service(str(getattr(function, "__module__", ""))) else name_in(function)


def package_of(cls: type) -> str:
    """The package of a class."""
    return str(cls.__module__).partition(".")[0]


def _is_programs(cls: type) -> bool:
    """Whether a class is the program's: of no library, or made by a call, or one that says nothing but what is put in."""
    if cls is SimpleNamespace or not cls.__flags__ & HEAP_TYPE:
        return cls is SimpleNamespace
    return versions(cls.__module__) is None or not stands_in(cls, cls.__module__)
