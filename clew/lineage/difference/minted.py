"""Ids that a framework or provider minted, named by the order of their first use: two runs that did the same have other ids.

Ids stand in declared fields: of messages, of tool calls, of content blocks that have one, of interrupts; and a document's
where it is a UUID that is made anew each time. Once an id was met there, a value that is that id and nothing else is it
again, unless it is so short that it may be something else. Ids inside texts stay: the program put them there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from clew.store.decoding import Code, Record, Reference
from clew.store.digest import Digest
from clew.store.identifier import is_made_anew

# As in the key of a model's call (integrations/langchain/model_exchange.py), which knows the framework's own objects.
_MINTED_METADATA = frozenset((
    "id", "request_id", "created", "created_at", "token_usage", "usage", "system_fingerprint", "headers", "logprobs",
    "service_tier", "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
    "eval_duration", "x_groq",
))  # fmt: skip
_BLOCKS_WITH_IDS = frozenset((
    "tool_use", "tool_result", "tool_call", "tool_call_chunk", "function_call", "function_call_output", "reasoning",
    "server_tool_use", "server_tool_call", "server_tool_result", "web_search_tool_result",
    "code_execution_tool_result",
))  # fmt: skip
_BLOCK_IDS = ("id", "call_id", "tool_use_id", "tool_call_id")
SHORT = 8  # characters from which an id is one wherever it stands alone


class Minted(msgspec.Struct, frozen=True):
    """What stands for a minted id: the how-manieth one it is."""

    number: int

    def __str__(self) -> str:
        return f"#{self.number}"


Resolve = Callable[[Code, Digest], Any]


class Renaming:
    """Renames the ids in one request or answer. `names` is what was renamed so far, in order; `known` the run's ids."""

    def __init__(self, known: Collection[str] = (), resolve: Resolve | None = None) -> None:
        self.names: dict[str, int] = {}
        self.met: set[str] = set()  # of messages, whose own ids are left out
        self._known = known
        self._resolve = resolve

    def name(self, value: Any) -> Any:
        """An id, renamed."""
        if type(value) is not str or not value:
            return value
        return Minted(self.names.setdefault(value, len(self.names)))

    def value(self, value: Any) -> Any:
        """A decoded value with its ids renamed, and without what was counted or timed."""
        match value:
            case str():
                return self.name(value) if value in self._known else value
            case dict():
                if "role" in value and "content" in value:
                    return self._message(value)
                if "text" in value and "metadata" in value:
                    return {**self._fields(value), "id": self._document_id(value.get("id"))}
                return self._fields(value)
            case list():
                return [self.value(part) for part in value]
            case tuple():
                return tuple(self.value(part) for part in value)
            case Record(type=kind, fields=fields):
                if kind.endswith("langgraph.types.Interrupt") and isinstance(fields, dict):
                    fields = {
                        key: self.name(part) if key in ("id", "interrupt_id") else part for key, part in fields.items()
                    }
                return Record(kind, self.value(fields))
            case Reference(code=code, digest=digest) if self._resolve is not None:
                found = self._resolve(code, digest)
                return found if isinstance(found, Reference) else self.value(found)
            case _:
                return value

    def _fields(self, value: dict[Any, Any]) -> dict[Any, Any]:
        return {key: self.value(value[key]) for key in sorted(value, key=str)}

    def _message(self, message: dict[Any, Any]) -> dict[Any, Any]:
        told: dict[Any, Any] = {}
        for field in sorted(message, key=str):
            part = message[field]
            if field == "id" and message["role"] != "remove":  # whether it has one yet is no difference either
                if type(part) is str:
                    self.met.add(part)
            elif field in ("id", "tool_call_id"):
                told[field] = self.name(part)
            elif field == "tool_calls":
                told[field] = self._calls(part)
            elif field == "content" and isinstance(part, list):
                told[field] = [self._block(block) for block in part]
            elif field == "extra" and isinstance(part, dict):
                if extra := self._extra(part):
                    told[field] = extra
            else:
                told[field] = self.value(part)
        return told

    def _calls(self, calls: Any) -> Any:
        if not isinstance(calls, list):
            return self.value(calls)
        return [self._named(call, ("id",)) if isinstance(call, dict) else self.value(call) for call in calls]

    def _named(self, value: dict[Any, Any], ids: Collection[str]) -> dict[Any, Any]:
        return {key: self.name(value[key]) if key in ids else self.value(value[key]) for key in sorted(value, key=str)}

    def _block(self, block: Any) -> Any:
        if not isinstance(block, dict) or block.get("type") not in _BLOCKS_WITH_IDS:
            return self.value(block)
        return self._named(block, _BLOCK_IDS)

    def _extra(self, extra: dict[Any, Any]) -> dict[Any, Any]:
        told: dict[Any, Any] = {}
        for field in sorted(extra, key=str):
            part = extra[field]
            if field == "usage_metadata":
                continue
            if field == "response_metadata" and isinstance(part, dict):
                part = {key: one for key, one in part.items() if key not in _MINTED_METADATA}
            if field == "invalid_tool_calls":
                part = self._calls(part)
            elif field == "additional_kwargs" and isinstance(part, dict) and "tool_calls" in part:
                part = {**self.value({**part, "tool_calls": None}), "tool_calls": self._calls(part["tool_calls"])}
            else:
                part = self.value(part)
            if part:
                told[field] = part
        return told

    def _document_id(self, value: Any) -> Any:
        return self.name(value) if is_made_anew(value) else self.value(value)
