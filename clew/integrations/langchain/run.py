"""Which LangChain run a boundary belongs to.

LangChain hands a run manager to `_generate` and to retrievers only if the signature asks for it, never to `_stream`
from `.stream`, and to tools through its own context variable. So the run is looked for in this order: keyword,
positional, (tools) the child config, then the *cell*: the run that was announced last in this context and that no
boundary has claimed yet.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any
from uuid import UUID

from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.runnables.config import var_child_runnable_config

from clew.integrations.langchain.open_runs import span_of
from clew.tracer.span import OpenSpan

_cell: ContextVar[list[UUID | None] | None] = ContextVar("clew-langchain-run", default=None)


def announce(run_id: UUID) -> None:
    """A model or retriever run begins in this context: the next boundary that finds no run manager is its own.

    The cell is shared by contexts copied from this one, so that only one boundary claims it.
    """
    _cell.set([run_id])


def given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> UUID | None:
    """The run id of the run manager among a call's arguments."""
    manager = kwargs.get("run_manager")
    if manager is None:
        for one in args:
            if isinstance(one, BaseRunManager):
                manager = one
                break
    run_id = getattr(manager, "run_id", None)
    if run_id is not None:
        _used(run_id)
    return run_id


def announced(kind: str) -> UUID | None:
    """The run announced in this context, if its span is open, is of `kind` and was not claimed; claims it."""
    cell = _cell.get()
    if cell is None or cell[0] is None:
        return None
    span = span_of(cell[0])
    if span is None or span.kind != kind:
        return None
    run_id, cell[0] = cell[0], None
    return run_id


def child() -> UUID | None:
    """The run in whose body this is, by the config that LangChain sets there."""
    config = var_child_runnable_config.get()
    callbacks = config.get("callbacks") if config else None
    return getattr(callbacks, "parent_run_id", None)


def observed(run_id: UUID | None, kind: str, instance: object) -> OpenSpan | None:
    """The observer's span of a run, if it is of `kind` and no other object's boundary is inside it already.

    A model or tool that calls another one with its own run manager makes two calls, of which the outer is the run.
    """
    span = span_of(run_id)
    if span is None or span.kind != kind:
        return None
    return span if span.facts.setdefault("boundary", instance) is instance else None


def _used(run_id: UUID) -> None:
    cell = _cell.get()
    if cell is not None and cell[0] == run_id:
        cell[0] = None
