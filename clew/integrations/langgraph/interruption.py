"""Interrupts and commands as data: what a tool raised to steer its graph."""

from __future__ import annotations

import contextlib
from typing import Any

from langchain_core.runnables.config import var_child_runnable_config
from langgraph.errors import GraphInterrupt, ParentCommand
from langgraph.types import Interrupt, interrupt

from clew.integrations.langchain.context import entering
from clew.integrations.langgraph import answer as _answer  # noqa: F401 - LangGraph's classes become answers
from clew.replay.answer import pack
from clew.replay.recording.failure import register_failure
from clew.replay.recording.loose import loose
from clew.replay.recording.question import register_questions
from clew.store.errors import Unstorable
from clew.tracer import context as tracing
from clew.tracer.span import OpenSpan

_SCRATCHPAD = "__pregel_scratchpad"


def _scratchpad() -> Any:
    """What the graph's task that runs here has put to a person and was answered; None outside any."""
    return ((var_child_runnable_config.get() or {}).get("configurable") or {}).get(_SCRATCHPAD)


def _asked(pad: Any) -> int:
    count = getattr(getattr(pad, "interrupt_counter", None), "_counter", None)
    return 0 if count is None else int(repr(count.__self__)[len("count(") : -1])  # to read it any other way counts


def _answered(error: BaseException | None) -> int:
    pad = _scratchpad()
    if pad is None or isinstance(error, GraphInterrupt):  # that asks again until nothing is left to answer
        return 0
    return min(_asked(pad), len(pad.resume))  # calls side by side may still wait for theirs


def _begins(node: OpenSpan, config: Any) -> None:
    """Note with how many answers a task begins: later it cannot be told whether the newest was taken already."""
    pad = (config.get("configurable") or {}).get(_SCRATCHPAD)
    if pad is not None and node.kind == "node":
        node.facts.setdefault("resumed", len(pad.resume) + (pad.get_null_resume(False) is not None))


def _resumed() -> int:
    span = tracing.enclosing()
    while span is not None and "resumed" not in span.facts:
        span = span.parent
    return 0 if span is None else int(span.facts["resumed"])


def _repeat(count: int) -> None:
    pad = _scratchpad()
    with contextlib.suppress(GraphInterrupt):
        while pad is not None and _asked(pad) < count:
            interrupt(None)


def _dump_interrupt(error: GraphInterrupt) -> Any:
    interrupts = error.args[0] if error.args else ()
    own = len(interrupts) == 1 and _asked(_scratchpad()) > 0  # else one of a graph that runs inside the call
    return [own, [[_told(one.value), one.id, _told(one.response_schema)] for one in interrupts]]


def _told(value: Any) -> Any:
    try:
        pack(value)
    except Unstorable:
        return loose(value)
    return value


def _interrupt_again(data: Any) -> Any:
    own, interrupts = data
    if own and _scratchpad() is not None:
        value, _, schema = interrupts[0]
        while True:  # an answer that is still there is that of another call, which is served
            interrupt(value, response_schema=schema)
    raise GraphInterrupt(tuple(Interrupt(value, name, response_schema=schema) for value, name, schema in interrupts))


def _command_again(data: Any) -> Any:
    raise ParentCommand(data)


entering.append(_begins)
register_questions(_answered, _repeat, _resumed)
register_failure(GraphInterrupt, _dump_interrupt, _interrupt_again)
register_failure(ParentCommand, lambda error: error.args[0], _command_again)
