"""The callback handler: LangChain's events as spans.

A span's parent is the span of LangChain's `parent_run_id`, never what happens to be current, and nothing is attached to
a context here: handlers may run in another task or a copied context than the code they tell of (see context.py).
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterable
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from clew.integrations.langchain import document, inference, message, open_runs, payload  # noqa: F401 - items
from clew.integrations.langchain import run as run_cell
from clew.integrations.langchain.template import template_of
from clew.store.identifier import uuid7
from clew.tracer import context, init
from clew.tracer.capture import Given
from clew.tracer.span import OpenRun, OpenSpan, status_of

_LATE: dict[str, Any] = {"input": ""}  # what LangChain says a streamed chain's input is, until it ends
_FRAMEWORK_TAGS = ("seq:step:", "graph:step:", "map:key:")
_FRAMEWORK_KEYS = ("langgraph_", "ls_", "lc_", "checkpoint_", "langsmith", "__")
_FRAMEWORK_METADATA = frozenset(("thread_id", "task_id", "run_id", "assistant_id", "graph_id", "session_id", "user_id"))


class Scope(NamedTuple):
    """The user's tags and metadata keys around a run: children inherit them, and do not record them again."""

    tags: tuple[str, ...]
    keys: tuple[str, ...]


class Kind(NamedTuple):
    """What a chain run is to us. `step` is its part of the span path, if that is not its name."""

    kind: str
    used: list[Given]
    attributes: dict[str, Any]
    step: str | None = None


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
            parent, top = _parent(parent_run_id)
            late = inputs == _LATE if inputs.__class__ is dict else False
            if run_type is None:
                kind, used, attributes, step = self.chain(name, None if late else inputs, metadata, parent)
                if top and kind == "chain":
                    kind = "workflow"
                if kind == "workflow":
                    attributes["gen_ai.workflow.name"] = name
            elif run_type == "prompt":
                kind, used, attributes, step = "prompt", _prompt_slots(serialized, inputs, name), {}, None
                attributes["gen_ai.prompt.name"] = metadata.get("lc_hub_repo")
                attributes["gen_ai.prompt.version"] = metadata.get("lc_hub_commit_hash")
            elif run_type == "llm":  # a model that answers without text, such as a decision model
                request = inference.Request(serialized, metadata, {}, None)
                kind, name, attributes, step = "llm", request.name if request.name != "model" else name, {}, None
                attributes.update(request.attributes)
                used = [("input", "value", payload.bare(inputs)), *request.slots]
            else:
                kind, used, attributes, step = "chain", [] if late else payload.slots(inputs, "input"), {}, None
            run = _run(tracer, name, metadata, parent) if top and kind == "workflow" else None
            span = _open(tracer, kind, name, run_id, parent, tags, metadata, used, attributes, step, run)
            if late:
                span.facts["late"] = inputs
            self.begun(span, metadata)
        except Exception as error:
            tracer.faults.add("LangChain on_chain_start", error)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        span = open_runs.remove(run_id)
        if span is None:
            return
        try:
            _late_inputs(span, kwargs)
            generated = self._generated(span, outputs)
            if span.run.span is span and (answer := self.answer(span, generated)):
                batch = span.tracer.gate.batch()
                span.run.answer = batch.slots(answer)
                batch.commit()
            status = self.status(span, None)
            if status == "ok" and "late" in span.facts and span.facts.get("closed"):
                status = "closed_early"  # LangChain ends a chain whose consumer went away as if it were complete
            self._end(span, generated, status)
        except Exception as error:
            _fault(span, "on_chain_end", error)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        span = open_runs.remove(run_id)
        if span is not None:
            try:
                _late_inputs(span, kwargs)
            except Exception as fault:
                span.tracer.faults.add("LangChain on_chain_error", fault)
            self._failed(span, error)

    def _generated(self, span: OpenSpan, outputs: Any) -> list[Given]:
        if span.kind == "prompt":
            value = payload.bare(outputs)
            return [("messages", "message", value) if isinstance(value, list) else ("prompt", "value", value)]
        if span.kind == "llm":
            return [("message", "message", outputs, None, {"index": 0})]
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
            request = inference.Request(serialized, metadata, more.get("invocation_params") or {}, name)
            used += request.slots
            attributes = request.attributes
            if used[0][0] == "prompt":
                attributes["gen_ai.operation.name"] = "text_completion"
            parent, _ = _parent(parent_run_id)
            _open(tracer, "llm", request.name, run_id, parent, tags, metadata, used, attributes)
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
                ("tool", "tool", {"name": tool, "description": description}, tool),
                ("arguments", "value", inputs if inputs is not None else input_str),
            ]
            attributes = {
                "gen_ai.tool.name": tool,
                "gen_ai.tool.type": "function",
                "gen_ai.tool.call.id": tool_call_id,
                "gen_ai.tool.description": description,
            }
            parent, _ = _parent(parent_run_id)
            _open(tracer, "tool", name or tool, run_id, parent, tags, metadata or {}, used, attributes)
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
            parent, _ = _parent(parent_run_id)
            used = [("query", "value", query)]
            _open(tracer, "retriever", name, run_id, parent, tags, metadata, used, attributes)
        except Exception as error:
            tracer.faults.add("LangChain on_retriever_start", error)

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        span = open_runs.remove(run_id)
        if span is None:
            return
        try:
            scores = span.facts.get("scores") or ()
            generated: list[Given] = []
            for rank, found in enumerate(documents):
                score = scores[rank] if rank < len(scores) else _score(found.metadata)
                generated.append(("documents", "document", found, None, _place(rank, score)))
            self._end(span, generated, "ok", {"clew.document.count": len(generated)})
        except Exception as error:
            _fault(span, "on_retriever_end", error)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        span = open_runs.remove(run_id)
        if span is not None:
            self._failed(span, error)

    # -- ends

    def _end(
        self, span: OpenSpan, generated: list[Given], status: str, attributes: dict[str, Any] | None = None
    ) -> None:
        generated = span.facts.get("generated", generated)
        span.end(status, generated=generated, attributes=attributes, links=span.facts.get("links"))

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
            links = span.facts.get("links")
            span.end(status, generated=generated, attributes=attributes, error=failure, links=links)
        except Exception as fault:
            _fault(span, "error event", fault)

    def left_by(self, span: OpenSpan, error: BaseException) -> list[Given]:
        """What a run that ended by an exception generated all the same."""
        return span.facts.get("generated", [])


