"""`clew.trace`: any function or block of yours becomes a span. Sync, async, generator, async generator.

@clew.trace                          with clew.trace("load", kind="io") as span:
def clean(text): ...                     ...
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from clew.tracer import context, init
from clew.tracer.capture import Given
from clew.tracer.span import OpenSpan
from clew.tracer.yielded import Yielded

F = TypeVar("F", bound=Callable[..., Any])


class TracedBlock:
    """A block, or a decorator that gives every function call a span. `span` is the open span inside the block."""

    def __init__(self, name: str | None, kind: str) -> None:
        self.name = name
        self.kind = kind
        self.span: OpenSpan | None = None
        self._current: Any = None
        self._used: list[Given] = []
        self._generated: list[Given] = []

    def __call__(self, function: F) -> F:
        return _traced(function, self.name, self.kind)  # type: ignore[no-any-return]

    def used(self, value: Any, role: str = "input") -> None:
        """Say what the block worked on. It is recorded as it is now."""
        self._used.append((role, "value", value) if self.span is None else self.span.said(role, value))

    def generated(self, value: Any, role: str = "output") -> None:
        """Say what the block made. It is recorded as it is now."""
        self._generated.append((role, "value", value) if self.span is None else self.span.said(role, value))

    def __enter__(self) -> Self:
        self.span = _open(self.name or "block", self.kind, [])
        if self.span is not None:
            self._current = context.current(self.span)
            self._current.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.span is not None:
            self._current.__exit__(None, None, None)
            self.span.use(*self._used)
            self.span.end(generated=self._generated, error=error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


@overload
def trace(function: F, /) -> F: ...
@overload
def trace(name: str | None = None, /, *, kind: str = "chain") -> TracedBlock: ...
def trace(function: Any = None, /, *, kind: str = "chain") -> Any:
    """A span around a function (`@clew.trace`, `@clew.trace("name", kind="tool")`) or a block (`with clew.trace("x")`).

    Arguments and the returned value are captured; of a generator, the list of what it yielded, each
    as it was then. Where `clew.init` was
    not called, or clew is switched off, the function runs as if it were not decorated.
    """
    if not isinstance(kind, str):
        raise TypeError(f"the kind of a span is a text, such as 'chain' or 'tool', not {type(kind).__name__}")
    if function is None or isinstance(function, str):
        return TracedBlock(function, kind)
    if not callable(function):
        raise TypeError(f"clew.trace takes a function, or a name, not {type(function).__name__}")
    return _traced(function, None, kind)


def _traced(function: Any, name: str | None, kind: str) -> Any:
    named_after = function.func if isinstance(function, functools.partial) else function
    label = name or getattr(named_after, "__qualname__", type(function).__qualname__).replace("<locals>.", "")
    try:
        signature: inspect.Signature | None = inspect.signature(function)
    except (TypeError, ValueError):
        signature = None

    def begin(arguments: tuple[Any, ...], named: dict[str, Any]) -> OpenSpan | None:
        if init.active() is None:
            return None
        try:
            given = signature.bind(*arguments, **named).arguments if signature else named
        except TypeError:  # the call itself will say so
            given = named
        return _open(label, kind, [(role, "value", value) for role, value in given.items() if role != "self"])

    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream_async(*arguments: Any, **named: Any) -> AsyncGenerator[Any, Any]:
            span = begin(arguments, named)
            yielded = Yielded(span)
            iterator: Any = None
            sent: Any = None
            thrown: BaseException | None = None
            try:
                iterator = function(*arguments, **named)
                while True:
                    with context.current(span):
                        step = iterator.asend(sent) if thrown is None else iterator.athrow(thrown)
                        try:
                            chunk = await step
                        except StopAsyncIteration:
                            break
                    yielded.add(chunk)
                    sent = thrown = None
                    try:
                        sent = yield chunk
                    except GeneratorExit:
                        await iterator.aclose()
                        raise
                    except BaseException as error:
                        thrown = error
            except BaseException as error:
                yielded.end(error)
                raise
            yielded.end()

        return stream_async
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stream(*arguments: Any, **named: Any) -> Generator[Any, Any, Any]:
            span = begin(arguments, named)
            yielded = Yielded(span)
            sent: Any = None
            thrown: BaseException | None = None
            try:
                iterator = function(*arguments, **named)
                while True:
                    with context.current(span):
                        try:
                            chunk = iterator.send(sent) if thrown is None else iterator.throw(thrown)
                        except StopIteration as stop:
                            returned = stop.value
                            break
                    yielded.add(chunk)
                    sent = thrown = None
                    try:
                        sent = yield chunk
                    except GeneratorExit:
                        iterator.close()
                        raise
                    except BaseException as error:
                        thrown = error
            except BaseException as error:
                yielded.end(error)
                raise
            yielded.end()
            return returned

        return stream
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*arguments: Any, **named: Any) -> Any:
            span = begin(arguments, named)
            try:
                with context.current(span):
                    value = await function(*arguments, **named)
            except BaseException as error:
                _close(span, _END, error)
                raise
            _close(span, value)
            return value

        return awaited

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        span = begin(arguments, named)
        try:
            with context.current(span):
                value = function(*arguments, **named)
        except BaseException as error:
            _close(span, _END, error)
            raise
        _close(span, value)
        return value

    return called


_END = object()


def _open(name: str, kind: str, used: list[Given]) -> OpenSpan | None:
    tracer = init.active()
    if tracer is None:
        return None
    try:
        function = {"code.function.name": name}  # lineage takes such a span for code that works on what it was given
        return OpenSpan(tracer, kind, name, parent=context.enclosing(), used=used, attributes=function)
    except Exception as error:
        tracer.faults.add("start of a traced function", error)
        return None


def _close(span: OpenSpan | None, value: Any, error: BaseException | None = None) -> None:
    if span is not None:
        span.end(generated=[] if value is _END else [("return", "value", value)], error=error)
