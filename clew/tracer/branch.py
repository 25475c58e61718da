"""Branches: which of those that were started side by side within a span runs here.

Threads, and what an executor is given, are numbered when the program starts them. So the number says which one it is,
whichever of them comes first. What a framework starts and names in the span path needs none (`names_its_own`), and where
nobody wants to know (`wanted`), nothing is numbered.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any, NamedTuple

from clew.tracer import context


class Branch(NamedTuple):
    """One that was started within the span at `path`. `name` has the function and its number, from 0."""

    path: str
    name: str


Branches = tuple[Branch, ...]  # the outermost first

wanted: list[object] = []  # by whom: what records, replays or derives draws
_running = threading.local()
_own: set[str] = set()


def names_its_own(package: str) -> None:
    """What functions of this package are started for has a place of its own in the span path."""
    _own.add(package)


def here(path: str) -> Branches:
    """The branches in which this thread runs, of those that were started at `path` or above."""
    return tuple(one for one in _here() if is_below(path, one.path))


def place(path: str) -> str:
    """Where this thread is in the span at `path`: "", or the branch in which it runs there."""
    return "".join(f" {one.name}" for one in _here() if one.path == path)


def is_below(path: str, above: str) -> bool:
    """Whether a span path is `above`, or below it."""
    return path.startswith(above) and path[len(above) : len(above) + 1] in ("", "/")


def number() -> Callable[[], None]:
    """Number what threads and executors are given from now on; returns what ends it."""
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit
    on = [True]

    @functools.wraps(start)
    def numbered_start(self: threading.Thread) -> None:
        if on and wanted:
            self._clew_branches = _begun(getattr(self, "_target", None) or type(self))  # type: ignore[attr-defined]
        start(self)

    @functools.wraps(submit)  # type: ignore[arg-type]
    def numbered_submit(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if not (on and wanted):
            return submit(self, fn, *args, **kwargs)
        return submit(self, functools.partial(_within, _begun(fn, *args), fn), *args, **kwargs)

    threading.Thread.start = numbered_start  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = numbered_submit  # type: ignore[assignment, method-assign]

    def end() -> None:
        on.clear()
        if threading.Thread.start is numbered_start:
            threading.Thread.start = start  # type: ignore[method-assign]
        if ThreadPoolExecutor.submit is numbered_submit:
            ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]

    return end


def _here() -> Branches:
    found = getattr(_running, "branches", None)
    return found if found is not None else getattr(threading.current_thread(), "_clew_branches", ())


def _begun(function: Any, *args: Any) -> Branches:
    """The branches of what is started here."""
    around, span = _here(), context.enclosing()
    if span is None:
        return around
    try:
        module, name = _told(function, *args)
        if module.partition(".")[0] in _own:
            return around
        count = next(span.facts.setdefault(f"started {name}", itertools.count()))  # one step: others may start some
        return (*around, Branch(span.path, f"{name}[{count}]"))
    except Exception as error:
        span.tracer.faults.add("number of a branch", error)
        return around


def _told(function: Any, *args: Any) -> tuple[str, str]:
    """Module and name of a function, of what it is wrapped in with a context or with arguments."""
    while isinstance(function, functools.partial) or isinstance(getattr(function, "__self__", None), Context):
        if isinstance(function, functools.partial):
            function, args = function.func, (*function.args, *args)
        elif args:
            function, args = args[0], args[1:]
        else:
            break
    return str(getattr(function, "__module__", "")), str(getattr(function, "__qualname__", type(function).__qualname__))


def _within(branches: Branches, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    before = getattr(_running, "branches", None)
    _running.branches = branches
    try:
        return function(*args, **kwargs)
    finally:
        _running.branches = before