def _open(
    tracer: init.Tracer,
    kind: str,
    name: str,
    run_id: UUID,
    parent: OpenSpan | None,
    tags: list[str] | None,
    metadata: dict[str, Any],
    used: list[Given],
    attributes: dict[str, Any],
    step: str | None = None,
    run: OpenRun | None = None,
) -> OpenSpan:
    around: Scope = (parent.facts.get("langchain") if parent is not None else None) or _NOTHING
    scope, key = _scope(around, tags, metadata)
    if scope is not around:
        if scope.tags != around.tags:
            attributes["tag.tags"] = list(scope.tags)
        if scope.keys != around.keys:
            own = {one: metadata[one] for one in scope.keys if one not in around.keys}
            if own:
                attributes["metadata"] = json.dumps(own, default=_type_name, ensure_ascii=False)
        if "user_id" in metadata and around is _NOTHING:
            attributes["user.id"] = str(metadata["user_id"])
    if key is not None:  # a RunnableParallel's own name for this branch
        step = f"{step or name}[{key}]"
    span = OpenSpan(tracer, kind, name, parent=parent, run=run, step=step, used=used, attributes=attributes)
    span.facts["langchain"] = scope
    open_runs.add(run_id, span)
    if kind in ("llm", "retriever"):
        run_cell.announce(run_id)  # the boundary may be handed no run manager
    return span


def _parent(parent_run_id: UUID | None) -> tuple[OpenSpan | None, bool]:
    """The span above, and whether the run is the topmost of LangChain's here."""
    if parent_run_id is not None:
        found = open_runs.span_of(parent_run_id)
        if found is not None:
            return found, False
    around = context.enclosing()
    return around, around is None or "langchain" not in around.facts


def _run(tracer: init.Tracer, name: str, metadata: dict[str, Any], above: OpenSpan | None) -> OpenRun:
    session = metadata.get("thread_id") or metadata.get("session_id") or metadata.get("conversation_id")
    if session is None and above is not None:
        session = above.run.session
    session = None if session is None else str(session)
    return OpenRun(uuid7(), name, session, above.run if above else None, tracer.settings.project)


_NOTHING = Scope((), ())


def _scope(around: Scope, tags: list[str] | None, metadata: dict[str, Any]) -> tuple[Scope, str | None]:
    """The scope of a run (the one around, if nothing is new), and its RunnableParallel key."""
    key = None
    own: list[str] = []
    for tag in tags or ():
        if not tag.startswith(_FRAMEWORK_TAGS):
            own.append(tag)
        elif tag.startswith("map:key:"):
            key = tag[8:]
    keys = _user_keys(tuple(metadata))
    if keys == around.keys and len(own) == len(around.tags) and tuple(own) == around.tags:
        return around, key
    return Scope(tuple(own), keys), key


@functools.lru_cache(maxsize=1024)
def _user_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(key for key in keys if not key.startswith(_FRAMEWORK_KEYS) and key not in _FRAMEWORK_METADATA)


def _prompt_slots(serialized: dict[str, Any] | None, inputs: Any, name: str) -> list[Given]:
    slots: list[Given] = []
    template = template_of(serialized)
    if template is not None:
        slots.append(("template", "prompt", {"messages": template.messages}, name))
        slots.extend((variable, "value", value) for variable, value in template.partial.items())
    if isinstance(inputs, dict):
        slots.extend((str(variable), "value", value) for variable, value in inputs.items())
    else:  # LangChain takes the value of a sole variable bare
        variables = template.variables if template is not None else []
        slots.append((variables[0] if len(variables) == 1 else "input", "value", inputs))
    return slots


def _late_inputs(span: OpenSpan, told: dict[str, Any]) -> None:
    if "late" in span.facts:
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
    return serialized.get("name") or (serialized.get("id") or [None])[-1]


def _score(metadata: dict[str, Any]) -> Any:
    for key in ("relevance_score", "score", "_score"):
        if isinstance(metadata.get(key), (int, float)):
            return metadata[key]
    return None


def _place(rank: int, score: Any) -> dict[str, Any]:
    return {"rank": rank} if score is None else {"rank": rank, "score": float(score)}


def _type_name(value: Any) -> str:
    return str(value) if isinstance(value, UUID) else f"<{type(value).__qualname__}>"
