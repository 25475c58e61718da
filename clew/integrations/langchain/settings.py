"""The packages of providers that an object's own code calls, or that its client is still to be made by: how those are set
(replay/provider.py) says where it leads, too.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Collection, Iterator
from types import CodeType, ModuleType
from typing import Any

from clew.integrations.langchain.transport import code_of_class
from clew.replay.code.bytecode import bytecode_of
from clew.replay.provider import PACKAGES


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
    return top if top in PACKAGES else None


def _class(value: Any) -> Any:
    return value if isinstance(value, type) or hasattr(value, "__code__") else type(value)


def _is_stand_in(client: Any) -> bool:
    """Whether a client is a module's own, which reads its variables each time, or a part of it."""
    inner = getattr(client, "__dict__", {}).get("_client")
    names = {cls.__name__ for one in (client, inner) for cls in type(one).__mro__}
    return not names.isdisjoint(("LazyProxy", "_ModuleClient"))
