"""LangGraph's words: graphs, nodes, channels, commands, interrupts, as spans."""

from __future__ import annotations

import functools
import inspect
import sys
from collections import OrderedDict
from collections.abc import Iterable
from itertools import repeat
from types import FrameType
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.messages import BaseMessage
from langgraph.callbacks import GraphCallbackHandler, GraphInterruptEvent, GraphResumeEvent
from langgraph.errors import GraphBubbleUp, ParentCommand
from langgraph.pregel import Pregel
from langgraph.types import Command, Send

from clew.integrations.langchain import open_runs, payload
from clew.integrations.langchain.callback import Kind, LangChainObserver
from clew.tracer.capture import Given
from clew.tracer.constant import Fixed
from clew.tracer.gate import Clean
from clew.tracer.span import OpenSpan

_REMEMBERED = 10_000
_DATA = frozenset((str, int, float, bool, bytes, dict, type(None)))
_NEARBY = 8  # frames between a graph and its handlers: managers and event loops of callbacks
_STARTER = 2  # frames between the manager that is told of a start and who tells it
_STREAM, _ASTREAM, _STARTED, _ASTARTED = (
    inspect.unwrap(method).__code__
    for method in (
        Pregel.stream,
        Pregel.astream,
        CallbackManager.on_chain_start,
        AsyncCallbackManager.on_chain_start,
    )
)


