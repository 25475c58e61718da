"""Chat and completion models: one call of a model is one boundary, streamed or not, however its class delegates.

A model that calls another one makes two calls, each with its span, if the other is really another: of another class, or
with other parameters. An instance that differs in nothing from the one it serves is the same call.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any
from uuid import UUID

from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.outputs import LLMResult

from clew.integrations.langchain import inference, run, seam
from clew.integrations.langchain import message as _message  # noqa: F401 - messages become items
from clew.integrations.langchain.attachment import Derived
from clew.integrations.langchain.callback import LangChainObserver
from clew.integrations.langchain.open_runs import span_of
from clew.integrations.langchain.seam import Family, Function
from clew.store.digest import Digest, Domain, digest
from clew.store.encoding import encode_capture, qualified_name
from clew.store.sink import Digester
from clew.tracer import boundary, context
from clew.tracer.boundary import Call
from clew.tracer.capture import Given

KIND = "llm"
_Call = Callable[[Any, tuple[Any, ...], dict[str, Any]], Call | None]


def families() -> list[Family]:
    """The classes and methods wrapped here."""
    methods = {
        "_generate": _plain("chat"),
        "_agenerate": _awaited("chat"),
        "_stream": _streamed("stream"),
        "_astream": _streamed_async("stream"),
    }
    # A model's own stream of protocol events goes by none of the four.
    events = {
        "_stream_chat_model_events": _streamed("events"),
        "_astream_chat_model_events": _streamed_async("events"),
    }
    chat = {
        "_generate_with_cache": _announced("run_manager"),
        "_agenerate_with_cache": _announced_async("run_manager"),
        "_should_stream": _unasked,
    }
    text = {"_generate_helper": _announced("run_managers"), "_agenerate_helper": _announced_async("run_managers")}
    return [Family(BaseChatModel, {**methods, **events}, inner=chat), Family(BaseLLM, methods, inner=text)]


def _plain(operation: str) -> seam.Wrap:
    def wrap(original: Function) -> Function:
        def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
            call = _call(self, operation, args, kwargs)
            if call is None:
                return original(self, *args, **kwargs)
            return boundary.perform(call, lambda: original(self, *args, **kwargs))

        return generate

    return wrap


def _awaited(operation: str) -> seam.Wrap:
    def wrap(original: Function) -> Function:
        async def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
            call = _call(self, operation, args, kwargs)
            if call is None:
                return await original(self, *args, **kwargs)
            return await boundary.perform_async(call, lambda: original(self, *args, **kwargs))

        return generate

    return wrap


def _streamed(operation: str) -> seam.Wrap:
    def wrap(original: Function) -> Function:
        def stream(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
            call = _call(self, operation, args, kwargs)
            if call is None:
                yield from original(self, *args, **kwargs)
            else:
                yield from boundary.stream(call, lambda: original(self, *args, **kwargs))

        return stream

    return wrap


def _streamed_async(operation: str) -> seam.Wrap:
    def wrap(original: Function) -> Function:
        def stream(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            call = _call(self, operation, args, kwargs)
            if call is None:
                return original(self, *args, **kwargs)  # type: ignore[no-any-return]
            return boundary.stream_async(call, lambda: original(self, *args, **kwargs))

        return stream

    return wrap


def _announced(name: str) -> seam.Wrap:
    """The method that calls the boundaries: its run is announced to one that takes no run manager."""

    def wrap(original: Function) -> Function:
        def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
            _announce(self, args, kwargs, name)
            return original(self, *args, **kwargs)

        return generate

    return wrap


def _announced_async(name: str) -> seam.Wrap:
    def wrap(original: Function) -> Function:
        async def generate(self: Any, *args: Any, **kwargs: Any) -> Any:  # inside the task that gather made of it
            _announce(self, args, kwargs, name)
            return await original(self, *args, **kwargs)

        return generate

    return wrap


def _unasked(original: Function) -> Function:
    """The method that asks every handler whether it wants a stream: ours does not, and asking takes 20 us (Python 3.11
    looks through a protocol's attributes each time)."""

    def should_stream(self: Any, *args: Any, **kwargs: Any) -> Any:
        handlers: list[Any] = getattr(kwargs.get("run_manager"), "handlers", [])
        if len(handlers) == 1 and isinstance(handlers[0], LangChainObserver):
            kwargs["run_manager"] = None
        return original(self, *args, **kwargs)

    return should_stream


def _announce(self: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> None:
    seam.cover(type(self))
    found = kwargs.get(name) or next((one for one in args[2:3]), None)
    manager = found[0] if isinstance(found, list) and found else found
    run_id = getattr(manager, "run_id", None)
    if run_id is not None:
        run.announce(run_id)


def _call(self: Any, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    """The call; None where it passes unseen: it is the inner half of an open one, or nothing acts here."""
    tracer = seam.traced()
    if tracer is None:
        return None
    run_id = run.given(args, kwargs) or run.announced(KIND)
    if boundary.is_open(KIND, self, run_id):
        return None
    return seam.described(tracer, "model request", lambda: _described(self, operation, args, kwargs, run_id))


def _described(
    self: Any, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any], run_id: UUID | None
) -> Call | None:
    span = run.observed(run_id, KIND, self)
    if span is not None:
        exchange = functools.partial(_exchange, self, operation, args, kwargs)
        return Call(KIND, operation, self, name=span.name, span=span, run_key=run_id, exchange=exchange)
    around = span_of(run_id) or context.enclosing()
    if around is not None and around.kind == KIND:
        other = around.facts.get("boundary")
        if other is not None and _identities.of(other) == _identities.of(self):
            return None
    if around is None and seam.acting() is None:
        return None
    asked, stop, options = _asked(self, args, kwargs)
    request = _request(self, stop, {name: value for name, value in options.items() if value is not None})
    completion = {"gen_ai.operation.name": "text_completion"} if isinstance(self, BaseLLM) else {}
    return Call(
        KIND,
        operation,
        self,
        name=request.name,
        used=[*asked, *request.slots],
        exchange=functools.partial(_exchange, self, operation, args, kwargs),
        describe=functools.partial(_answer, operation),
        parent=around,
        run_key=run_id,
        attributes={**request.attributes, **completion},
        facts={"boundary": self},
    )


def _asked(self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Given], Any, dict[str, Any]]:
    """What a model is asked with, as slots: messages or prompts; the stop words, and the other options."""
    content, stop, options = _content(args, kwargs)
    if isinstance(self, BaseLLM):
        return [("prompt", "value", one) for one in content], stop, options
    return [("messages", "message", content)], stop, options


def _content(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], Any, dict[str, Any]]:
    """What is asked, the stop words, and all other options: beside what is asked, one may be called `prompt`, too."""
    options = kwargs.copy()
    options.pop("run_manager", None)
    stop = options.pop("stop", None)
    if args:
        content = args[0]
        stop = args[1] if len(args) > 1 else stop
    else:
        content = options.pop(next(name for name in ("messages", "prompts", "prompt") if name in options))
    return [content] if isinstance(content, str) else list(content), stop, options


