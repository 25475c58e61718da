"""One translator per framework: the framework's words in, tracer calls out.

`callback()` traces what it is handed to, `instrument()` everything in the process.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from clew.integrations.extra import require
from clew.tracer import init

if TYPE_CHECKING:
    from langchain_core.callbacks import BaseCallbackHandler

    from clew.integrations.langgraph.node_cache import NodeCache as NodeCache
    from clew.integrations.langgraph.node_key import node_key as node_key

_lock = threading.RLock()
_handler: Any = None
_wired: set[str] = set()  # "LangChain": boundaries and contexts are in place; "everywhere": the global hook is


_NODES = {"NodeCache": "node_cache", "node_key": "node_key"}


def __getattr__(name: str) -> Any:
    """What needs LangGraph; MissingExtra (an ImportError) without it."""
    if name not in _NODES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("langgraph.callbacks", "langgraph")
    return getattr(importlib.import_module(f"clew.integrations.langgraph.{_NODES[name]}"), name)


def callback() -> BaseCallbackHandler:
    """The handler for ``config={"callbacks": [clew.callback()]}``: one for the whole process, started on first use.

    Where clew is switched off it does nothing. MissingExtra (an ImportError) without LangChain.
    """
    handler = _observer()
    tracer = init.ensure()
    if tracer is not None:
        _wire(tracer)
    return handler  # type: ignore[no-any-return]


def instrument() -> None:
    """Trace every run of every installed framework that clew knows, without a word in the program. Safe to repeat.

    `clew.uninstrument()` takes it back. MissingExtra (an ImportError) without LangChain.
    """
    handler = _observer()
    tracer = init.ensure()
    if tracer is None:
        return
    with _lock:
        _wire(tracer)
        if "everywhere" in _wired:
            return
        _add(tracer, "everywhere", _hook(handler), _boundaries(tracer, always=True))


def _observer() -> Any:
    global _handler
    with _lock:
        if _handler is None:
            require("langchain_core", "langchain")
            if _has("langgraph") and _has("langgraph.callbacks"):
                _handler = importlib.import_module("clew.integrations.langgraph").LangGraphObserver()
            else:
                _handler = importlib.import_module("clew.integrations.langchain.callback").LangChainObserver()
        return _handler


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _wire(tracer: init.Tracer) -> None:
    """Boundaries below the frameworks' methods, and spans current in the bodies of their runs."""
    with _lock:
        if "LangChain" in _wired:
            return
        undo = [_boundaries(tracer, always=False)]
        undo.append(importlib.import_module("clew.integrations.langchain.context").install(tracer))
        if "clew.integrations.langgraph" in type(_handler).__module__:
            undo.append(importlib.import_module("clew.integrations.langgraph").install(tracer))
        _add(tracer, "LangChain", *undo)


def _boundaries(tracer: init.Tracer, *, always: bool) -> Callable[[], None]:
    try:
        seam = importlib.import_module("clew.integrations.langchain.seam")
        return seam.install(tracer, always=always)  # type: ignore[no-any-return]
    except Exception as error:  # a framework's version that we do not know: its callbacks still tell
        tracer.faults.add("boundaries of LangChain", error)
        return _nothing


def _hook(handler: Any) -> Callable[[], None]:
    """LangChain's own way to put a handler into every run; returns what takes it out again."""
    hooks = importlib.import_module("langchain_core.tracers.context")
    everywhere: ContextVar[Any] = ContextVar("clew_callback", default=handler)  # the default: threads copy no context
    observer = importlib.import_module("clew.integrations.langchain.callback").LangChainObserver
    hooks.register_configure_hook(everywhere, True, observer)

    def take_out() -> None:
        registered = getattr(hooks, "_configure_hooks", [])
        registered[:] = [one for one in registered if one[0] is not everywhere]

    return take_out


def _add(tracer: init.Tracer, name: str, *undo: Callable[[], None]) -> None:
    _wired.add(name)
    tracer.undo.append(lambda: _wired.discard(name))
    tracer.undo.extend(undo)


def _nothing() -> None:
    return None
