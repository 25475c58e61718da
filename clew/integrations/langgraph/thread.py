"""From where a graph goes on, as a recording has it: which checkpoint of its thread, what had been written to that, and
what a person answered.

A run adds to the checkpoint that it goes on from, and so what had been written before is recorded.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from langgraph.types import Command

from clew.integrations.langchain import open_runs
from clew.replay.answer import pack
from clew.replay.recording.loose import loose
from clew.replay.recording.request import THREAD
from clew.replay.stack import Stack
from clew.store.errors import Unstorable
from clew.tracer import context, init

INTERRUPT, RESUME = "__interrupt__", "__resume__"  # channels


def begins(loop: Any) -> None:
    """A graph's loop has read its checkpoint, and is about to take its input."""
    tracer = init.active()
    stack = tracer.policies if tracer is not None else None
    if tracer is None or not isinstance(stack, Stack) or stack.recorder is None:
        return
    if not loop.checkpointer and not stack.replayers:
        return
    with tracer.faults.guard("LangGraph thread"):
        span = open_runs.span_of(getattr(loop.manager, "run_id", None)) or context.enclosing()
        if stack.replayers and span is not None:
            from clew.integrations.langgraph import replayed_thread

            replayed_thread.answer_as_recorded(loop, stack, span)
        if loop.checkpointer:
            stack.recorder.note("thread", "begin", THREAD, _told(loop), span)


def _told(loop: Any) -> dict[str, Any]:
    """From where a graph goes on: which checkpoint of which thread, what had been written to it, and how it is answered."""
    place = loop.checkpoint_config["configurable"]
    saved = loop.checkpoint_metadata.get("step") != -2  # else there is no checkpoint yet
    return {
        "thread": str(place.get("thread_id")),
        "namespace": place.get("checkpoint_ns", ""),
        "checkpoint": loop.checkpoint["id"] if saved else "",
        "writes": _written(loop.checkpoint_pending_writes),
        "resume": _resume(loop),
    }


def _written(writes: Any) -> list[list[Any]]:
    """What had been written: by which task to which channel, how often; the ids of its interrupts, how many answers."""
    found: dict[tuple[str, str], Any] = {}
    for task, channel, value in writes:
        if channel == INTERRUPT:
            found[task, channel] = [one.id for one in value]
        elif channel == RESUME and isinstance(value, list):
            found[task, channel] = len(value)
        else:
            found[task, channel] = found.get((task, channel), 0) + 1
    return [[task, channel, what] for (task, channel), what in found.items()]


def _resume(loop: Any) -> Any:
    """The answer of a person: of one for all, `["all", answer]`; of one by the ids of interrupts, to which question each
    is, as ids are others in a replay."""
    resume = loop.input.resume if isinstance(loop.input, Command) else None
    if resume is None:
        return None
    by_id = questions(loop)
    if isinstance(resume, dict) and resume and resume.keys() <= by_id.keys():
        told: list[Any] = ["each", [[*by_id[one], answer] for one, answer in resume.items()]]
    else:
        told = ["all", resume]
    try:
        pack(told)
    except Unstorable as error:
        return ["lost", str(error)[:500]]
    return told


def questions(loop: Any) -> dict[str, tuple[str, int]]:
    """Of each interrupt's id, what it asks, and the how-manieth it is to ask that."""
    counts: Counter[str] = Counter()
    found = {}
    for _, channel, value in loop.checkpoint_pending_writes:
        for one in value if channel == INTERRUPT else ():
            asked = repr(loose(one.value))
            found[one.id] = asked, counts[asked]
            counts[asked] += 1
    return found
