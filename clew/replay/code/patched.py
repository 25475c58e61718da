"""What stands in an installed module or class: the library's own, or what the program put in its place."""

from __future__ import annotations

import functools
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from clew.replay.code.module import is_installed, is_of_its_module, is_of_project, name_in, versions
from clew.replay.code.value import LEAVES
from clew.replay.code.witness import Witness
from clew.replay.code.wrapper import function_in
from clew.store.errors import Unkeyable

_MOCKS = "unittest"  # which answer as they are told


def is_put(value: Any, witness: Witness) -> bool:
    """Whether something that stands in an installed module was put there by the project, or is a plain value."""
    cls = type(value)
    if cls is FunctionType:
        return not is_installed(value.__code__.co_filename) or not is_of_its_module(value)
    if cls in LEAVES:
        return True
    if inside := _inside(value):
        return any(is_of_project(one) if type(one) is FunctionType else is_put(one, witness) for one in inside)
    if isinstance(value, type) and is_patched(value, witness):
        return True
    module = str((value if isinstance(value, type) else cls).__module__)
    try:
        return versions(module) is None or (cls is not type and module.partition(".")[0] == _MOCKS)
    except Unkeyable:
        return False


def is_patched(cls: type, witness: Witness) -> bool:
    """Whether methods of the project stand in an installed class, or in one that it inherits from."""
    witness.add_class(cls)
    owners = [owner for owner in cls.__mro__ if owner.__module__ != "builtins"]
    functions = [function_in(one) for owner in owners for one in owner.__dict__.values()]
    return any(map(is_of_project, functions))


def named(value: Any) -> str:
    """The name of what stands in an installed module: a function of another one may be put in its place."""
    if isinstance(value, type) or type(value) in (FunctionType, BuiltinFunctionType):
        return name_in(value)
    return name_in(type(value))


def _inside(value: Any) -> tuple[Any, ...]:
    """What a callable is made around, if it is one of Python's own for that."""
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    if isinstance(value, MethodType):
        return (value.__func__, type(value.__self__))
    return (value.__wrapped__,) if isinstance(value, functools._lru_cache_wrapper) else ()
