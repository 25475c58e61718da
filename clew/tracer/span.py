"""An open span: a real OpenTelemetry span, and its two records in the log.

What a span uses is in the log before the traced call goes on; what it generated is in the log before `end` returns.
Nothing here raises into the user's program.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind, Status, StatusCode

from clew.store.record import Derivation, Run, Slot, SpanEnd, SpanStart
from clew.tracer import context
from clew.tracer.capture import Clean, Given

if TYPE_CHECKING:
    from clew.tracer.init import Tracer

OPENINFERENCE_KIND = {
    "workflow": "CHAIN",
    "node": "CHAIN",
    "agent": "AGENT",
    "llm": "LLM",
    "tool": "TOOL",
    "retriever": "RETRIEVER",
    "reranker": "RERANKER",
    "embedding": "EMBEDDING",
    "prompt": "PROMPT",
    "eval": "EVALUATOR",
}
OPERATION = {
    "workflow": "invoke_workflow",
    "node": "invoke_node",
    "agent": "invoke_agent",
    "llm": "chat",
    "tool": "execute_tool",
    "retriever": "retrieval",
    "embedding": "embeddings",
    "prompt": "render_prompt",
    "reranker": "rerank",
    "train": "train",
    "eval": "evaluate",
}
_CLIENT = {"llm", "embedding", "retriever", "reranker"}


class OpenRun:
    """The run that a span belongs to. `span` is its root, None for the process run."""

    __slots__ = (
        "_attributes",
        "answer",
        "calls",
        "name",
        "parent",
        "project",
        "run_id",
        "seeds",
        "session",
        "span",
        "started_ns",
    )

    def __init__(
        self, run_id: bytes, name: str, session: str | None, parent: OpenRun | None, project: str = ""
    ) -> None:
        self.run_id = run_id
        self.name = name
        self.session = session
        self.parent = parent
        self.project = project
        self.span: OpenSpan | None = None
        self.started_ns = time.time_ns()
        self.seeds: dict[str, Any] = {}
        self.answer: list[Slot] = []
        self.calls: dict[tuple[str, bytes], Iterator[int]] = {}  # (span path, request) -> occurrences so far
        self._attributes: dict[str, dict[str, Any]] = {}

    def attributes(self, kind: str) -> dict[str, Any]:
        """What every span of a kind has in this run."""
        known = self._attributes.get(kind)
        if known is None:
            known = {
                "clew.kind": kind,
                "clew.run.id": Clean(self.run_id.hex()),
                "openinference.span.kind": OPENINFERENCE_KIND.get(kind, "CHAIN"),
                "gen_ai.operation.name": OPERATION.get(kind, kind),
            }
            if self.session is not None:
                known["session.id"] = known["gen_ai.conversation.id"] = self.session
            self._attributes[kind] = known
        return known

    def record(self, process_id: bytes, ended_ns: int | None = None) -> Run:
        """This run as it stands in the log."""
        root = self.span
        return Run(
            run_id=self.run_id,
            name=self.name,
            started_ns=self.started_ns,
            process_id=process_id,
            session=self.session,
            trace_id=root.trace_id if root else None,
            span_id=root.span_id if root else None,
            parent_run_id=self.parent.run_id if self.parent and self.parent.span else None,
            project=self.project,
            seeds=self.seeds,
            answer=self.answer,
            ended_ns=ended_ns,
        )


class OpenSpan:
    """A span that has begun and not ended. Ending twice does nothing."""

    __slots__ = (
        "_ended",
        "_late",
        "_pairs",
        "facts",
        "kind",
        "name",
        "otel",
        "parent",
        "path",
        "run",
        "slots",
        "span_id",
        "start_ns",
        "trace_id",
        "tracer",
    )

    def __init__(
        self,
        tracer: Tracer,
        kind: str,
        name: str,
        *,
        parent: OpenSpan | None,
        run: OpenRun | None = None,
        step: str | None = None,
        used: Iterable[Given] = (),
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """`run` opens a run of which this is the root; `step` is this span's part of the span path, if not `name`."""
        name = tracer.gate.name(name)
        self.tracer = tracer
        self.kind = kind
        self.name = name
        self.parent = parent
        self.facts: dict[str, Any] = {}  # what observers and boundaries tell each other; not recorded
        self.slots: list[Slot] = []  # what it used when it began: the request of a boundary
        self._ended = False
        self._late: list[Given] = []
        self._pairs: list[Derivation] = []
        opens = run is not None
        if run is not None:
            run.name = tracer.gate.name(run.name)
            run.session = tracer.gate.name(run.session) if run.session is not None else None
        self.run: OpenRun = run if run is not None else parent.run if parent else tracer.process_run
        own = self.run.attributes(kind).copy()
        if attributes:
            own.update(attributes)
        above = context.parent_here(parent).get_span_context()
        provider = tracer.provider
        self.otel = provider.start_span(
            name,
            parent=above,
            kind=SpanKind.CLIENT if kind in _CLIENT else SpanKind.INTERNAL,
            # OpenTelemetry checks each one, which is a fifth of a span's cost: only where somebody reads them.
            attributes={k: v for k, v in own.items() if v is not None} if provider.has_readers else None,
        )
        ids = self.otel.get_span_context()
        self.trace_id = ids.trace_id.to_bytes(16, "big")
        self.span_id = ids.span_id.to_bytes(8, "big")
        self.start_ns = self.otel.start_time or time.time_ns()
        step = tracer.gate.name(step) if step else name
        self.path: str = f"{parent.path}/{step}" if parent else step
        if opens:
            self.run.span = self
        self._log_start(above, used, own, opens)

    def _log_start(self, above: Any, used: Iterable[Given], attributes: dict[str, Any], opens: bool) -> None:
        tracer = self.tracer
        try:
            batch = tracer.gate.batch()
            slots = self.slots = batch.slots(used)
            if opens:
                self.run.seeds = batch.plain(self.run.seeds)
                batch.record(self.run.record(tracer.process_id))
            batch.record(
                SpanStart(
                    self.trace_id,
                    self.span_id,
                    above.span_id.to_bytes(8, "big") if above.is_valid else None,
                    self.run.run_id,
                    self.kind,
                    self.name,
                    self.path,
                    self.start_ns,
                    slots,
                    batch.attributes(attributes),
                )
            )
            batch.commit()
        except Exception as error:
            tracer.faults.add(f"start of {self.kind} span", error)

    def use(self, *given: Given) -> None:
        """Note what the span used and only now became known; written when it ends."""
        self._late.extend(given)

    def derive(
        self,
        relation: str,
        from_kind: str,
        to_kind: str,
        pairs: list[tuple[bytes, bytes, int | None, int | None]],
    ) -> None:
        """Declare item-to-item lineage: pairs of (from digest, to digest, start, end in the `to` text)."""
        if pairs:
            self._pairs.append(
                Derivation(self.trace_id, self.span_id, relation, from_kind, to_kind, pairs, self.run.run_id)
            )

    def attributes(self, values: dict[str, Any]) -> None:
        """Attributes that became known during the call."""
        self.facts.setdefault("attributes", {}).update((k, v) for k, v in values.items() if v is not None)

    def end(
        self,
        status: str = "ok",
        *,
        generated: Iterable[Given] = (),
        attributes: dict[str, Any] | None = None,
        error: BaseException | None = None,
        name: str | None = None,
        links: list[tuple[bytes, bytes, str]] | None = None,
    ) -> None:
        """End the span. `error` gives the status unless one is named (see `status_of`)."""
        if self._ended:
            return
        self._ended = True
        tracer = self.tracer
        values: dict[str, Any] = self.facts.pop("attributes", {})
        if attributes:
            values.update((key, value) for key, value in attributes.items() if value is not None)
        if error is not None and status == "ok":
            status = status_of(error)
        late = self._late
        if error is not None and status == "error":
            values["error.type"] = type(error).__qualname__
            message, trace = _told(error)
            values["exception.message"] = tracer.gate.cleaner.text(message)[:2000]
            late = [*late, ("traceback", "value", trace)]
        end_ns = time.time_ns()
        name = tracer.gate.name(name) if name is not None else None
        try:
            batch = tracer.gate.batch()
            out, more = batch.slots(generated), batch.slots(late)
            values = batch.attributes(values)
            for pairs in self._pairs:
                batch.record(pairs)
            batch.record(
                SpanEnd(
                    self.trace_id,
                    self.span_id,
                    end_ns,
                    status,
                    out,
                    more,
                    values,
                    links or [],
                    name,
                    batch.complete,
                )
            )
            if self.run.span is self:
                batch.record(self.run.record(tracer.process_id, end_ns))
            batch.commit()
            if self.run.span is self:
                tracer.run_ended(self.run)
        except Exception as failure:
            tracer.faults.add(f"end of {self.kind} span", failure)
        try:
            if values and tracer.provider.has_readers:
                self.otel.set_attributes({k: v for k, v in values.items() if v.__class__ is not dict})
            if name is not None:
                self.otel.update_name(name)
            if status == "error":
                self.otel.set_status(Status(StatusCode.ERROR, values.get("exception.message")))
            elif status != "ok":
                self.otel.set_attribute("clew.status", status)
            self.otel.end(end_ns)
        except Exception as failure:
            tracer.faults.add("OpenTelemetry span end", failure)


def _told(error: BaseException) -> tuple[str, str]:
    """Message and traceback of an exception, whose own methods may fail."""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be read)"
    try:
        return message, "".join(traceback.format_exception(error))
    except Exception:
        return message, type(error).__qualname__


def status_of(error: BaseException) -> str:
    """The status of a span that ended by an exception."""
    if isinstance(error, GeneratorExit):
        return "closed_early"
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return "error"
