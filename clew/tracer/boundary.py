"""The boundary seam: every call that leaves the deterministic part of a program passes here, in one of four shapes.

An integration describes a call (`Call`) and how to perform it; the seam makes its span current, counts its occurrence,
asks the installed policy whether to perform it at all, and records request and response. A policy that observes is the
default; a cache and a replay are policies, and need no other hook into any framework.

A boundary of the same kind, instance and framework run inside an open one is the same call (a default `_agenerate`
calls `_generate`): the outermost counts. Where the framework has an id for the run, the guard is a process-wide set,
as executors may copy no context; else it travels in OpenTelemetry's context. It is never held over a `yield`.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from clew.store.digest import Digest, Domain, digest
from clew.tracer import context, init
from clew.tracer.capture import Given
from clew.tracer.exchange import Batch, Exchange
from clew.tracer.span import OpenSpan

T = TypeVar("T")
_OPEN = otel_context.create_key("clew-boundary")
_ASKED = operator.attrgetter("role", "digest")
_open_calls: set[tuple[str, int, object]] = set()
MISSING = object()


class Call:
    """One call of the outside world.

    `kind` is a span kind, `operation` names what is asked of it ("chat", "embed_documents", "add", ...), `instance` is
    the framework's object, `run_key` its id of this run (None where it has none). `used` is the request, as slots, where
    no observer has recorded them already. `exchange` makes what a policy needs to know.
    `describe(response)` gives the slots and attributes of a response; a stream's response is the list of its chunks.
    `span` is the span an observer opened already, else the seam opens one under `parent`. `servable` says whether a
    policy may answer in place of the call (a save or a load must happen). `facts` become the span's own where the seam
    opens it.
    """

    __slots__ = (
        "attributes",
        "describe",
        "exchange",
        "facts",
        "instance",
        "key",
        "kind",
        "name",
        "narrow",
        "narrowed",
        "observed",
        "occurrence",
        "operation",
        "parent",
        "run_key",
        "servable",
        "span",
        "used",
    )

    def __init__(
        self,
        kind: str,
        operation: str,
        instance: object,
        *,
        name: str,
        used: Iterable[Given] = (),
        exchange: Callable[[], Exchange | Batch | None] | None = None,
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
        self.used = used
        self.exchange = exchange
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
        self.narrowed: Any = None  # the rest of the request, where a policy knows part of the answer,
        self.narrow: Callable[[list[int]], Any] = list  # and what makes it of positions

    @property
    def digest(self) -> Digest:
        """The digest of the operation and of the request, as its span recorded it."""
        assert self.span is not None
        parts = b"".join(slot.role.encode() + b"\0" + slot.digest for slot in self.span.slots)
        return digest(Domain.TREE, self.operation.encode() + b"\0" + parts)


class Policy(Protocol):
    """Decides whether a servable call is performed: the answer of each method is the call's. Installed with
    `Tracer.policy`; without one every call is performed. `perform` may be called once at most; of a batch
    (`Call.narrowed`) again for the rest, or for all of it."""

    def call(self, call: Call, perform: Callable[[], Any]) -> Any:
        """A plain call."""

    async def call_async(self, call: Call, perform: Callable[[], Awaitable[Any]]) -> Any:
        """A call that is awaited."""

    def stream(self, call: Call, perform: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """A call that yields its answer."""

    def stream_async(self, call: Call, perform: Callable[[], AsyncIterator[Any]]) -> AsyncIterator[Any]:
        """A call that yields its answer asynchronously."""


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
    policy = tracer.policy
    try:
        if policy is None or not call.servable:
            response = _performed(call, body)
        else:
            response = policy.call(call, functools.partial(_performed, call, body))
    except BaseException as error:
        _fail(tracer, call, error)
        raise
    return _finish(tracer, call, response)


def _performed(call: Call, body: Callable[[], T]) -> T:
    token = _enter(call)
    try:
        return body()
    finally:
        _leave(call, token)


async def perform_async(call: Call, body: Callable[[], Awaitable[T]]) -> T:
    """Pass a call that is awaited."""
    if inside(call):
        return await body()
    tracer = begin(call)
    if tracer is None:
        return await body()
    policy = tracer.policy
    try:
        if policy is None or not call.servable:
            response = await _performed_async(call, body)
        else:
            response = await policy.call_async(call, functools.partial(_performed_async, call, body))
    except BaseException as error:
        _fail(tracer, call, error)
        raise
    return _finish(tracer, call, response)


async def _performed_async(call: Call, body: Callable[[], Awaitable[T]]) -> T:
    token = _enter(call)
    try:
        return await body()
    finally:
        _leave(call, token)


def stream(call: Call, body: Callable[[], Iterator[T]]) -> Iterator[T]:
    """Pass a call that yields its answer."""
    if inside(call):
        yield from body()
        return
    tracer = begin(call)
    if tracer is None:
        yield from body()
        return
    policy = tracer.policy
    chunks: list[T] = []
    source: Iterator[T] | None = None
    try:
        if policy is None or not call.servable:
            source = _steps(call, body)
        else:
            source = policy.stream(call, functools.partial(_steps, call, body))
        for chunk in source:
            chunks.append(chunk)
            yield chunk
    except BaseException as error:
        if isinstance(error, GeneratorExit) and source is not None and hasattr(source, "close"):
            source.close()
        _fail(tracer, call, error, chunks)
        raise
    _finish(tracer, call, chunks)


def _steps(call: Call, body: Callable[[], Iterator[T]]) -> Iterator[T]:
    """What `body` yields; the guard and the context are set around each step only."""
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
                return
            yield step
    except GeneratorExit:
        if iterator is not None and hasattr(iterator, "close"):
            iterator.close()
        raise


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
    policy = tracer.policy
    chunks: list[T] = []
    source: AsyncIterator[T] | None = None
    try:
        if policy is None or not call.servable:
            source = _steps_async(call, body)
        else:
            source = policy.stream_async(call, functools.partial(_steps_async, call, body))
        async for chunk in source:
            chunks.append(chunk)
            yield chunk
    except BaseException as error:
        if isinstance(error, GeneratorExit) and source is not None and hasattr(source, "aclose"):
            await source.aclose()
        _fail(tracer, call, error, chunks)
        raise
    _finish(tracer, call, chunks)


async def _steps_async(call: Call, body: Callable[[], AsyncIterator[T]]) -> AsyncIterator[T]:
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
                return
            yield step
    except GeneratorExit:
        if iterator is not None and hasattr(iterator, "aclose"):
            await iterator.aclose()
        raise


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
    """How many identical requests this span path saw before this one, in the outermost run around it."""
    assert call.span is not None
    run = call.span.run
    while run.parent is not None and run.parent.span_id is not None:
        run = run.parent
    key = (call.span.path, call.operation, *map(_ASKED, call.span.slots))
    call.occurrence = next(run.calls.setdefault(key, itertools.count()))  # one step: branches run in threads
    if call.occurrence:
        call.span.attributes({"clew.occurrence": call.occurrence})


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


def _finish(tracer: init.Tracer, call: Call, response: T) -> T:
    if not call.observed and call.span is not None:
        slots: Iterable[Given] = ()
        attributes: dict[str, Any] = {}
        with tracer.faults.guard("boundary response"):
            slots, attributes = call.describe(response) if call.describe else ((), {})
        call.span.end(generated=slots, attributes=attributes)
    call.describe = call.exchange = None  # they may hold the call, and nothing should wait for the garbage collector
    return response


def _fail(tracer: init.Tracer, call: Call, error: BaseException, chunks: list[Any] | None = None) -> None:
    if call.observed or call.span is None:
        return
    slots: Iterable[Given] = ()
    with tracer.faults.guard("boundary failure"):
        if chunks and call.describe:
            slots, _ = call.describe(chunks)
    call.span.end(generated=slots, error=error)
    call.describe = None
