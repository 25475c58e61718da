"""The recorder: the policy that keeps what each boundary was asked and answered, and changes nothing.

It stands before a cache, so that what was served is recorded as well. What cannot be kept is noted, and never in the way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from clew.replay.ambient import console
from clew.replay.ambient.clock import listeners
from clew.replay.answer import copied, pack
from clew.replay.recording import failure, question
from clew.replay.recording.redact import redacted
from clew.replay.recording.request import CLOCK, CONSOLE, Request, number, requests
from clew.replay.stack import stack_of
from clew.store.digest import Domain, raw_digest
from clew.store.errors import Unstorable
from clew.store.record import Answer
from clew.tracer import branch, context
from clew.tracer.boundary import Call
from clew.tracer.capture import Batch
from clew.tracer.init import Tracer
from clew.tracer.span import OpenSpan

_INLINE_BYTES = 256
Chunks = list[tuple[int, Any]]


class Asked(NamedTuple):
    """One thing that is being asked, and for the how-manieth time at this place of its run."""

    request: Request
    occurrence: int
    resumed: int
    branches: branch.Branches


class Recorder:
    """Writes an Answer for all that a process asks."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer

    # -- boundary.Policy

    def call(self, call: Call, perform: Callable[[], Any]) -> Any:
        asked, started = self._asked(call), time.time_ns()
        try:
            response = perform()
        except Exception as error:
            self._raised(call, asked, started, error)
            raise
        self._answered(call, asked, started, response)
        return response

    async def call_async(self, call: Call, perform: Callable[[], Awaitable[Any]]) -> Any:
        asked, started = self._asked(call), time.time_ns()
        try:
            response = await perform()
        except asyncio.CancelledError:
            self._left(call, asked, started, [], "cancelled")
            raise
        except Exception as error:
            self._raised(call, asked, started, error)
            raise
        self._answered(call, asked, started, response)
        return response

    def stream(self, call: Call, perform: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        asked, started = self._asked(call), time.time_ns()
        chunks: Chunks = []
        try:
            for chunk in perform():
                chunks.append((time.time_ns() - started, copied(chunk)))
                yield chunk
        except GeneratorExit:
            self._left(call, asked, started, chunks, "closed")
            raise
        except Exception as error:
            self._raised(call, asked, started, error, chunks)
            raise
        self._answered(call, asked, started, None, chunks)

    async def stream_async(self, call: Call, perform: Callable[[], AsyncIterator[Any]]) -> AsyncIterator[Any]:
        asked, started = self._asked(call), time.time_ns()
        chunks: Chunks = []
        try:
            async for chunk in perform():
                chunks.append((time.time_ns() - started, copied(chunk)))
                yield chunk
        except (GeneratorExit, asyncio.CancelledError) as error:
            self._left(call, asked, started, chunks, "closed" if isinstance(error, GeneratorExit) else "cancelled")
            raise
        except Exception as error:
            self._raised(call, asked, started, error, chunks)
            raise
        self._answered(call, asked, started, None, chunks)

    # -- what is no call

    def clock(self, place: str, true_ns: int) -> int:
        """A reading of `clew.now`: it is recorded, and told as it is."""
        if context.enclosing() is not None:
            self.note("clock", "read", CLOCK, true_ns)
        return true_ns

    def console(self, place: str, prompt: object, ask: Callable[[], str]) -> str:
        """A line that a person types, or that there is none: it is recorded, and told as it is."""
        try:
            line = ask()
        except EOFError:
            self.note("console", "input", CONSOLE, None)
            raise
        self.note("console", "input", CONSOLE, line)
        return line

    def note(self, kind: str, operation: str, request: bytes, value: Any, span: OpenSpan | None = None) -> None:
        """Record what a replay needs to know here (or of `span`) and what is no call."""
        tracer, span = self.tracer, span or context.enclosing()
        if tracer.closed:
            return
        with tracer.faults.guard(f"recorded {kind}"):
            run, path = (tracer.process_run, "") if span is None else (span.run, span.path)
            now, missing, batch = time.time_ns(), "", Batch(tracer.gate)
            try:
                data = pack(value)
            except Unstorable as error:
                data, missing = b"", str(error)[:500]
            answer, blob, changed = _put(data, batch)
            entry = Answer(
                run_id=run.run_id,
                trace_id=b"" if span is None else span.trace_id,
                span_id=b"" if span is None else span.span_id,
                kind=kind,
                operation=operation,
                name=kind,
                path=path,
                occurrence=number(run, path, request),
                request=request,
                fields={},
                started_ns=now,
                ended_ns=now,
                answer=answer,
                blob=blob,
                missing=missing,
                redacted=changed,
                branches=list(branch.here(path)),
            )
            batch.record(entry)
            batch.commit()

    # -- what is written

    def _asked(self, call: Call) -> list[Asked]:
        found = requests(self.tracer, call)
        if found is None or call.span is None:
            return []
        run, path = call.span.run, call.span.path
        resumed, branches = question.resumed(), branch.here(path)
        return [Asked(one, number(run, path, one.digest), resumed, branches) for one in found.all]

    def _answered(
        self, call: Call, asked: list[Asked], started_ns: int, response: Any, chunks: Chunks | None = None
    ) -> None:
        with self.tracer.faults.guard("recorded answer"):
            if not asked:
                return
            found = requests(self.tracer, call)
            if found is None or found.batch is None:
                self._keep(call, asked[0], started_ns, response, chunks)
                return
            try:
                parts = list(response)  # of a generator nothing would be left
            except TypeError:
                parts = []
            told = parts if len(parts) == len(asked) and not hasattr(response, "__next__") else None
            for at, one in enumerate(asked):
                if told is None:
                    self._write(call, one, started_ns, missing="an answer of another shape than its batch")
                else:
                    self._keep(call, one, started_ns, told[at], None)

    def _keep(
        self, call: Call, asked: Asked, started_ns: int, response: Any, chunks: Chunks | None, *, left: str = ""
    ) -> None:
        try:
            told = asked.request.exchange.dump(response, chunks)
            data = pack(told)
        except Unstorable as error:
            self._write(call, asked, started_ns, missing=str(error)[:500])
            return
        self._write(call, asked, started_ns, data, usage=asked.request.exchange.usage(told), left=left)

    def _left(self, call: Call, asked: list[Asked], started_ns: int, chunks: Chunks, how: str) -> None:
        """A call of which the program took no more: what it took is known."""
        with self.tracer.faults.guard("recorded answer"):
            for one in asked:
                if chunks:
                    self._keep(call, one, started_ns, None, chunks, left=how)
                else:
                    self._write(call, one, started_ns, left=how)

    def _raised(
        self, call: Call, asked: list[Asked], started_ns: int, error: Exception, chunks: Chunks | None = None
    ) -> None:
        with self.tracer.faults.guard("recorded failure"):
            for one in asked:
                data = pack(one.request.exchange.dump(None, chunks)) if chunks else b""
                self._write(call, one, started_ns, data, raised=error)

    def _write(
        self,
        call: Call,
        asked: Asked,
        started_ns: int,
        data: bytes = b"",
        *,
        raised: Exception | None = None,
        missing: str = "",
        usage: tuple[int, int] = (0, 0),
        left: str = "",
    ) -> None:
        span, request, batch = call.span, asked.request, Batch(self.tracer.gate)
        assert span is not None
        error, error_changed = redacted(failure.dump(raised), batch) if raised is not None else (b"", False)
        answer, blob, changed = _put(data, batch)
        entry = Answer(
            run_id=span.run.run_id,
            trace_id=span.trace_id,
            span_id=span.span_id,
            kind=call.kind,
            operation=request.exchange.operation,
            name=call.name,
            path=span.path,
            occurrence=asked.occurrence,
            request=request.digest,
            fields=request.fields,
            started_ns=started_ns,
            ended_ns=time.time_ns(),
            answer=answer,
            blob=blob,
            error=error,
            missing=missing,
            loose=request.loose,
            sampled=request.exchange.sampled,
            redacted=changed or error_changed,
            model=request.exchange.model,
            input_tokens=usage[0],
            output_tokens=usage[1],
            questions=question.answered(raised),
            left=left,
            resumed=asked.resumed,
            branches=list(asked.branches),
        )
        batch.record(entry)
        batch.commit()


def _put(data: bytes, batch: Batch) -> tuple[bytes, bytes, bool]:
    """What a record holds of a packed answer: itself, or the name of a longer one, which stands once in the log however
    often it was given; and whether something in it was redacted."""
    if not data:
        return b"", b"", False
    name = raw_digest(Domain.BYTES, data) if len(data) > _INLINE_BYTES else b""
    if name in batch.gate.known and batch.current:  # it is in the log as it is
        return b"", name, False
    data, changed = redacted(data, batch)
    if not name:
        return data, b"", changed
    if changed:
        name = raw_digest(Domain.BYTES, data)
    batch.put(Domain.BYTES, name, data)  # it is clean already, and no text
    return b"", name, changed


def record(tracer: Tracer) -> None:
    """Have all that this process asks recorded."""
    stack = stack_of(tracer)
    if stack.recorder is None:
        recorder = stack.recorder = Recorder(tracer)
        stack.arrange()
        branch.wanted.append(recorder)
        listeners.append(recorder)
        console.listen(recorder)
        tracer.undo.append(Kept(lambda: branch.wanted.remove(recorder)))
        tracer.undo.append(Kept(lambda: listeners.remove(recorder)))
        tracer.undo.append(Kept(lambda: console.leave(recorder)))


class Kept:
    """What is undone when tracing ends, and not by `clew.uninstrument`."""

    keep = True

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo = undo

    def __call__(self) -> None:
        self._undo()
