"""`clew.cached`: a function whose answer is used again while its arguments and its code are the same."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar, overload

from clew.replay.code.module import name_in
from clew.replay.code.witness import Witness
from clew.replay.effect import Effect, declared
from clew.replay.identity import code_digest, identity
from clew.replay.provider import settings_of
from clew.replay.value_exchange import ValueExchange
from clew.tracer import boundary, init
from clew.tracer.boundary import Call
from clew.tracer.capture import Given

F = TypeVar("F", bound=Callable[..., Any])


class FunctionExchange(ValueExchange):
    """A call of a function of the program's."""

    def __init__(self, function: Any, arguments: dict[str, Any], effect: Effect, version: str | None) -> None:
        super().__init__("call")
        self._function = function
        self._arguments = arguments
        self._version = version
        self.effect = effect

    def parts(self) -> dict[str, Any]:
        witness = Witness()
        code = code_digest(self._function, version=self._version, witness=witness)
        told = {"tool": [name_in(self._function), code], "arguments": identity(self._arguments, witness=witness)}
        return {**told, "settings": set_to} if (set_to := settings_of(witness)) else told

    def seen(self) -> dict[str, Any]:
        return {"tool": [name_in(self._function), self._version], "arguments": self._arguments}


@overload
def cached(function: F, /) -> F: ...
@overload
def cached(
    *,
    effect: str = "pure",
    ttl: str | float | None = None,
    idempotency_key: Callable[[dict[str, Any]], Any] | None = None,
    version: str | None = None,
    name: str | None = None,
) -> Callable[[F], F]: ...
def cached(
    function: Any = None,
    /,
    *,
    effect: str = "pure",
    ttl: str | float | None = None,
    idempotency_key: Callable[[dict[str, Any]], Any] | None = None,
    version: str | None = None,
    name: str | None = None,
) -> Any:
    """Use a function's answer again: `@clew.cached`, or `@clew.cached(effect="read", ttl="1d")`.

    Sync, async, generators and async generators. The key is the arguments, by value, and the function's code with all
    of the project's that it calls; `version` stands for the code instead. Arguments without a canonical form, and answers
    that would not come back equal, are called each time, and the span says why. Works where `clew.init` was called; a
    function that says so itself needs no `cache=`. A generator is read to its end before its answer counts; it yields, and
    neither takes what is sent nor returns anything.
    """
    if function is None:
        told = declared(effect, ttl=ttl, idempotency_key=idempotency_key)
        return lambda function: _cached(function, told, version, name)
    if not callable(function):
        raise TypeError(f"clew.cached takes a function, not {type(function).__name__}")
    return _cached(function, Effect("pure"), None, None)


def _cached(function: Any, effect: Effect, version: str | None, name: str | None) -> Any:
    label = name or getattr(function, "__qualname__", type(function).__qualname__).replace("<locals>.", "")
    signature = inspect.signature(function)

    def asked(arguments: tuple[Any, ...], named: dict[str, Any]) -> Call | None:
        tracer = init.active()
        if tracer is None:
            return None
        try:
            bound = signature.bind(*arguments, **named)
            bound.apply_defaults()
        except TypeError:  # the call itself will say so
            return None
        if tracer.settings.capture:
            from clew.replay.stack import use_cache

            use_cache(tracer, None)
        given = dict(bound.arguments)
        used: list[Given] = [(role, "value", value) for role, value in given.items() if role != "self"]
        return Call(
            "chain",
            "call",
            function,
            name=label,
            used=used,
            describe=lambda value: ([("return", "value", value)], {}),
            exchange=lambda: FunctionExchange(function, given, effect, version),
            attributes={"code.function.name": label},
            run_key=object(),  # a function that calls itself makes another call
        )

    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream_async(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
            call = asked(arguments, named)
            made = function(*arguments, **named)
            async for one in made if call is None else boundary.stream_async(call, lambda: made):
                yield one

        return stream_async
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stream(*arguments: Any, **named: Any) -> Iterator[Any]:
            call = asked(arguments, named)
            made = function(*arguments, **named)
            yield from made if call is None else boundary.stream(call, lambda: made)

        return stream
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*arguments: Any, **named: Any) -> Any:
            call = asked(arguments, named)
            if call is None:
                return await function(*arguments, **named)
            return await boundary.perform_async(call, lambda: function(*arguments, **named))

        return awaited

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        call = asked(arguments, named)
        if call is None:
            return function(*arguments, **named)
        return boundary.perform(call, lambda: function(*arguments, **named))

    return called
