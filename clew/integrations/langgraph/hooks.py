"""Where clew stands inside LangGraph: a node's span in its body, the saver of a graph, and the beginning of its loop.

What a new version has moved is not wrapped, and `clew doctor` says so.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from clew.integrations.langchain import context
from clew.tracer import branch, init
from clew.tracer.init import Tracer


def install(tracer: Tracer) -> Callable[[], None]:
    """Put the hooks in place; returns what takes them off."""
    branch.names_its_own("langgraph")
    undo = [context.carry(tracer, importlib.import_module("langgraph._internal._runnable"), "LangGraph")]
    pregel, loop = importlib.import_module("langgraph.pregel"), importlib.import_module("langgraph.pregel._loop")
    undo.append(_wrap(tracer, pregel.Pregel, "_resolve_checkpointer", _resolving))
    undo.append(_wrap(tracer, loop.PregelLoop, "_first", _beginning))

    def take_off() -> None:
        for one in undo:
            one()

    return take_off


def _resolving(original: Any) -> Any:
    """In a replay, the copy of a saver in place of the saver."""

    def _resolve_checkpointer(self: Any, config: Any) -> Any:
        found, tracer = original(self, config), init.active()
        if found is None or not getattr(getattr(tracer, "policies", None), "replayers", None):
            return found
        from clew.integrations.langgraph import replayed_thread  # with the catalog, which a traced program does without

        return replayed_thread.saver(self, config, found)

    return _resolve_checkpointer


def _beginning(original: Any) -> Any:
    """From where a graph goes on is recorded; in a replay, the recorded answer of a person stands in."""

    def _first(self: Any, *args: Any, **named: Any) -> Any:
        tracer = init.active()
        if tracer is not None and getattr(tracer.policies, "recorder", None) is not None:
            # With what only a recording needs: interrupts and commands that can be recorded.
            from clew.integrations.langgraph import interruption, thread  # noqa: F401

            thread.begins(self)
        return original(self, *args, **named)

    return _first


def _wrap(tracer: Tracer, owner: Any, name: str, wrap: Callable[[Any], Any]) -> Callable[[], None]:
    original = owner.__dict__.get(name)
    if not callable(original):
        tracer.faults.add("LangGraph moved", f"{owner.__module__}.{owner.__qualname__}.{name} is not there")
        return _nothing
    wrapper = functools.wraps(original)(wrap(original))
    setattr(owner, name, wrapper)

    def take_off() -> None:
        if owner.__dict__.get(name) is wrapper:
            setattr(owner, name, original)

    return take_off


def _nothing() -> None:
    return None
