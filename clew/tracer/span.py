"""An open span: a real OpenTelemetry span, and its two records in the log.

What a span uses is in the log before the traced call goes on; what it generated is in the log before `end` returns.
Nothing here raises into the user's program.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from clew.store.digest import Digest, Domain
from clew.store.record import Derivation, Run, Slot, SpanEnd, SpanStart
from clew.store.vocabulary import implied_attributes
from clew.tracer import context
from clew.tracer.capture import Batch, Given
from clew.tracer.constant import Fixed
from clew.tracer.light import LightSpan, Said, told_of
from clew.tracer.memo import UNCHANGING

if TYPE_CHECKING:
    from clew.tracer.init import Tracer
    from clew.tracer.provider import RecordedSpan

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_CLIENT = {"llm", "embedding", "retriever", "reranker"}


class OpenRun:
    """The run that a span belongs to. `trace_id` and `span_id` are its root's, None for the process run."""

    __slots__ = (
        "answer",
        "calls",
        "name",
        "parent",
        "project",
        "replay_of",
        "run_id",
        "seeds",
        "session",
        "span_id",
        "started_ns",
        "trace_id",
    )

    def __init__(
        self, run_id: bytes, name: str, session: str | None, parent: OpenRun | None, project: str = ""
    ) -> None:
        self.run_id = run_id
        self.name = name
        self.session = session
        self.parent = parent
        self.project = project
        self.trace_id: bytes | None = None
        self.span_id: bytes | None = None
        self.started_ns = time.time_ns()
        self.seeds: dict[str, Any] = {}
        self.answer: list[Slot] = []
        self.replay_of = b""
        self.calls: dict[tuple[Any, ...], Iterator[int]] = {}  # span path and request -> occurrences so far

    def is_within(self, root: OpenRun) -> bool:
        """Whether this run is `root`, or is in it."""
        run: OpenRun | None = self
        while run is not None and run is not root:
            run = run.parent
        return run is not None

    def record(self, process_id: bytes, ended_ns: int | None = None) -> Run:
        """This run as it stands in the log."""
        return Run(
            run_id=self.run_id,
            name=self.name,
            started_ns=self.started_ns,
            process_id=process_id,
            session=self.session,
            trace_id=self.trace_id,
            span_id=self.span_id,
            parent_run_id=self.parent.run_id if self.parent and self.parent.span_id else None,
            project=self.project,
            seeds=self.seeds,
            answer=self.answer,
            ended_ns=ended_ns,
            replay_of=self.replay_of,
        )


