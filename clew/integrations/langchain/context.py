"""The span of a run as the current one inside the run's own body.

LangChain and LangGraph run a body in a copy of the caller's context, and set their own variable there by one private
function each. A wrapper on that function makes the run's span current in the same copy. Nothing has to be detached (the
copy is thrown away), so nothing can be detached in the wrong place, and nothing is left behind by a broken stream.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from langchain_core.runnables import config as langchain_config
from opentelemetry import context as otel_context

from clew.integrations.langchain import open_runs
from clew.tracer import context
from clew.tracer.init import Tracer
from clew.tracer.span import OpenSpan

_PLACE = "_set_config_context"
entering: list[Callable[[OpenSpan, Any], None]] = []  # who else is told of a body that begins: its span and its config


def enter(config: Any) -> None:
    """Make the span of the run that a child's config belongs to the current one."""
    callbacks = config.get("callbacks")
    span = open_runs.span_of(getattr(callbacks, "parent_run_id", None))
    if span is not None:
        otel_context.attach(context.entered(span))
        for told in entering:
            told(span, config)


def carry(tracer: Tracer, module: ModuleType, framework: str) -> Callable[[], None]:
    """Wrap one framework's function; returns what takes the wrapper off.

    Where a new version of the framework has moved it, spans keep the parents that run ids give them, spans of the
    user's own no longer nest under nodes, and `clew doctor` says so.
    """
    original = getattr(module, _PLACE, None)
    if not callable(original):
        where = f"{module.__name__}.{_PLACE}"
        tracer.faults.add(f"{framework} context moved", f"{where} is not there: explicit parents only")
        return _nothing
    on = [True]

    @functools.wraps(original)
    def set_config_context(config: Any, *rest: Any, **named: Any) -> Any:
        token = original(config, *rest, **named)
        if on:
            try:
                enter(config)
            except Exception as error:
                tracer.faults.add(f"{framework} context", error)
        return token

    setattr(module, _PLACE, set_config_context)

    def take_off() -> None:
        on.clear()
        if getattr(module, _PLACE) is set_config_context:
            setattr(module, _PLACE, original)

    return take_off


def install(tracer: Tracer) -> Callable[[], None]:
    """`carry` for LangChain itself."""
    return carry(tracer, langchain_config, "LangChain")


def _nothing() -> None:
    return None
