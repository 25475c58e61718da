"""The boundary seam: every call that leaves the deterministic part of a program passes here, in one of four shapes.

An integration describes a call (`Call`) and how to perform it; the seam makes its span current, counts its occurrence,
asks the installed policy whether to perform it at all, and records request and response. A policy that observes is the
default; a cache and a replay are policies, and need no other hook into any framework.

A boundary of the same kind, instance and framework run inside an open one is the same call (a default `_agenerate`
calls `_generate`): the outermost counts. Where the framework has an id for the run, the guard is a process-wide set,
as executors may copy no context; else it travels in OpenTelemetry's context. It is never held over a `yield`.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from clew.store.digest import Digest, Domain, digest
from clew.tracer import context, init
from clew.tracer.capture import Given
from clew.tracer.span import OpenSpan

T = TypeVar("T")
_OPEN = otel_context.create_key("clew-boundary")
_ASKED = operator.attrgetter("role", "digest")
_open_calls: set[tuple[str, int, object]] = set()
MISSING = object()


class Call:
    """One call of the outside world.

    `kind` is a span kind, `operation` names what is asked of it ("chat", "embed_documents", "add", ...), `instance` is
    the framework's object, `run_key` its id of this run (None where it has none). `used` is the request, as slots, or
    says them when it is called: only a policy asks where an observer has recorded them already.
    `describe(response)` gives the slots and attributes of a response; a stream's response is the list of its chunks.
    `span` is the span an observer opened already, else the seam opens one under `parent`. `servable` says whether a
    policy may answer in place of the call (a save or a load must happen). `facts` become the span's own where the seam
    opens it.
    """

    __slots__ = (
        "_used",
        "attributes",
        "describe",
        "facts",
        "instance",
        "key",
        "kind",
        "name",
        "observed",
        "occurrence",
        "operation",
        "parent",
        "run_key",
        "servable",
        "span",
    )

    def __init__(
        self,
        kind: str,
        operation: str,
        instance: object,
        *,
        name: str,
        used: Iterable[Given] | Callable[[], Iterable[Given]] = (),
        describe: Callable[[Any], tuple[Iterable[Given], dict[str, Any]]] | None = None,
        span: OpenSpan | None = None,
        parent: OpenSpan | None = None,
        run_key: object = None,
        servable: bool = True,
        attributes: dict[str, Any] | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.kind = kind
        self.operation = operation
        self.instance = instance
        self.name = name
        self._used = used
        self.describe = describe
        self.span = span
        self.observed = span is not None  # an observer opened it and will end it
        self.parent = parent
        self.run_key = run_key
        self.key = (kind, id(instance), run_key)  # what makes an inner call the same call
        self.servable = servable
        self.attributes = attributes or {}
        self.facts = facts or {}
        self.occurrence = 0

    @property
    def digest(self) -> Digest:
        """The digest of the operation and of the request, as its span recorded it."""
        assert self.span is not None
        parts = b"".join(slot.role.encode() + b"\0" + slot.digest for slot in self.span.slots)
        return digest(Domain.TREE, self.operation.encode() + b"\0" + parts)

    @property
    def used(self) -> list[Given]:
        """The request, as slots."""
        if not isinstance(self._used, list):
            self._used = list(self._used() if callable(self._used) else self._used)
        return self._used


class Policy(Protocol):
    """Decides whether a call is performed. Installed with `Tracer.policy`; None observes."""

    def serve(self, call: Call) -> Any:
        """The response to give instead of performing the call, or `MISSING`."""

    def serve_stream(self, call: Call) -> Iterable[Any] | None:
        """The chunks to give instead of performing the call, or None."""

    def performed(self, call: Call, response: Any) -> None:
        """The call was performed; for a stream, `response` is the list of chunks."""

    def failed(self, call: Call, error: BaseException) -> None:
        """The call was performed and raised."""


def inside(call: Call) -> bool:
    """Whether `call` is the inner half of a call that is open already."""
    return is_open(call.kind, call.instance, call.run_key)


def is_open(kind: str, instance: object, run_key: object = None) -> bool:
    """Whether a call of `instance` is open here, so that one made now would be its inner half.

    With a run id of its own it is that only for the same run; without one, for any.
    """
    if run_key is not None:
        return (kind, id(instance), run_key) in _open_calls
    opened: tuple[tuple[str, int, object], ...] = otel_context.get_value(_OPEN) or ()  # type: ignore[assignment]
    return any(one[0] == kind and one[1] == id(instance) for one in opened)


def perform(call: Call, body: Callable[[], T]) -> T:
    """Pass a plain call."""
    if inside(call):
        return body()
    tracer = begin(call)
    if tracer is None:
        return body()
    served = _serve(tracer, call)
    if served is not MISSING:
        return _finish(tracer, call, served)  # type: ignore[no-any-return]
    token = _enter(call)
    try:
        response = body()
    except BaseException as error:
        _leave(call, token)
        _fail(tracer, call, error)
        raise
    _leave(call, token)
    return _finish(tracer, call, response, performed=True)  # type: ignore[no-any-return]


async def perform_async(call: Call, body: Callable[[], Awaitable[T]]) -> T:
    """Pass a call that is awaited."""
    if inside(call):
        return await body()
    tracer = begin(call)
    if tracer is None:
        return await body()
    served = _serve(tracer, call)
    if served is not MISSING:
        return _finish(tracer, call, served)  # type: ignore[no-any-return]
    token = _enter(call)
    try:
        response = await body()
    except BaseException as error:
        _leave(call, token)
        _fail(tracer, call, error)
        raise
    _leave(call, token)
    return _finish(tracer, call, response, performed=True)  # type: ignore[no-any-return]


def stream(call: Call, body: Callable[[], Iterator[T]]) -> Iterator[T]:
    """Pass a call that yields its answer. The guard and the context are set around each step only."""
    if inside(call):
        yield from body()
        return
    tracer = begin(call)
    if tracer is None:
        yield from body()
        return
    chunks: list[T] = []
    served = None if tracer.policy is None or not call.servable else tracer.policy.serve_stream(call)
    if served is not None:
        try:
            for chunk in served:
                chunks.append(chunk)
                yield chunk
        except BaseException as error:
            _fail(tracer, call, error, chunks, performed=False)
            raise
        _finish(tracer, call, chunks)
        return
    iterator: Iterator[T] | None = None
    try:
        while True:
            token = _enter(call)
            try:
                if iterator is None:
                    iterator = iter(body())
                step: Any = next(iterator, MISSING)
            finally:
                _leave(call, token)
            if step is MISSING:
                break
            chunks.append(step)
            yield step
    except BaseException as error:
        if isinstance(error, GeneratorExit) and iterator is not None and hasattr(iterator, "close"):
            iterator.close()
        _fail(tracer, call, error, chunks)
        raise
    _finish(tracer, call, chunks, performed=True)


async def stream_async(call: Call, body: Callable[[], AsyncIterator[T]]) -> AsyncIterator[T]:
    """Pass a call that yields its answer asynchronously."""
    if inside(call):
        async for chunk in body():
            yield chunk
        return
    tracer = begin(call)
    if tracer is None:
        async for chunk in body():
            yield chunk
        return
    chunks: list[T] = []
    served = None if tracer.policy is None or not call.servable else tracer.policy.serve_stream(call)
    if served is not None:
        try:
            for chunk in served:
                chunks.append(chunk)
                yield chunk
        except BaseException as error:
            _fail(tracer, call, error, chunks, performed=False)
            raise
        _finish(tracer, call, chunks)
        return
    iterator: AsyncIterator[T] | None = None
    try:
        while True:
            token = _enter(call)
            try:
                if iterator is None:
                    iterator = aiter(body())
                step: Any = await anext(iterator, MISSING)
            finally:
                _leave(call, token)
            if step is MISSING:
                break
            chunks.append(step)
            yield step
    except BaseException as error:
        if isinstance(error, GeneratorExit) and iterator is not None and hasattr(iterator, "aclose"):
            await iterator.aclose()
        _fail(tracer, call, error, chunks)
        raise
    _finish(tracer, call, chunks, performed=True)


def begin(call: Call) -> init.Tracer | None:
    """Open the call's span, unless an observer did, and count its occurrence. None if tracing has ended meanwhile."""
    tracer = init.active()
    if tracer is None:
        return None
    try:
        if call.span is None:
            parent = call.parent or context.enclosing()
            call.span = OpenSpan(
                tracer, call.kind, call.name, parent=parent, used=call.used, attributes=call.attributes
            )
            call.span.facts.update(call.facts)
        _count(call)
    except Exception as error:
        tracer.faults.add("boundary", error)
    return tracer


