"""LangChain messages as items: the same message is the same artifact in every framework."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import BaseMessage

from clew.store.encoding import register_item

_ROLES = {"human": "user", "ai": "assistant"}
_CLASS_ROLES = {
    "HumanMessageChunk": "user",
    "AIMessageChunk": "assistant",
    "SystemMessageChunk": "system",
    "ToolMessageChunk": "tool",
    "FunctionMessageChunk": "function",
}
_OWN = {"content", "type", "id", "name", "tool_calls", "tool_call_id", "role"}
_LEFT_OUT = {"tool_call_chunks", "chunk_position", "example"}  # how a message was streamed is no part of it


def role_of(message: BaseMessage) -> str:
    """`system`, `user`, `assistant`, `tool`, or LangChain's own word for the rest."""
    kind = message.type
    role = _ROLES.get(kind) or _CLASS_ROLES.get(kind)
    return role or getattr(message, "role", None) or kind


def fields(message: BaseMessage) -> dict[str, Any]:
    """A message's encoding (docs/design/spans.md): role and content, the rest where it is not empty."""
    values = message.__dict__
    found: dict[str, Any] = {"role": role_of(message), "content": values["content"]}
    if message.id:
        found["id"] = message.id
    if message.name:
        found["name"] = message.name
    if calls := values.get("tool_calls"):
        found["tool_calls"] = [{"name": call["name"], "args": call["args"], "id": call["id"]} for call in calls]
    if values.get("tool_call_id"):
        found["tool_call_id"] = values["tool_call_id"]
    extra = {name: value for name, value in values.items() if value and name not in _OWN and name not in _LEFT_OUT}
    if extra.get("status") == "success":
        del extra["status"]
    if more := message.__pydantic_extra__:
        extra.update(more)
    if extra:
        found["extra"] = extra
    return found


register_item(BaseMessage, "message", fields)
