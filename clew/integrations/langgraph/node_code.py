"""What a node is, apart from its input: its code, the edges behind it, and what else of its run it is given.

LangGraph tells a node by the name of its function alone: an edited function, and another one of the same name, share
their answers. What is cached of a node is also where it goes next, so edges and the code of routers count.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from types import MethodType
from typing import Any

from langgraph._internal._runnable import RunnableCallable, RunnableSeq
from langgraph.graph._branch import BranchSpec
from langgraph.pregel import _write
from langgraph.pregel._write import ChannelWrite

from clew.replay.code.witness import Witness
from clew.replay.identity import identity
from clew.store.encoding import qualified_name
from clew.store.errors import Unkeyable

_SENTINELS = {id(getattr(_write, name)): name for name in ("PASSTHROUGH", "SKIP_WRITE") if hasattr(_write, name)}
_OF_THE_RUN = ("thread_id", "checkpoint_id", "checkpoint_ns", "checkpoint_map", "run_id", "task_id")
_RUNTIME = "__pregel_runtime"
_GIVES_STORE = frozenset(("store", "previous", "runtime", "get_store", "get_runtime"))
_GIVES_CONFIG = frozenset(("config", "get_config", "ensure_config"))
_OF_THE_CONFIG = ("recursion_limit", "max_concurrency", "run_name", "run_id")


def code_told(runnable: Any, version: str | None, witness: Witness) -> Any:
    """What a node runs, as data that a key can be made of; a version stands for its function. Raises Unkeyable.

    `witness` has the names and texts in its code then.
    """
    if isinstance(runnable, RunnableSeq):
        first, *writers = runnable.steps
    else:
        first, writers = runnable, []
    return [
        ["version", version] if version is not None else _told(first, witness),
        *(_told(one, witness) for one in writers),
    ]


def read_by_routers(runnable: Any) -> set[str]:
    """The channels that decide where it goes after a node."""
    found: set[str] = set()
    for step in runnable.steps[1:] if isinstance(runnable, RunnableSeq) else ():
        reader = getattr(step, "kwargs", {}).get("reader")
        select = reader.keywords.get("select", ()) if isinstance(reader, functools.partial) else ()
        found.update([select] if isinstance(select, str) else select)
    return found


def run_told(runnable: Any, config: Any, version: str | None, words: Collection[str]) -> Any:
    """What a node may read of its run, beside its input. Raises Unkeyable where that cannot be seen.

    What differs from run to run, as a rule, counts where it is named by `words`, those in the node's code.
    """
    first = runnable.steps[0] if isinstance(runnable, RunnableSeq) else runnable
    configurable = config.get("configurable") or {}
    runtime = configurable.get(_RUNTIME)
    held = getattr(runtime, "store", None) or getattr(runtime, "previous", None)
    if held is not None and (version is None or not _GIVES_STORE.isdisjoint(words)):
        raise Unkeyable("it may read the graph's store or its previous answer, which no key can be made of")
    told: dict[str, Any] = {
        "configurable": {
            key: identity(value)
            for key, value in configurable.items()
            if not str(key).startswith("__") and (key not in _OF_THE_RUN or key in words)
        },
        "context": identity(getattr(runtime, "context", None)),
    }
    accepts = getattr(first, "func_accepts", None) or ()
    if "config" in accepts or not _GIVES_CONFIG.isdisjoint(words):
        metadata = config.get("metadata") or {}
        told["tags"] = sorted(one for one in config.get("tags") or () if not one.startswith(("graph:", "seq:")))
        told["metadata"] = {
            key: identity(value)
            for key, value in metadata.items()
            if key in words or not (key.startswith(("langgraph_", "ls_", "lc_")) or key in _OF_THE_RUN)
        }
        told["config"] = {key: identity(config.get(key)) for key in _OF_THE_CONFIG if key in words}
    return told


def _told(part: Any, witness: Witness) -> Any:
    if id(part) in _SENTINELS:
        return ["sentinel", _SENTINELS[id(part)]]
    if isinstance(part, RunnableSeq):
        return ["sequence", *_each(part.steps, witness)]
    if isinstance(part, ChannelWrite):
        return ["writes", *_each(part.writes, witness)]
    if type(part) is RunnableCallable:
        return [
            "function",
            _told(part.func, witness),
            _told(part.afunc, witness),
            _told(part.kwargs, witness),
            sorted(part.func_accepts),
        ]
    if isinstance(part, MethodType) and isinstance(part.__self__, BranchSpec):
        return ["router", part.__name__, _told(part.__self__, witness)]
    if type(part) is dict:
        return {str(key): _told(value, witness) for key, value in part.items()}
    if type(part) in (list, tuple):
        return _each(part, witness)
    if isinstance(part, tuple):  # named
        return [qualified_name(type(part)), *_each(part, witness)]
    if isinstance(part, functools.partial):
        return ["partial", _told(part.func, witness), _told(part.args, witness), _told(part.keywords, witness)]
    return ["value", identity(part, witness=witness)]


def _each(parts: Iterable[Any], witness: Witness) -> list[Any]:
    return [_told(one, witness) for one in parts]
