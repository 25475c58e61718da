"""The key of a node's input, for `CachePolicy(key_func=clew.node_key)`.

LangGraph's own pickles the input: of equal values there are different pickles, and the uuid of each message is in it.
This one tells the input by value, as every key of clew's; ids of messages and tool calls count by the order of their
first use, and all else of a message counts: a node may read it.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.types import Send
from pydantic import BaseModel

from clew.integrations.langgraph.minted import fields
from clew.replay.identity import identity
from clew.store.digest import Domain, digest
from clew.store.encoding import encode_key, qualified_name
from clew.store.errors import EncodingError, Unkeyable
from clew.tracer import init
from clew.tracer.capture import Batch

SHORTEST_ID = 8  # of those that are renamed: a shorter one may be told from a text by nobody
_REMEMBERED = 1000
_refused: OrderedDict[str, str] = OrderedDict()  # keys that were made of nothing, and why


def node_key(*args: Any, **kwargs: Any) -> str:
    """The key of a node's input (or of the arguments of a `@task`): equal for inputs that are equal by value.

    For `CachePolicy(key_func=clew.node_key)`, with `clew.NodeCache`. Ids of messages and tool calls are renamed. An
    input with no canonical form has a new key each time, so that it is never served; the log says so. Never raises.
    """
    tracer = init.active()
    try:
        if tracer is None:
            raise Unkeyable("clew.init() has not been called")
        told = input_told([list(args), kwargs])
        return digest(Domain.ACTION, encode_key(told, Batch(tracer.gate))).hex()
    except (Unkeyable, EncodingError) as error:
        return _none(str(error))
    except Exception as error:
        if tracer is not None:
            tracer.faults.add("node key", error)
        return _none(f"{type(error).__name__} while its key was made")


def input_told(value: Any) -> Any:
    """A node's input as data that a key can be made of. Raises Unkeyable."""
    renamed: dict[str, str] = {}

    def rename(minted: str, kind: str) -> str:
        return minted if len(minted) < SHORTEST_ID else renamed.setdefault(minted, f"#{len(renamed)}")

    def told(value: Any) -> Any:
        cls = type(value)
        if cls is list:
            return [told(one) for one in value]
        if cls is tuple:
            return ["tuple", *(told(one) for one in value)]
        if cls is dict:
            return {"dict": [[identity(key), told(one)] for key, one in _sorted(value)]}
        if cls is Send:
            return ["send", value.node, told(value.arg)]
        if isinstance(value, BaseMessage):
            held = {**value.__dict__, **(value.__pydantic_extra__ or {}), **fields(value, rename)}
            return ["message", qualified_name(cls), identity(held), sorted(value.__pydantic_fields_set__)]
        if isinstance(value, BaseModel):
            held = {**value.__dict__, **(value.__pydantic_extra__ or {}), **(value.__pydantic_private__ or {})}
            return ["model", identity(cls), told(held), sorted(value.__pydantic_fields_set__)]
        if hasattr(value, "__dataclass_fields__") and not isinstance(value, type) and not hasattr(cls, "__slots__"):
            return ["dataclass", identity(cls), told(dict(value.__dict__))]
        return ["value", identity(value)]

    return told(value)


def _sorted(value: dict[Any, Any]) -> list[tuple[Any, Any]]:
    """A dict's items: its order says nothing, where its keys are texts."""
    return sorted(value.items()) if all(type(key) is str for key in value) else list(value.items())


def why_refused(key: str) -> str | None:
    """Why a key, as LangGraph hashed it, is none."""
    return _refused.get(key)


def _none(reason: str) -> str:
    from xxhash import xxh3_128_hexdigest  # LangGraph's

    key = f"none {uuid.uuid4()}"
    _refused[xxh3_128_hexdigest(key.encode())] = reason
    while len(_refused) > _REMEMBERED:
        _refused.popitem(last=False)
    return key
