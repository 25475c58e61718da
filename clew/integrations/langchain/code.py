"""The code of a class, as a digest: what it does, not where it stands or how it is laid out."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from clew.store.digest import Digest, Domain, digest
from clew.store.encoding import encode_key

_digests: weakref.WeakKeyDictionary[type, Digest] = weakref.WeakKeyDictionary()


def class_code(cls: type) -> Digest:
    """Digest over the code objects of a class's methods, unwrapped, and its plain class attributes.

    Ancestors count down to the first that comes from LangChain, pydantic or the standard library: those are versions of
    the environment. Two classes of one name have two digests. Line numbers do not enter; a helper function that a
    method calls does not either.
    """
    known = _digests.get(cls)
    if known is None:
        parts = [[name, part] for owner in _owners(cls) for name, part in _parts(owner)]
        known = _digests[cls] = digest(Domain.TREE, encode_key(parts))
    return known


def function_code(function: FunctionType) -> bytes:
    """The digest of one function's code."""
    return digest(Domain.TREE, encode_key(_code(function.__code__)))


def _owners(cls: type) -> Iterator[type]:
    for owner in cls.__mro__:
        if owner.__module__.split(".")[0] not in ("builtins", "abc", "typing", "langchain_core", "pydantic"):
            yield owner


def _parts(owner: type) -> Iterator[tuple[str, Any]]:
    for name, value in sorted(owner.__dict__.items()):
        functions = [function for function in _functions(value) if isinstance(function, FunctionType)]
        for function in functions:
            yield name, [_code(function.__code__), [one for one in function.__defaults__ or () if _plain(one)]]
        if not functions and not name.startswith("__") and not name.startswith("_abc_") and _plain(value):
            yield name, [value]


def _functions(value: Any) -> list[Any]:
    if isinstance(value, (classmethod, staticmethod)):
        value = value.__func__
    elif isinstance(value, property):
        return [_unwrapped(one) for one in (value.fget, value.fset) if one is not None]
    elif isinstance(value, functools.cached_property):
        value = value.func
    return [_unwrapped(value)]


def _unwrapped(function: Any) -> Any:
    while "__wrapped__" in getattr(function, "__dict__", {}):
        function = function.__wrapped__
    return function


def _code(code: CodeType) -> list[Any]:
    constants = [_code(one) if isinstance(one, CodeType) else one for one in code.co_consts if _plain_or_code(one)]
    return [code.co_code, constants, list(code.co_names), list(code.co_varnames), list(code.co_freevars)]


def _plain_or_code(value: object) -> bool:
    return isinstance(value, CodeType) or _plain(value)


def _plain(value: object) -> bool:
    if isinstance(value, (tuple, frozenset, list)):
        return all(_plain(one) for one in value)
    if isinstance(value, dict):
        return all(_plain(key) and _plain(one) for key, one in value.items())
    return value is None or isinstance(value, (bool, int, float, complex, str, bytes))
