"""Settings of a provider's package that its clients read when they are made or used: variables of the module and of the
environment. They say where code leads that calls the package itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any, NamedTuple

from clew.replay.code.witness import Witness
from clew.replay.identity import identity


class _Package(NamedTuple):
    """The variables of a package: those of the environment, each with the module's that overrules it, and more of these."""

    environment: dict[str, str]
    more: tuple[str, ...] = ()
    address: str = ""  # where it leads without any
    kind: str = ""  # what it says of itself then


PACKAGES = {
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


def settings_of(witness: Witness) -> dict[str, Any]:
    """How the packages are set that the code calls which `witness` has seen, and will see them. Raises Unkeyable for a
    package that was given a client."""
    found = {}
    for package in sorted(witness.packages & PACKAGES.keys()):
        if told := settings(package, (), lambda client, _: identity(client, witness=witness), witness):
            found[package] = told
    return found


def settings(
    package: str, said: Collection[str], leads: Callable[[Any, Collection[str]], Any], witness: Witness
) -> dict[str, Any]:
    """How a package is set now, as far as it is set and nothing else says so. `leads` tells where its own client leads,
    less what is said."""
    known, environment = PACKAGES[package], getattr(os.environ, "_data", os.environ)
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