def _count(call: Call) -> None:
    """How many identical requests this span path saw before this one in the run."""
    assert call.span is not None
    key = (call.span.path, call.operation, *map(_ASKED, call.span.slots))
    call.occurrence = next(call.span.run.calls.setdefault(key, itertools.count()))  # one step: branches run in threads
    if call.occurrence:
        call.span.attributes({"clew.occurrence": call.occurrence})


def _serve(tracer: init.Tracer, call: Call) -> Any:
    if tracer.policy is None or not call.servable:
        return MISSING
    return tracer.policy.serve(call)


def _enter(call: Call) -> Any:
    here = otel_context.get_current()
    opened: tuple[Any, ...] = here.get(_OPEN) or ()  # type: ignore[assignment]
    opened = (*opened, call.key)
    if call.run_key is not None:
        _open_calls.add(call.key)
    if call.span is None:
        return otel_context.attach(Context({**here, _OPEN: opened}))
    return otel_context.attach(context.entered(call.span, {_OPEN: opened}))


def _leave(call: Call, token: Any) -> None:
    _open_calls.discard(call.key)
    otel_context.detach(token)


def _finish(tracer: init.Tracer, call: Call, response: Any, *, performed: bool = False) -> Any:
    if performed and tracer.policy is not None and call.servable:
        tracer.policy.performed(call, response)
    if not call.observed and call.span is not None:
        slots: Iterable[Given] = ()
        attributes: dict[str, Any] = {}
        with tracer.faults.guard("boundary response"):
            slots, attributes = call.describe(response) if call.describe else ((), {})
        call.span.end(generated=slots, attributes=attributes)
    call.describe = None  # it may hold the call, and neither should wait for the garbage collector
    return response


def _fail(
    tracer: init.Tracer, call: Call, error: BaseException, chunks: list[Any] | None = None, *, performed: bool = True
) -> None:
    if performed and tracer.policy is not None and call.servable:
        tracer.policy.failed(call, error)
    if call.observed or call.span is None:
        return
    slots: Iterable[Given] = ()
    with tracer.faults.guard("boundary failure"):
        if chunks and call.describe:
            slots, _ = call.describe(chunks)
    call.span.end(generated=slots, error=error)
    call.describe = None