def _exchange(self: Any, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The call as a cache or a replay sees it; None of a stream of a protocol's own events."""
    return None if operation == "events" else _exchange_class()(self, *_content(args, kwargs))


@functools.cache
def _exchange_class() -> Any:
    from clew.integrations.langchain.model_exchange import ModelExchange

    return ModelExchange


def _request(self: Any, stop: Any, options: dict[str, Any]) -> inference.Request:
    """The request in the observer's words, from what LangChain's public methods would tell it."""
    metadata = self._get_ls_params(stop=stop, **options)
    if isinstance(self, BaseChatModel):
        parameters = self._get_invocation_params(stop=stop, **options)
    else:
        parameters = {**dict(self._identifying_params), **options, **({"stop": stop} if stop else {})}
    told = getattr(self, "_serialized", None) or {"id": qualified_name(type(self)).split(".")}
    return inference.request(told, metadata, parameters)


def name_of(model: Any) -> str:
    """What the span of a call of a model is named, where the caller names none."""
    return str(_request(model, None, {}).name)


def _identity(model: Any) -> Digest:
    """What a model is: its class and parameters."""
    parameters = dict(model._identifying_params)
    about = {"class": qualified_name(type(model)), "type": model._llm_type, "parameters": parameters}
    if not parameters or parameters.keys() <= {"name", "_type"}:
        about["fields"] = {name: value for name, value in vars(model).items() if not hasattr(value, "get_secret_value")}
    return digest(Domain.VALUE, encode_capture(about, Digester())[0])


_identities: Derived[Digest] = Derived(_identity)


def _answer(operation: str, response: Any) -> tuple[Iterable[Given], dict[str, Any]]:
    """The answer of a call whose span is ours alone."""
    if operation == "events":
        return [("message", "value", list(response))], {}
    if operation == "stream":
        return (
            inference.answer(LLMResult(generations=[[functools.reduce(operator.add, response)]]))
            if response
            else ((), {})
        )
    if not isinstance(response, LLMResult):
        response = LLMResult(generations=[response.generations], llm_output=response.llm_output)
    return inference.answer(response)
