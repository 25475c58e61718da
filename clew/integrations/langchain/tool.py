"""Tools: the arguments that were injected and the very value that was returned, which LangChain's callbacks hide."""

from __future__ import annotations

import functools
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.tools import base as tools
from langchain_core.utils.function_calling import convert_to_openai_tool

from clew.integrations.langchain import run, seam
from clew.integrations.langchain.attachment import Attachments
from clew.integrations.langchain.open_runs import span_of
from clew.integrations.langchain.seam import Family, Function
from clew.tracer import boundary
from clew.tracer.boundary import Call
from clew.tracer.capture import Given

KIND = "tool"


def families() -> list[Family]:
    """The classes and methods wrapped here."""
    return [
        Family(
            BaseTool,
            {"_run": _run, "_arun": _arun},
            inner={"run": _door, "arun": _door},
        )
    ]


def _door(original: Function) -> Function:
    """The public method: a class that was missed is wrapped before it is used."""

    def door(self: Any, *args: Any, **kwargs: Any) -> Any:
        seam.cover(type(self))
        return original(self, *args, **kwargs)

    return door


def _run(original: Function) -> Function:
    def _run(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = _call(self, args, kwargs)
        if call is None:
            return original(self, *args, **kwargs)
        return boundary.perform(call, lambda: _kept(call, original(self, *args, **kwargs)))

    return _run


def _arun(original: Function) -> Function:
    async def _arun(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = _call(self, args, kwargs)
        if call is None:
            return await original(self, *args, **kwargs)

        async def body() -> Any:
            return _kept(call, await original(self, *args, **kwargs))

        return await boundary.perform_async(call, body)

    return _arun


def _kept(call: Call, result: Any) -> Any:
    if call.observed and call.span is not None:
        call.span.facts["result"] = result
    return result


def _call(self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    tracer = seam.traced()
    if tracer is None:
        return None
    run_id = run.given(args, kwargs) or run.child()
    span = span_of(run_id)
    if span is None or span.kind != KIND:  # the node's or chain's, in whose body the tool is called as a function
        run_id = span = None
    if boundary.is_open(KIND, self, run_id) or (span is None and seam.acting() is None):
        return None
    return seam.described(tracer, "tool request", lambda: _described(self, args, kwargs, run_id))


def _described(self: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run_id: Any) -> Call:
    given = {name: value for name, value in kwargs.items() if name not in ("run_manager", _config_name(self))}
    injected = _injected(self, given)
    arguments: Any = {name: value for name, value in given.items() if name not in injected}
    if args:
        arguments = {"args": list(args), **arguments} if arguments or len(args) > 1 else args[0]
    slots: list[Given] = [(f"injected:{name}", "value", _bare(given[name])) for name in given if name in injected]
    exchange = functools.partial(_exchange, self, arguments, {name: given[name] for name in injected})
    span = run.observed(run_id, KIND, self)
    if span is not None:
        span.use(*slots)
        return Call(
            KIND,
            "execute",
            self,
            name=self.name,
            span=span,
            run_key=run_id,
            exchange=exchange,
        )
    return Call(
        KIND,
        "execute",
        self,
        name=self.name,
        used=[("tool", "tool", _definition(self), self.name), ("arguments", "value", arguments), *slots],
        exchange=exchange,
        describe=lambda response: ([("result", "value", response)], {}),
        attributes={
            "gen_ai.tool.name": self.name,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.description": self.description,
        },
        run_key=run_id,
    )


def _exchange(self: Any, arguments: Any, injected: dict[str, Any]) -> Any:
    """The call as a cache or a replay sees it."""
    from clew.integrations.langchain.tool_exchange import ToolExchange

    return ToolExchange(self, arguments, injected, _is_configured(self))


def _definition(self: Any) -> Any:
    try:
        return convert_to_openai_tool(self)
    except Exception:  # a tool whose arguments have no JSON schema
        return {"name": self.name, "description": self.description}


def _bare(value: Any) -> Any:
    """A runtime holds the graph's whole machinery; its state, context and call id are what a tool can depend on."""
    if hasattr(value, "state") and hasattr(value, "tool_call_id") and hasattr(value, "stream_writer"):
        return {name: getattr(value, name, None) for name in ("state", "context", "tool_call_id")}
    return value


_names: Attachments[dict[str, bool]] = Attachments(dict)  # argument -> whether it is injected


def _injected(self: Any, given: dict[str, Any]) -> frozenset[str] | set[str]:
    known = _names.of(self)
    if not given.keys() <= known.keys():
        shown = self._filter_injected_args(given) if hasattr(self, "_filter_injected_args") else given
        known.update((name, name not in shown) for name in given)
    return {name for name in given if known[name]}


def _is_configured(self: Any) -> bool:
    """Whether the program's own function is given LangChain's configuration."""
    find = getattr(tools, "_get_runnable_config_param", None)
    functions = [getattr(self, name, None) for name in ("func", "coroutine")]
    own = [function for function in functions if function is not None] or [self._run, self._arun]
    return find is None or any(find(function) is not None for function in own)


_configs: Attachments[list[str | None]] = Attachments(list)


def _config_name(self: Any) -> str | None:
    """The name of a tool method's own argument for LangChain's configuration."""
    known = _configs.of(self)
    if not known:
        find = getattr(tools, "_get_runnable_config_param", None)
        known.append(find(self._run) if find is not None else "config")
    return known[0]
