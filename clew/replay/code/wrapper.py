"""Clew's own wrappers, which `clew.instrument` puts over methods: each stands for what it wraps.

What a program sets on such a method stands on the wrapper, and counts beside it.
"""

from __future__ import annotations

import functools
import os
import weakref
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from clew.replay.code.reading import ABSENT

MARK = "__clew_wrapped__"  # on a wrapper: a weak reference to itself, and what it wraps
CLEW = str(Path(__file__).parents[2]) + os.sep  # where its code is


def wrapped_by(function: Any) -> Any:
    """What one of clew's own wrappers wraps; None of all else. `functools.wraps` copies a function's attributes, so a
    wrapper of the program's over ours has our mark, too: it is ours only on the function that it was put on."""
    if type(function) is not FunctionType:
        return None
    mark = function.__dict__.get(MARK)
    if type(mark) is not tuple or len(mark) != 2 or type(mark[0]) is not weakref.ref:
        return None
    if function.__defaults__ or function.__kwdefaults__ or not function.__code__.co_filename.startswith(CLEW):
        return None  # it was made another one since
    if mark[0]() is not function:
        return None
    return mark[1].__func__ if isinstance(mark[1], classmethod) else mark[1]


def set_on(function: FunctionType, wrapped: Any) -> dict[str, Any]:
    """What was set on a wrapper, or deleted, since `functools.wraps` made it like what it wraps."""
    given, own = getattr(wrapped, "__dict__", {}) | {"__wrapped__": wrapped}, function.__dict__
    names = [name for name in {**given, **own} if name != MARK]
    found = {name: own.get(name, ABSENT) for name in names if own.get(name, ABSENT) is not given.get(name, ABSENT)}
    for name in functools.WRAPPER_ASSIGNMENTS:
        if getattr(wrapped, name, ABSENT) is not (one := getattr(function, name, ABSENT)):
            found[name] = one
    return found


def function_in(method: Any) -> Any:
    """The function of what stands in a class, behind a wrapper of clew's; None where it has no code."""
    function = getattr(method, "__func__", getattr(method, "fget", method))
    if isinstance(function, functools._lru_cache_wrapper):
        function = function.__wrapped__
    function = wrapped_by(function) or function
    return function if isinstance(getattr(function, "__code__", None), CodeType) else None
