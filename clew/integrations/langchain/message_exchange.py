"""Messages as a model is asked with them: all that a provider could be sent, as one hash chain.

Ids of messages and tool calls are numbered by the order of their first use; usage counts and a response's own ids are
left out. So a conversation that went the same way is the same, and one that goes on costs what is new in it.

A message is told by its class and fields, apart from a text that is its content and from its own ids. What is told alike
is known by its content (store/plain.py); a conversation that was asked with before by what is in its messages now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from langchain_core.messages import BaseMessage

from clew.replay.growth import Growth
from clew.replay.identity import identity
from clew.replay.key import Part, linked
from clew.replay.recording.loose import register_form
from clew.store import chain
from clew.store.digest import VALUE, raw_digest
from clew.store.encoding import REFERENCE_CHARS, encode_key, qualified_name
from clew.store.errors import Unkeyable
from clew.store.form import is_utf8
from clew.store.plain import is_plain, marshalled
from clew.tracer.capture import Batch

_MINTED_METADATA = frozenset((
    "id", "request_id", "created", "created_at", "token_usage", "usage", "system_fingerprint", "headers", "logprobs",
    "service_tier", "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
    "eval_duration", "x_groq",
))  # fmt: skip
_COUNTED = ("usage_metadata", "tool_call_chunks", "chunk_position", "example")
_IDS = ("id", "tool_call_id")
_BLOCKS_WITH_IDS = frozenset((
    "tool_use", "tool_result", "tool_call", "tool_call_chunk", "function_call", "function_call_output", "reasoning",
    "server_tool_use", "server_tool_call", "server_tool_result", "web_search_tool_result",
    "code_execution_tool_result",
))  # fmt: skip
_BLOCK_IDS = ("id", "call_id", "tool_use_id", "tool_call_id")
_TOLD, _LINKS, _CHATS = 8192, 1 << 15, 32  # that are remembered
_LONG = 8  # messages: from here a conversation is remembered
_NEW = 8  # messages at its end among which its known beginning is looked for
_pack = msgspec.msgpack.Encoder().encode


class Messages(Part):
    """What a chat model is asked with."""

    __slots__ = ("_messages",)

    def __init__(self, messages: list[Any]) -> None:
        self._messages = messages

    @property
    def value(self) -> list[dict[str, Any]]:
        """Each message as a provider could be sent it."""
        renamed: dict[str, str] = {}
        return [told(message, renamed) for message in self._messages]

    def digest(self, sink: Batch) -> bytes:
        return _memo_of(sink).digest(self._messages, sink)


class _Told:
    """A message but for its content and ids: the ids inside it, and its digests by the numbers that those have."""

    __slots__ = ("digests", "ids")

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids
        self.digests: dict[tuple[int, ...], bytes] = {}


class _Chat:
    """A conversation up to now: the digest of its chain, the numbers of its ids, and what was seen of its messages."""

    __slots__ = ("current", "growth", "numbers")

    def __init__(self) -> None:
        self.current = bytes(chain.EMPTY)
        self.numbers: dict[str, int] = {}
        self.growth = Growth(_COUNTED)


class _Memo:
    """What is known of messages, as one sink redacts them."""

    def __init__(self, sink: Batch) -> None:
        self.gate = sink.gate
        self.version = sink.version
        self._told: dict[tuple[type, bytes], _Told] = {}
        self._links: dict[tuple[Any, ...], bytes] = {}
        self._chats: dict[int, _Chat] = {}  # by the id of their last message; taken out while it is used

    def digest(self, messages: list[Any], sink: Batch) -> bytes:
        """The chain over all of them."""
        if len(messages) < _LONG:
            return self._steps(bytes(chain.EMPTY), messages, {}, sink)
        chat = self._chat(messages)
        new = messages[chat.growth.length :]
        for message in new:
            if not isinstance(message, BaseMessage):
                raise Unkeyable(f"a message that is a {type(message).__name__}")
            chat.growth.add(message)
        chat.current = self._steps(chat.current, new, chat.numbers, sink)
        if not chat.growth.blind and sink.current:
            while len(self._chats) >= _CHATS:
                self._chats.pop(next(iter(self._chats), 0), None)
            self._chats[id(messages[-1])] = chat
        return chat.current

    def _chat(self, messages: list[Any]) -> _Chat:
        """What is known of the beginning of a conversation."""
        for length in range(len(messages), max(len(messages) - _NEW, 0), -1):
            chat = self._chats.get(id(messages[length - 1]))
            if chat is not None and chat.growth.length == length:
                chat = self._chats.pop(id(messages[length - 1]), None)
                if chat is not None and chat.growth.length == length and chat.growth.begins(messages):
                    return chat
        return _Chat()

    def _steps(self, current: bytes, messages: list[Any], numbers: dict[str, int], sink: Batch) -> bytes:
        for message in messages:
            rest, content, (own, answered) = _apart(message)
            own, answered = _number(own, numbers), _number(answered, numbers)
            told = self._rest(type(message), rest, numbers, sink)
            text: Any = content
            if content is not None:
                short = len(content) < REFERENCE_CHARS and (content.isascii() or is_utf8(content))
                text = sink.inline(content) if short else sink.text(content)
            step = (current, told, text, own, answered)
            link = self._links.get(step)
            if link is None:
                link = linked(current, raw_digest(VALUE, _pack([told, text, own, answered])))
                if len(self._links) >= _LINKS:
                    self._links = {}
                self._links[step] = link
            current = link
        return current

    def _rest(self, cls: type, rest: dict[str, Any], numbers: dict[str, int], sink: Batch) -> bytes:
        content = marshalled(rest)
        known = self._told.get((cls, content)) if content is not None else None
        if known is not None:
            key = tuple([numbers.setdefault(one, len(numbers)) for one in known.ids])
            if (found := known.digests.get(key)) is not None:
                return found
        ids: list[str] = []

        def name(minted: str) -> str:
            ids.append(minted)
            return f"#{numbers.setdefault(minted, len(numbers))}"

        made = raw_digest(VALUE, encode_key(_told(cls, rest, name), sink))
        if content is not None and is_plain(rest) and marshalled(rest) == content and sink.current:
            if known is None:
                if len(self._told) >= _TOLD:
                    self._told = {}
                known = self._told[cls, content] = _Told(ids)
            if len(known.digests) >= _LONG:
                known.digests.clear()
            known.digests[tuple([numbers[one] for one in ids])] = made
        return made


_memo: _Memo | None = None


def _memo_of(sink: Batch) -> _Memo:
    global _memo
    memo = _memo
    if memo is None or memo.gate is not sink.gate or memo.version != sink.version:
        memo = _memo = _Memo(sink)
    return memo


def looked_at(messages: list[Any]) -> tuple[tuple[str, ...], list[Any], list[dict[str, Any]]] | None:
    """The texts of messages, the class of each and the length of its text, and all else that is in them; None where that is
    more than a dictionary each, or the last one has an id, which others like it have not."""
    texts: list[str] = []
    shapes: list[Any] = []
    fields: list[dict[str, Any]] = []
    try:
        if not messages or messages[-1].id is not None:
            return None
        for message in messages:
            rest = message.__dict__.copy()
            text = rest.pop("content")
            if type(text) is not str or message.__pydantic_extra__:
                return None
            texts.append(text)
            shapes += type(message), len(text)
            fields.append(rest)
    except (AttributeError, KeyError):  # no message
        return None
    return tuple(texts), shapes, fields


def _apart(message: Any) -> tuple[dict[str, Any], str | None, tuple[Any, Any]]:
    """What is told of a message: its fields, the text that is its content, its own id and the one of the call it answers."""
    if not isinstance(message, BaseMessage):
        raise Unkeyable(f"a message that is a {type(message).__name__}")
    rest = message.__dict__.copy()
    take = rest.pop
    content, own, answered = take("content", None), take("id", None), take("tool_call_id", None)
    for name in _COUNTED:
        take(name, None)
    if type(content) is not str:
        rest["content"], content = content, None
    if own is not None and type(own) is not str:
        rest["id"], own = own, None
    if answered is not None and type(answered) is not str:
        rest["tool_call_id"], answered = answered, None
    if about := rest.get("response_metadata"):
        rest["response_metadata"] = {name: value for name, value in about.items() if name not in _MINTED_METADATA}
    if extra := message.__pydantic_extra__:
        rest["<extra>"] = extra
    return rest, content, (own, answered)


def told(message: Any, renamed: dict[str, str]) -> dict[str, Any]:
    """A message as a provider could be sent it; `renamed` holds what its ids, and those before it, are called."""

    def name(minted: str) -> str:
        return renamed.setdefault(minted, f"#{len(renamed)}")

    rest, content, ids = _apart(message)
    own = {field: name(one) for field, one in zip(_IDS, ids, strict=True) if one is not None}
    return {**_told(type(message), rest, name), **own, **({} if content is None else {"content": content})}


register_form(BaseMessage, told)


def _number(minted: str | None, numbers: dict[str, int]) -> int | None:
    return None if minted is None else numbers.setdefault(minted, len(numbers))


def _told(cls: type, rest: dict[str, Any], name: Callable[[str], str]) -> dict[str, Any]:
    """The rest of a message, with what `name` makes of the ids in it."""

    def named(minted: Any) -> Any:
        return name(minted) if type(minted) is str else minted

    about: dict[str, Any] = {"class": qualified_name(cls)}
    for field, value in rest.items():
        if field in ("tool_calls", "invalid_tool_calls"):
            value = [{**call, "id": named(call.get("id"))} for call in value]
        elif field == "content" and type(value) is list:
            value = [_block(block, named) for block in value]
        elif field == "additional_kwargs" and type(value.get("tool_calls")) is list:
            calls = [{**call, "id": named(call.get("id"))} for call in value["tool_calls"]]
            value = {**value, "tool_calls": calls}
        about[field] = identity(value)
    return about


def _block(block: Any, named: Callable[[Any], Any]) -> Any:
    if type(block) is not dict or block.get("type") not in _BLOCKS_WITH_IDS:
        return block
    return {key: named(value) if key in _BLOCK_IDS else value for key, value in block.items()}
