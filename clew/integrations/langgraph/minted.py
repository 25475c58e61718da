"""Ids that were minted for messages and tool calls: where they stand in a value, and the value with others instead.

Only declared fields of messages count. A text that is equal to an id somewhere else is a text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage, ToolMessage
from langgraph.types import Overwrite, Send

Rename = Callable[[str, str], Any]
"""What stands for an id: (id, "message" or "call")."""

_BLOCKS = frozenset((
    "tool_use", "tool_result", "tool_call", "tool_call_chunk", "function_call", "function_call_output",
    "server_tool_use", "server_tool_call", "server_tool_result", "web_search_tool_result",
    "code_execution_tool_result",
))  # fmt: skip
_BLOCK_IDS = ("id", "call_id", "tool_use_id", "tool_call_id")


def renamed(value: Any, rename: Rename) -> Any:
    """The value with its ids renamed: containers and messages are others, everything else is the same object."""
    cls = type(value)
    if cls is list:
        return [renamed(one, rename) for one in value]
    if cls is tuple:
        return tuple([renamed(one, rename) for one in value])
    if cls is dict:
        return {key: renamed(one, rename) for key, one in value.items()}
    if cls is Send:
        made = Send(value.node, renamed(value.arg, rename))
        for name, one in vars(value).items() if hasattr(value, "__dict__") else ():
            if name not in ("node", "arg"):
                setattr(made, name, one)
        return made
    if cls is Overwrite:
        return Overwrite(renamed(value.value, rename))
    if isinstance(value, BaseMessage):
        return value.model_copy(update=fields(value, rename))
    return value


def fields(message: BaseMessage, rename: Rename) -> dict[str, Any]:
    """The fields of a message that hold ids, with the ids renamed."""

    def call(minted: Any) -> Any:
        return rename(minted, "call") if type(minted) is str else minted

    def calls(given: Any) -> Any:
        return [{**one, "id": call(one.get("id"))} for one in given]

    changed: dict[str, Any] = {}
    if type(message.id) is str:
        changed["id"] = rename(message.id, "removed" if isinstance(message, RemoveMessage) else "message")
    if isinstance(message, ToolMessage):
        changed["tool_call_id"] = call(message.tool_call_id)
    if isinstance(message, AIMessage):
        for name in ("tool_calls", "invalid_tool_calls", "tool_call_chunks"):
            if given := getattr(message, name, None):
                changed[name] = calls(given)
    if type(message.content) is list:
        changed["content"] = [_block(one, call) for one in message.content]
    if type(message.additional_kwargs.get("tool_calls")) is list:
        changed["additional_kwargs"] = {
            **message.additional_kwargs,
            "tool_calls": calls(message.additional_kwargs["tool_calls"]),
        }
    return changed


def minted(value: Any) -> list[str]:
    """The ids in a value, in the order in which they come first."""
    found: dict[str, None] = {}

    def note(one: str, kind: str) -> str:
        found.setdefault(one)
        return one

    for one in value if type(value) is list else [value]:
        _visit(one, note)
    return list(found)


def _visit(value: Any, note: Rename) -> None:
    state = getattr(value, "__dict__", None)
    if state is not None and not isinstance(value, (BaseMessage, Send, type)):  # a state that is a model or dataclass
        value = dict(state)
    renamed(value, note)


def _block(block: Any, call: Callable[[Any], Any]) -> Any:
    if type(block) is not dict or block.get("type") not in _BLOCKS:
        return block
    return {key: call(value) if key in _BLOCK_IDS else value for key, value in block.items()}