class OpenSpan:
    """A span that has begun and not ended. `opens`: it is the root of its run. Ending twice does nothing."""

    __slots__ = (
        "_ended",
        "_late",
        "_links",
        "_pairs",
        "_process",
        "complete",
        "facts",
        "kind",
        "name",
        "opens",
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
        fixed: Fixed | None = None,
    ) -> None:
        """`run` opens a run of which this is the root; `step` is this span's part of the span path, if not `name`."""
        gate = tracer.gate
        name = gate.names[name] if name in gate.names else gate.name(name)
        self.tracer = tracer
        if parent is not None and parent.tracer is not tracer and parent.tracer.folder.path != tracer.folder.path:
            parent = None  # it stands in another store
            if run is not None:
                run.parent = None
        self.kind = kind
        self.name = name
        self.parent = parent
        self.facts: dict[str, Any] = {}  # what observers and boundaries tell each other; not recorded
        self.complete = True  # nothing that was captured before its end was captured as an opaque marker
        self._ended = False
        self._process = tracer.process_run  # a forked child has another one
        self._late: tuple[Given, ...] = ()
        self._links: tuple[tuple[bytes, bytes, str], ...] = ()
        self._pairs: tuple[Derivation, ...] = ()
        self.opens = run is not None
        if run is None:
            run = parent.run if parent is not None else tracer.process_run
        else:
            run.name = gate.name(run.name)
            run.session = gate.name(run.session) if run.session is not None else None
        self.run: OpenRun = run
        above = context.parent_here(parent)
        self.otel = otel = tracer.provider.light_span(name, above) or self._recorded(name, above, attributes, fixed)
        self.trace_id = trace_id = otel.trace_id
        self.span_id = span_id = otel.span_id
        self.start_ns = start_ns = otel.start_time or time.time_ns()
        step = gate.name(step) if step else name
        path = f"{parent.path}/{step}" if parent is not None else step
        self.path: str = path
        above_id = parent.span_id if parent is not None and above is parent.otel else _id(above)
        self.slots: list[Slot] = []  # what it used when it began: the request of a boundary
        try:
            batch = Batch(gate)
            self.slots = slots = batch.slots(used)
            told = batch.attributes(attributes) if attributes else {}
            if fixed is not None:
                told = {**batch.fixed(fixed), **told}
            if self.opens:
                run.trace_id, run.span_id = trace_id, span_id
                run.seeds = batch.plain(run.seeds)
                batch.record(run.record(tracer.process_id))
            batch.record(SpanStart(trace_id, span_id, above_id, run.run_id, kind, name, path, start_ns, slots, told))
            gate.commit(batch)
        except Exception as error:
            tracer.faults.add(f"start of {kind} span", error)

    def _recorded(
        self, name: str, above: trace.Span, attributes: dict[str, Any] | None, fixed: Fixed | None
    ) -> RecordedSpan:
        """The span for those who read spans through OpenTelemetry: with the record's attributes, and what its kind implies."""
        own = {key: value for key, value in {**(fixed or {}), **(attributes or {})}.items() if value is not None}
        implied = implied_attributes(self.kind, self.name, self.run.run_id.hex(), self.run.session, own)
        kind = SpanKind.CLIENT if self.kind in _CLIENT else SpanKind.INTERNAL
        return self.tracer.provider.own_span(name, above, kind, implied | own)

    @property
    def here(self) -> bool:
        """Whether it has not ended, and is this process's to end."""
        return not self._ended and self._process is self.tracer.process_run

    def said(self, role: str, value: Any) -> Given:
        """What the program says now that the span used or generated, captured as it is now."""
        given: Given = (role, "value", value)
        if type(value) in UNCHANGING or not self.here:
            return given
        with self.tracer.faults.guard("capture of what was said of a span"):
            batch = Batch(self.tracer.gate)
            slot = batch.slot(given)
            batch.commit()
            given = (role, "value", (Domain(slot.domain), Digest(slot.digest)))
            self.complete &= batch.complete
        return given

    def use(self, *given: Given) -> None:
        """Note what the span used and only now became known; written when it ends."""
        self._late += given

    def link(self, trace_id: bytes, span_id: bytes, kind: str) -> None:
        """Link the span to another one, such as the attempt before it ("retry_of")."""
        self._links += ((trace_id, span_id, kind),)

    def derive(
        self,
        relation: str,
        from_kind: str,
        to_kind: str,
        pairs: list[tuple[bytes, bytes, int | None, int | None]],
    ) -> None:
        """Declare item-to-item lineage: pairs of (from digest, to digest, start, end in the `to` text)."""
        if pairs:
            self._pairs += (
                Derivation(self.trace_id, self.span_id, relation, from_kind, to_kind, pairs, self.run.run_id),
            )

    def attributes(self, values: dict[str, Any]) -> None:
        """Attributes that became known during the call."""
        known = self.facts.setdefault("attributes", {})
        for name, value in values.items():
            if value is not None:
                known[name] = value

    def end(
        self,
        status: str = "ok",
        *,
        generated: Iterable[Given] = (),
        attributes: dict[str, Any] | None = None,
        error: BaseException | None = None,
        name: str | None = None,
        answer: Iterable[Given] | None = None,
    ) -> None:
        """End the span. `error` gives the status unless one is named (see `status_of`); `answer` is that of the run
        that the span opened.

        In a forked child it does nothing to a span of the parent's: it is the parent's to end.
        """
        tracer = self.tracer
        if self._ended or self._process is not tracer.process_run:  # as `here` says
            return
        self._ended = True
        values: dict[str, Any] = self.facts.pop("attributes", {})
        if attributes:
            values.update({key: value for key, value in attributes.items() if value is not None})
        if "served" in self.facts:
            values = {key: 0 if key.startswith("gen_ai.usage.") else value for key, value in values.items()}
        if error is not None and status == "ok":
            status = status_of(error)
        late = self._late
        if error is not None and status == "error":
            values["error.type"] = type(error).__qualname__
            message, trace = told_of(error)
            values["exception.message"] = tracer.gate.cleaner.text(message)[:2000]
            late = (*late, ("traceback", "value", trace))
        end_ns = time.time_ns()
        events: list[Any] = []
        try:
            batch = Batch(tracer.gate)
            if (said := self.otel.said) is not None:
                status, name = self._heard(batch, said, status, name, values, events)
            name = tracer.gate.name(name) if name is not None else None
            out = batch.slots(generated)
            more = batch.slots(late) if late else []
            values = batch.attributes(values) if values else values
            if self.opens and answer is not None:
                self.run.answer = batch.slots(answer)
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
                    list(self._links),
                    name,
                    batch.complete and self.complete,
                    events,
                )
            )
            if self.opens:
                batch.record(self.run.record(tracer.process_id, end_ns))
            tracer.gate.commit(batch)
            if self.opens:
                tracer.run_ended(self.run)
        except Exception as failure:
            tracer.faults.add(f"end of {self.kind} span", failure)
        try:
            if not isinstance(self.otel, LightSpan):
                self._export(self.otel, status, name, values)
            self.otel.end(end_ns)
        except Exception as failure:
            tracer.faults.add("OpenTelemetry span end", failure)

    def _heard(
        self, batch: Batch, said: Said, status: str, name: str | None, values: dict[str, Any], events: list[Any]
    ) -> tuple[str, str | None]:
        """What the program said through OpenTelemetry, where clew does not know better; returns status and name."""
        guard = self.tracer.faults.guard  # each on its own: what is odd in one thing said loses nothing else
        with guard("attributes said of a span"):
            for key, value in said.attributes.copy().items():
                values.setdefault(key, value)
        for event, when, told in said.events.copy():
            with guard("event said of a span"):
                events.append([batch.plain(event), batch.plain(when), batch.attributes(told)])
        for link in said.links.copy():
            with guard("link said of a span"):
                trace_id, span_id = link.trace_id.to_bytes(16, "big"), link.span_id.to_bytes(8, "big")
                self.link(trace_id, span_id, "link")
        if said.failed and status == "ok":
            status = "error"
            if said.description:
                values.setdefault("exception.message", said.description)
        return status, name if name is not None or said.name is None else str(said.name)

    def _export(self, otel: RecordedSpan, status: str, name: str | None, values: dict[str, Any]) -> None:
        otel.said = None  # from here on it is clew that speaks
        if values:
            otel.set_attributes({k: v for k, v in values.items() if v.__class__ is not dict})
        for trace_id, span_id, kind in self._links:
            if kind != "link":  # those were the program's own
                other = SpanContext(int.from_bytes(trace_id, "big"), int.from_bytes(span_id, "big"), False, _SAMPLED)
                otel.add_link(other, {"clew.link.type": kind})
        if name is not None:
            otel.update_name(name)
        if status == "error":
            otel.set_status(Status(StatusCode.ERROR, values.get("exception.message")))
        elif status != "ok":
            otel.set_attribute("clew.status", status)


def _id(above: trace.Span) -> bytes | None:
    """The id of a span that may be anybody's."""
    found = above.get_span_context()
    return found.span_id.to_bytes(8, "big") if found.is_valid else None


def status_of(error: BaseException) -> str:
    """The status of a span that ended by an exception."""
    if isinstance(error, GeneratorExit):
        return "closed_early"
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return "closed_early"  # the program ended itself, and well
    return "error"