class LangGraphObserver(LangChainObserver, GraphCallbackHandler):
    """The LangChain observer, with what LangGraph adds."""

    def __init__(self) -> None:
        super().__init__()
        self._paused: OrderedDict[tuple[str, tuple[str, ...]], tuple[bytes, bytes]] = OrderedDict()

    # -- what a chain run is

    def chain(self, name: str, inputs: Any, metadata: dict[str, Any], parent: OpenSpan | None) -> Kind:
        namespace = metadata.get("langgraph_checkpoint_ns")
        if name == metadata.get("langgraph_node") and (parent is None or parent.facts.get("namespace") != namespace):
            step, triggers = metadata.get("langgraph_step"), metadata.get("langgraph_triggers") or ()
            fixed, index = _task(step, tuple(triggers), tuple(metadata.get("langgraph_path") or ()))
            attributes: dict[str, Any] = {"langgraph.checkpoint_ns": Clean(namespace)} if namespace else {}
            return Kind("node", _read(inputs), attributes, None if index is None else f"{name}[{index}]", fixed)
        if "ls_integration" in metadata and _called_by_graph():
            return Kind("workflow", _graph_inputs(inputs), {})
        return Kind("chain", _read(inputs), {})

    def begun(self, span: OpenSpan, metadata: dict[str, Any]) -> None:
        if span.kind == "chain":
            return
        span.facts["namespace"] = namespace = metadata.get("langgraph_checkpoint_ns", "")
        if span.kind == "node":
            span.facts["step"] = metadata.get("langgraph_step", 0)
            failed = span.parent.facts.get("failed") if span.parent is not None else None
            if failed and namespace in failed:
                trace_id, span_id, attempt = failed[namespace]
                span.attributes({"langgraph.attempt": attempt + 1})
                span.link(trace_id, span_id, "retry_of")
            if span.parent is not None:
                if "node cache" in span.parent.facts:
                    span.attributes(span.parent.facts["node cache"].pop(namespace, {}))
                _trigger(span, span.parent, namespace, metadata.get("langgraph_triggers") or ())

    # -- what it generated

    def outputs(self, span: OpenSpan, outputs: Any) -> list[Given]:
        if span.kind == "node":
            written = _written(outputs)
            if goto := _goto(outputs):
                span.attributes({"langgraph.goto": goto})
            if written:
                self._note_answer(span, outputs, written)
            return written
        if span.kind == "workflow":
            span.facts["output"] = outputs
            fields = payload.fields_of(outputs)
            generated = payload.slots(fields if fields is not None else outputs, "output")
            if span.parent is not None and span.parent.kind == "node":
                span.parent.facts["inner"] = (outputs, span.facts.get("answer"))
            return generated
        return payload.slots(_plain(outputs), "output")

    def _note_answer(self, node: OpenSpan, outputs: Any, written: list[Given]) -> None:
        """The graph's answer is what the last step that wrote anything put into channels, the last message of many."""
        graph = node.parent
        if graph is None or graph.kind != "workflow":
            return
        inner = node.facts.get("inner")
        if inner is not None and inner[1] and _same(inner[0], outputs):  # the node is a graph: its answer, no state
            given = inner[1][1]
        else:
            given = [_last_message(one) for one in written]
        step = node.facts["step"]
        before = graph.facts.get("answer")
        if before is None or before[0] < step:
            graph.facts["answer"] = (step, given)
        elif before[0] == step:
            graph.facts["answer"] = (step, [*before[1], *given])

    def answer(self, span: OpenSpan, generated: list[Given]) -> list[Given]:
        noted = span.facts.get("answer")
        return noted[1] if noted else generated

    def left_by(self, span: OpenSpan, error: BaseException) -> list[Given]:
        if isinstance(error, ParentCommand) and span.kind in ("node", "tool"):
            command = error.args[0]
            if goto := _goto(command):
                span.attributes({"langgraph.goto": goto})
            return _written(command)
        return super().left_by(span, error)

    def result(self, output: Any) -> Any:
        return _plain(output)

    # -- how it ended

    def status(self, span: OpenSpan, error: BaseException | None) -> str:
        if error is None:
            return "interrupted" if span.facts.get("interrupted") else "ok"
        if isinstance(error, ParentCommand):  # a handoff is control flow
            return "ok"
        if isinstance(error, GraphBubbleUp):
            return "interrupted"
        status = super().status(span, error)
        if status == "error" and span.kind == "node" and span.parent is not None:
            attempt = span.facts.get("attributes", {}).get("langgraph.attempt", 1)
            failed = span.parent.facts.setdefault("failed", {})
            failed[span.facts.get("namespace")] = (span.trace_id, span.span_id, attempt)
        return status

    def on_interrupt(self, event: GraphInterruptEvent) -> None:
        span = open_runs.span_of(event.run_id)
        if span is None:
            return
        try:
            span.facts["interrupted"] = True
            span.attributes(
                {
                    "langgraph.checkpoint_id": event.checkpoint_id,
                    "langgraph.interrupt.ids": [one.id for one in event.interrupts],
                    "langgraph.interrupt.status": event.status,
                }
            )
            if span.run.session is not None:
                key = (span.run.session, tuple(event.checkpoint_ns))
                self._paused[key] = (span.trace_id, span.span_id)
                while len(self._paused) > _REMEMBERED:
                    self._paused.popitem(last=False)
        except Exception as error:
            span.tracer.faults.add("LangGraph on_interrupt", error)

    def on_resume(self, event: GraphResumeEvent) -> None:
        span = open_runs.span_of(event.run_id)
        if span is None:
            return
        try:
            span.attributes({"langgraph.resumed_checkpoint_id": event.checkpoint_id})
            paused = self._paused.get((span.run.session or "", tuple(event.checkpoint_ns)))
            if paused is not None:
                span.link(*paused, "resumed_from")
        except Exception as error:
            span.tracer.faults.add("LangGraph on_resume", error)


def _trigger(node: OpenSpan, graph: OpenSpan, task: str, triggers: Iterable[str]) -> None:
    """Link a node to those whose writes made it run: that of the step before, or each that a join waited for.

    Of several in the step before, LangGraph does not tell which wrote the trigger.
    """
    step = node.facts["step"]
    ran: dict[int, dict[str, tuple[str, bytes, bytes]]] = graph.facts.setdefault("ran", {})
    joined: set[str] = set()
    for one in triggers:
        if one.startswith("join:"):
            joined.update(one.split(":")[1].split("+"))
    if joined:
        steps = sorted(one for one in list(ran) if one < step)
        latest = {one[0]: one for number in steps for one in ran[number].values() if one[0] in joined}
        found = list(latest.values())
    else:
        last = step - 1 if step - 1 in ran else max((one for one in list(ran) if one < step), default=None)
        found = list(ran[last].values()) if last is not None else []
    for _, trace_id, span_id in found:
        node.link(trace_id, span_id, "triggered_by" if joined or len(found) == 1 else "triggered_by_one_of")
    ran.setdefault(step, {})[task] = (node.name, node.trace_id, node.span_id)  # of the last attempt


