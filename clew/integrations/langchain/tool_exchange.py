"""What a call of a tool asks and what it answers, as data."""

from __future__ import annotations

import dataclasses
from typing import Any

from langchain_core.messages import ToolMessage

from clew.integrations.langchain import answer as _answer  # noqa: F401 - LangChain's classes become answers
from clew.integrations.langchain import message_exchange as _message  # noqa: F401 - messages of a state that a tool is given
from clew.integrations.langchain.transport import unread
from clew.replay.answer import pack, texts
from clew.replay.code.witness import Witness, Witnessed
from clew.replay.effect import effect_of
from clew.replay.identity import identity
from clew.replay.key import Remembered, plain_part
from clew.replay.provider import settings_of
from clew.replay.value_exchange import ValueExchange
from clew.store.errors import Unkeyable, Unstorable

_MADE = ("tool_call_schema", "args", "callbacks", "tags", "metadata", "verbose")


class ToolExchange(ValueExchange):
    """A call of a tool. One that was given the graph's state, store or runtime has no key: it may depend on all of it."""

    def __init__(self, tool: Any, arguments: Any, injected: dict[str, Any], configured: bool) -> None:
        super().__init__("execute")
        self._configured = configured
        self._tool = tool
        self._arguments = arguments
        self._injected = injected

    @property
    def _call_id(self) -> str | None:
        """The id of the tool call, where the tool was given it."""
        found = self._injected.get("tool_call_id")
        return found if type(found) is str else None

    def parts(self) -> dict[str, Any]:
        given = [name for name, value in self._injected.items() if value is not self._call_id]
        if given:
            raise Unkeyable(f"the tool was given {given[0]!r} by the graph, and may depend on all of it")
        if self._configured:
            raise Unkeyable("the tool was given the run's configuration, and may depend on all of it")
        told = effect_of(self._tool)
        version = told.version if told is not None else None
        known = _tools.of(self._tool, _told, version)
        if known[0] != version:
            known = _told(self._tool, version, Witness())
        return {"tool": known[1], "arguments": plain_part(self._arguments)}

    def seen(self) -> dict[str, Any]:
        given = {name: _bare(value) for name, value in self._injected.items() if name != "tool_call_id"}
        about = [self._tool.name, self._tool.description, getattr(self._tool, "func", None) or type(self._tool)]
        return {"tool": about, "arguments": self._arguments, "injected": given}

    def dump(self, response: Any, chunks: list[tuple[int, Any]] | None) -> Any:
        own = self._call_id
        if not isinstance(response, ToolMessage):
            if own is None or not _holds(response, own):
                return super().dump(response, chunks)
            response = _to_call(response, own, "")  # such as a command with the message that answers the call
            if _holds(response, own):
                raise Unstorable("an answer that holds the id of the call")
            return {"value": response, "to_call": True}
        if response.tool_call_id != own:
            raise Unstorable("a ToolMessage with the id of another call")
        bare = response.model_copy(update={"id": None, "tool_call_id": ""})
        if _holds(bare, own):
            raise Unstorable("an answer that holds the id of the call")
        return {"message": bare}

    def load(self, data: Any) -> Any:
        if "message" not in data:
            return _to_call(data["value"], "", self._call_id) if "to_call" in data else super().load(data)
        message = data["message"]
        message.id, message.tool_call_id = None, self._call_id
        return message

    def made(self, value: Any, recorded: Any) -> Any:
        if isinstance(recorded, ToolMessage) and not isinstance(value, ToolMessage):
            return recorded.model_copy(update={"content": value})
        if self._tool.response_format == "content_and_artifact" and not isinstance(value, (tuple, ToolMessage)):
            return (value, None)
        return value


def _told(tool: Any, version: str | None, witness: Witness) -> tuple[str | None, Remembered]:
    """What a tool is, for a version that was said of it."""
    made = unread(_MADE, type(tool))
    without = made if version is None else (*made, "func", "coroutine")
    told = [identity(tool, without=without, witness=witness), version]
    return version, Remembered([*told, set_to] if (set_to := settings_of(witness)) else told)


_tools: Witnessed[tuple[str | None, Remembered]] = Witnessed()


def _holds(value: Any, name: str) -> bool:
    return any(name in text for _, text in texts(pack(value)) if isinstance(text, str))


def _to_call(value: Any, before: str, after: str | None) -> Any:
    """A value whose messages that answer the call `before` answer the call `after`."""
    if isinstance(value, ToolMessage):
        return value.model_copy(update={"tool_call_id": after}) if value.tool_call_id == before else value
    if type(value) in (list, tuple):
        return type(value)([_to_call(one, before, after) for one in value])
    if type(value) is dict:
        return {key: _to_call(one, before, after) for key, one in value.items()}
    if dataclasses.is_dataclass(value) and hasattr(value, "goto") and hasattr(value, "update"):
        return dataclasses.replace(value, update=_to_call(value.update, before, after))  # type: ignore[type-var]
    return value


def _bare(value: Any) -> Any:
    """Of a runtime, what a tool can depend on that is the same in a replay."""
    if hasattr(value, "state") and hasattr(value, "stream_writer"):
        return {"state": value.state, "context": getattr(value, "context", None)}
    return value
