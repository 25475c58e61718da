"""Settings of a provider's package that its clients read when they are made or used: variables of the module and of the
environment. They say where a model leads whose code calls the package itself, or makes its client when it is first needed.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Collection, Iterator
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from clew.integrations.langchain.transport import code_of_class
from clew.replay.code.bytecode import bytecode_of
from clew.replay.code.witness import Witness
from clew.replay.identity import identity


class _Package(NamedTuple):
    """The variables of a package: those of the environment, each with the module's that overrules it, and more of these."""

    environment: dict[str, str]
    more: tuple[str, ...] = ()
    address: str = ""  # where it leads without any
    kind: str = ""  # what it says of itself then


_PACKAGES = {
    "openai": _Package(
        {
            "OPENAI_BASE_URL": "base_url",
            "OPENAI_API_BASE": "api_base",
            "OPENAI_API_TYPE": "api_type",
            "OPENAI_API_VERSION": "api_version",
            "AZURE_OPENAI_ENDPOINT": "azure_endpoint",
            "OPENAI_CUSTOM_HEADERS": "",
        },
        ("default_headers", "default_query"),
        "https://api.openai.com/v1",
        "openai",
    ),
    "anthropic": _Package({"ANTHROPIC_BASE_URL": "", "ANTHROPIC_CUSTOM_HEADERS": ""}),
    "groq": _Package({"GROQ_BASE_URL": ""}),
}


def called_by(owner: Any, clients: Collection[Any]) -> list[str]:
    """The packages whose settings an object reads when it is asked: by code of the program's, by a client that stands for
    the package's own, or by one that is still to be made."""
    cls = type(owner)
    found = {name for value in _named(cls) if (name := _package(value))}
    found.update(name for one in clients if _is_stand_in(one) and (name := _package(type(one))))
    for name, lazy in [pair for one in cls.__mro__ for pair in one.__dict__.items()]:
        if isinstance(lazy, functools.cached_property) and name not in getattr(owner, "__dict__", ()):
            found.update(
                one for value in _values(lazy.func.__code__, lazy.func.__globals__) if (one := _package(value))
            )
    return sorted(found)


def settings(
    package: str, said: Collection[str], leads: Callable[[Any, Collection[str]], Any], witness: Witness
) -> dict[str, Any]:
    """How a package is set now, as far as it is set and nothing else says so. `leads` tells where its own client leads,
    less what is said."""
    known, environment = _PACKAGES[package], getattr(os.environ, "_data", os.environ)
    keys = [getattr(os.environ, "encodekey", str)(name) for name in known.environment]
    witness.add_names(environment, keys)
    witness.add_names(sys.modules, (package,))
    found: dict[str, Any] = {name: value for name in known.environment if (value := os.environ.get(name))}
    module = sys.modules.get(package)
    if isinstance(module, ModuleType):
        held = vars(module)
        names = [name for name in (*known.environment.values(), *known.more, "_client", "http_client") if name]
        witness.add_names(held, names)
        for variable, name in [*known.environment.items(), *(("", one) for one in known.more)]:
            value = held.get(name)
            if value and str(value) not in (found.get(variable), known.kind):
                found[name] = identity(value, witness=witness) if isinstance(value, dict) else str(value)
        loaded = getattr(held.get("_client"), "__dict__", {})
        witness.add_names(loaded, ("_base_url",))
        address = str(loaded.get("_base_url", "")).rstrip("/")
        expected = str(found.get("base_url") or found.get("OPENAI_BASE_URL") or known.address).rstrip("/")
        if address and address != expected and not found.get("base_url"):
            found["loaded"] = address
        client = held.get("http_client") if known.more else None
        if client is not None and (told := leads(client, {*said, address, expected})):
            found["http_client"] = told
    return {name: value for name, value in found.items() if type(value) is not str or value.rstrip("/") not in said}


def _named(cls: type) -> Iterator[Any]:
    for function in code_of_class(cls):
        yield from _values(function.__code__, function.__globals__)


def _values(code: CodeType, names: dict[str, Any]) -> Iterator[Any]:
    """What a code's global names stand for, and the modules that it imports."""
    found = bytecode_of(code)
    yield from (names.get(reference.path[0]) for reference in found.references)
    yield from (sys.modules.get(one.name) for one in found.imports)


def _package(value: Any) -> str | None:
    name = value.__name__ if isinstance(value, ModuleType) else getattr(_class(value), "__module__", "")
    top = str(name).partition(".")[0]
    return top if top in _PACKAGES else None


def _class(value: Any) -> Any:
    return value if isinstance(value, type) or hasattr(value, "__code__") else type(value)


def _is_stand_in(client: Any) -> bool:
    """Whether a client is a module's own, which reads its variables each time, or a part of it."""
    inner = getattr(client, "__dict__", {}).get("_client")
    names = {cls.__name__ for one in (client, inner) for cls in type(one).__mro__}
    return not names.isdisjoint(("LazyProxy", "_ModuleClient"))