def _called_by_graph() -> bool:
    """Whether the event came straight from a graph's `stream` or `astream`: nothing in the event itself tells."""
    frame: FrameType | None = sys._getframe(3)
    left = _NEARBY
    while frame is not None and left:
        code = frame.f_code
        if code is _STREAM or code is _ASTREAM:  # not a set: hashing a code object costs more than the walk
            return True
        left = _STARTER if code is _STARTED or code is _ASTARTED else left - 1
        frame = frame.f_back
    return False


@functools.lru_cache(maxsize=4096)
def _task(step: Any, triggers: tuple[Any, ...], path: tuple[Any, ...]) -> tuple[Fixed, int | None]:
    """A task's attributes, and the index of a `Send` or of a call: `("__pregel_push", ..., index, is_call)`."""
    sent = bool(path) and path[0] == "__pregel_push"
    attributes = {"langgraph.step": step, "langgraph.triggers": list(triggers), "langgraph.path": _path_text(path)}
    return Fixed(attributes), next((part for part in reversed(path) if sent and type(part) is int), None)


def _path_text(path: tuple[Any, ...]) -> str:
    return "/".join(_path_text(part) if isinstance(part, tuple) else str(part) for part in path)


def _read(state: Any) -> list[Given]:
    """What a node read, channel by channel."""
    if type(state) is dict:
        return payload.slots(state, "input")
    fields = payload.fields_of(state)
    return payload.slots(fields if fields is not None else _plain(state), "input")


def _graph_inputs(inputs: Any) -> list[Given]:
    if isinstance(inputs, Command):
        given = _written(inputs)
        return given if inputs.resume is None else [("resume", "value", inputs.resume), *given]
    return _read(inputs)


def _written(value: Any) -> list[Given]:
    """What a node wrote, channel by channel, from whatever it returned."""
    if value is None or isinstance(value, Send):
        return []
    if type(value) is dict:
        return [(str(channel), "value", _plain(part)) for channel, part in value.items()]
    if isinstance(value, Command):
        update = value.update
        if isinstance(update, (list, tuple)) and all(isinstance(one, tuple) and len(one) == 2 for one in update):
            return [(str(channel), "value", _plain(part)) for channel, part in update]
        return _written(update)
    if isinstance(value, BaseMessage):
        return [("messages", "value", [value])]
    if isinstance(value, (list, tuple)):
        if any(isinstance(one, (Command, Send)) for one in value):
            return [slot for one in value for slot in _written(one)]
        if value and all(isinstance(one, BaseMessage) for one in value):
            return [("messages", "value", list(value))]
    fields = payload.fields_of(value)
    if fields is None:
        return [("output", "value", value)]
    changed = getattr(value, "__pydantic_fields_set__", fields.keys())
    return [(channel, "value", part) for channel, part in fields.items() if channel in changed]


def _goto(value: Any) -> list[str]:
    """Where a node's commands send control."""
    if isinstance(value, Command):
        goto = value.goto
        targets = goto if isinstance(goto, (list, tuple)) else [goto]
        return [one.node if isinstance(one, Send) else str(one) for one in targets]
    if isinstance(value, (list, tuple)):
        return [target for one in value if isinstance(one, (Command, Send)) for target in _goto(one)]
    return [value.node] if isinstance(value, Send) else []


def _plain(value: Any) -> Any:
    """A value with LangGraph's control objects in a form that can be recorded."""
    if type(value) in _DATA:
        return value
    if isinstance(value, Send):
        return {"send": value.node, "arg": _plain(value.arg)}
    if isinstance(value, Command):
        return {"update": _plain(value.update), "goto": _goto(value), "graph": value.graph}
    if type(value) is list and any(map(isinstance, value, repeat((Send, Command)))):
        return [_plain(one) for one in value]
    return value


def _same(one: Any, other: Any) -> bool:
    """Whether two states hold the very same values."""
    if one is other or type(one) is not dict or type(other) is not dict:
        return one is other
    return one.keys() == other.keys() and all(one[channel] is other[channel] for channel in one)


def _last_message(given: Given) -> Given:
    value = given[2]
    if isinstance(value, list) and value and isinstance(value[-1], BaseMessage):
        return (given[0], given[1], value[-1])
    return given
