"""The code behind a name of a module, and what two of them differ in."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from clew.replay.code import Code, code_of
from clew.store.digest import Digest

Project = Callable[..., ModuleType]


def code(module: ModuleType, name: str = "f") -> Code:
    return code_of(getattr(module, name))


def digest(module: ModuleType, name: str = "f") -> Digest:
    return code(module, name).digest


def changed(before: Code, after: Code) -> set[str]:
    """Names of the parts that differ."""
    return {part.name for part in {*before.parts} ^ {*after.parts}}
