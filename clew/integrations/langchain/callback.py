"""The callback handler: LangChain's events as spans.

A span's parent is the span of LangChain's `parent_run_id`, never what happens to be current, and nothing is attached to
a context here: handlers may run in another task or a copied context than the code they tell of (see context.py).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from clew.integrations.langchain import document, inference, message, open_runs, payload, run, template
from clew.tracer import init
from clew.tracer.capture import Given
from clew.tracer.constant import Constant, Fixed
from clew.tracer.span import OpenSpan, status_of

__all__ = ["Kind", "LangChainObserver", "message"]  # importing `message` makes messages items

_LATE: dict[str, Any] = {"input": ""}  # what LangChain says a streamed chain's input is, until it ends


class Kind(NamedTuple):
    """What a chain run is to us. `step` is its part of the span path, if that is not its name; `fixed` are more attributes."""

    kind: str
    used: list[Given]
    attributes: dict[str, Any]
    step: str | None = None
    fixed: Fixed | None = None


class LangChainObserver(BaseCallbackHandler):
    """Gives every LangChain run a span. One serves the whole process; without a running tracer it does nothing."""

    run_inline = True

    # -- what a framework that stands on LangChain refines

    def chain(self, name: str, inputs: Any, metadata: dict[str, Any], parent: OpenSpan | None) -> Kind:
        """What a chain run is."""
        return Kind("chain", payload.slots(inputs, "input"), {})

    def begun(self, span: OpenSpan, metadata: dict[str, Any]) -> None:
        """A chain's span is open."""

    def outputs(self, span: OpenSpan, outputs: Any) -> list[Given]:
        """What a chain generated."""
        return payload.slots(outputs, "output")

    def answer(self, span: OpenSpan, generated: list[Given]) -> list[Given]:
        """The answer of a run whose root span generated this."""
        return generated

    def status(self, span: OpenSpan, error: BaseException | None) -> str:
        """How a run ended."""
        return "ok" if error is None else status_of(error)

    # -- chains and prompts

    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_type: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        tracer = init.active()
        if tracer is None or open_runs.is_open(run_id):
            return
        try:
            metadata = metadata or {}
            name = name or _class_name(serialized) or "RunnableCallable"
            parent, top = open_runs.parent(parent_run_id)
            late = inputs == _LATE if type(inputs) is dict else False
            step = fixed = None
            if run_type is None:
                kind, used, attributes, step, fixed = self.chain(name, None if late else inputs, metadata, parent)
                if top and kind == "chain":
                    kind = "workflow"
            elif run_type == "prompt":
                kind, used, attributes = "prompt", template.slots(serialized, inputs, name), {}
                attributes["gen_ai.prompt.name"] = metadata.get("lc_hub_repo")
                attributes["gen_ai.prompt.version"] = metadata.get("lc_hub_commit_hash")
            elif run_type == "llm":  # a model that answers without text, such as a decision model
                request = inference.request(serialized, metadata, {})
                kind, attributes, fixed = "llm", {}, request.attributes
                name = name if request.name == "model" else request.name
                used = [("input", "value", payload.bare(inputs)), *request.slots]
            else:
                kind, used, attributes = "chain", [] if late else payload.slots(inputs, "input"), {}
            opens = open_runs.new_run(tracer, name, metadata, parent) if top and kind == "workflow" else None
            span = open_runs.start(
                tracer, kind, name, run_id, parent, tags, metadata, used, attributes, step, opens, fixed
            )
            if late:
                span.facts["late"] = inputs
                span.facts["inner runs"] = set()
            self.begun(span, metadata)
        except Exception as error:
            tracer.faults.add("LangChain on_chain_start", error)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        span = open_runs.remove(run_id)
        if span is None:
            return
        try:
            if "late" in span.facts:
                _late_inputs(span, kwargs)
            generated = self._generated(span, outputs)
            answer = self.answer(span, generated) if span.opens else None
            status = self.status(span, None)
            if status == "ok" and (span.facts.get("inner runs") or span.facts.get("closed")):
                status = "closed_early"  # LangChain ends a stream whose reader went away as if it were complete
            self._end(span, generated, status, answer=answer)
        except Exception as error:
            _fault(span, "on_chain_end", error)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        span = open_runs.remove(run_id)
        if span is not None:
            try:
                if "late" in span.facts:
                    _late_inputs(span, kwargs)
            except Exception as fault:
                span.tracer.faults.add("LangChain on_chain_error", fault)
            self._failed(span, error)

    def _generated(self, span: OpenSpan, outputs: Any) -> list[Given]:
        if span.kind == "prompt":
            value = payload.bare(outputs)
            return [("messages", "message", value) if isinstance(value, list) else ("prompt", "value", value)]
        if span.kind == "llm":
            generated, attributes = inference.decided(outputs)
            span.attributes(attributes)
            return generated
        return self.outputs(span, outputs)

    # -- models

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[Any]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        used: list[Given] = [("messages", "message", one) for one in messages]
        self._model(serialized, used, run_id, parent_run_id, tags, metadata, name, kwargs)

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        used: list[Given] = [("prompt", "value", one) for one in prompts]
        self._model(serialized, used, run_id, parent_run_id, tags, metadata, name, kwargs)

    def _model(
        self,
        serialized: dict[str, Any],
        used: list[Given],
        run_id: UUID,
        parent_run_id: UUID | None,
        tags: list[str] | None,
        metadata: dict[str, Any] | None,
        name: str | None,
        more: dict[str, Any],
    ) -> None:
        tracer = init.active()
        if tracer is None or open_runs.is_open(run_id):
            return
        try:
            metadata = metadata or {}
            request = inference.request(serialized, metadata, more.get("invocation_params") or {})
            used += request.slots
            attributes = {"gen_ai.operation.name": "text_completion"} if used[0][0] == "prompt" else {}
            parent, _ = open_runs.parent(parent_run_id)
            name = name or request.name
            fixed = request.attributes
            open_runs.start(tracer, "llm", name, run_id, parent, tags, metadata, used, attributes, fixed=fixed)
            run.announce(run_id)  # the boundary may be handed no run manager
        except Exception as error:
            tracer.faults.add("LangChain model start", error)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        span = open_runs.span_of(run_id)
        if span is not None and "first_chunk" not in span.facts:
            span.facts["first_chunk"] = time.time_ns()

    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        span = open_runs.span_of(run_id)
        if span is None or "first_chunk" in span.facts:
            return
        if not isinstance(event, dict) or event.get("event") not in ("message-start", "message-finish"):
            span.facts["first_chunk"] = time.time_ns()

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        span = open_runs.remove(run_id)
        if span is None:
            return
        try:
            generated, attributes = inference.answer(response)
            _first_chunk(span, attributes)
            self._end(span, generated, "ok", attributes)
        except Exception as error:
            _fault(span, "on_llm_end", error)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        span = open_runs.remove(run_id)
        if span is None:
            return
        generated: list[Given] = []
        attributes: dict[str, Any] = {}
        try:
            if kwargs.get("response") is not None:  # what was streamed before
                generated, attributes = inference.answer(kwargs["response"])
            _first_chunk(span, attributes)
        except Exception as fault:
            span.tracer.faults.add("LangChain on_llm_error", fault)
        self._failed(span, error, generated, attributes)

    # -- tools

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        name: str | None = None,
        tool_call_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        tracer = init.active()
        if tracer is None or open_runs.is_open(run_id):
            return
        try:
            tool = serialized.get("name") or name or "tool"
            description = serialized.get("description")
            used = [
                ("tool", "tool", _tool(tool, description), tool),
                ("arguments", "value", inputs if inputs is not None else input_str),
            ]
            attributes = {
                "gen_ai.tool.name": tool,
                "gen_ai.tool.type": "function",
                "gen_ai.tool.call.id": tool_call_id,
                "gen_ai.tool.description": description,
            }
            parent, _ = open_runs.parent(parent_run_id)
            open_runs.start(tracer, "tool", name or tool, run_id, parent, tags, metadata or {}, used, attributes)
        except Exception as error:
            tracer.faults.add("LangChain on_tool_start", error)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        span = open_runs.remove(run_id)
        if span is None:
            return
        try:
            generated: list[Given] = []
            made = hasattr(output, "tool_call_id") and hasattr(output, "content")
            if "result" in span.facts:
                generated.append(("result", "value", span.facts["result"]))
            else:
                generated.append(("result", "value", output.content if made else self.result(output)))
            if made:
                generated.append(("message", "message", output))
            status = "error" if made and getattr(output, "status", None) == "error" else "ok"
            self._end(span, generated, status)
        except Exception as error:
            _fault(span, "on_tool_end", error)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        span = open_runs.remove(run_id)
        if span is not None:
            self._failed(span, error)

    def result(self, output: Any) -> Any:
        """What a tool returned, where it is no message, in a form that can be recorded."""
        return output

    # -- retrievers

    def on_retriever_start(
        self,
        serialized: dict[str, Any] | None,
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        tracer = init.active()
        if tracer is None or open_runs.is_open(run_id):
            return
        try:
            metadata = metadata or {}
            name = name or _class_name(serialized) or "retriever"
            attributes = {
                "gen_ai.provider.name": metadata.get("ls_vector_store_provider"),
                "db.system.name": metadata.get("ls_vector_store_provider"),
                "langchain.embedding.provider": metadata.get("ls_embedding_provider"),
            }
            parent, _ = open_runs.parent(parent_run_id)
            used = [("query", "value", query)]
            open_runs.start(tracer, "retriever", name, run_id, parent, tags, metadata, used, attributes)
            run.announce(run_id)  # as for models
        except Exception as error:
            tracer.faults.add("LangChain on_retriever_start", error)

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        span = open_runs.remove(run_id)
        if span is None:
            return
        try:
            scores = span.facts.get("scores") or ()
            generated = document.slots(documents, scores)
            self._end(span, generated, "ok", {"clew.document.count": len(generated)})
        except Exception as error:
            _fault(span, "on_retriever_end", error)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        span = open_runs.remove(run_id)
        if span is not None:
            self._failed(span, error)

    # -- ends

    def _end(
        self,
        span: OpenSpan,
        generated: list[Given],
        status: str,
        attributes: dict[str, Any] | None = None,
        answer: list[Given] | None = None,
    ) -> None:
        generated = span.facts.get("generated", generated)
        span.end(status, generated=generated, attributes=attributes, answer=answer)

    def _failed(
        self,
        span: OpenSpan,
        error: BaseException,
        generated: Iterable[Given] = (),
        attributes: dict[str, Any] | None = None,
    ) -> None:
        try:
            status = self.status(span, error)
            if status == "closed_early" and span.parent is not None and "late" in span.parent.facts:
                span.parent.facts["closed"] = True
            if not generated:
                generated = self.left_by(span, error)
            failure = error if status == "error" else None
            span.end(status, generated=generated, attributes=attributes, error=failure)
        except Exception as fault:
            _fault(span, "error event", fault)

    def left_by(self, span: OpenSpan, error: BaseException) -> list[Given]:
        """What a run that ended by an exception generated all the same."""
        found: list[Given] = span.facts.get("generated", [])
        return found


@functools.lru_cache(maxsize=1024)
def _tool(name: str, description: str | None) -> Constant:
    return Constant({"name": name, "description": description})


def _late_inputs(span: OpenSpan, told: dict[str, Any]) -> None:
    span.use(*payload.slots(told.get("inputs", span.facts["late"]), "input"))


def _first_chunk(span: OpenSpan, attributes: dict[str, Any]) -> None:
    first = span.facts.get("first_chunk")
    if first is not None:
        attributes["gen_ai.request.stream"] = True
        attributes["gen_ai.response.time_to_first_chunk"] = (first - span.start_ns) / 1e9


def _fault(span: OpenSpan, where: str, error: Exception) -> None:
    """Our own fault: the span still ends."""
    span.tracer.faults.add(f"LangChain {where}", error)
    span.end()


def _class_name(serialized: dict[str, Any] | None) -> str | None:
    if not serialized:
        return None
    name = serialized.get("name") or (serialized.get("id") or [None])[-1]
    return None if name is None else str(name)
