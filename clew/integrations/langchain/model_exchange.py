"""What a call of a model asks and what it answers, as data.

The request is all that the provider is sent, and all that the model's class could make it from: message ids, tool call
ids and usage counts that were minted on the way are renamed or left out, so that a conversation that went the same way
is the same request.
"""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseLLM
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    Generation,
    GenerationChunk,
    LLMResult,
)

from clew.integrations.langchain.answer import own
from clew.integrations.langchain.attachment import is_service
from clew.integrations.langchain.client import destinations
from clew.integrations.langchain.transport import unread
from clew.replay.identity import identity, is_hidden
from clew.replay.key import Listed
from clew.replay.recording.loose import register_form
from clew.store.encoding import qualified_name
from clew.store.errors import Unkeyable

_MINTED_METADATA = frozenset((
    "id", "request_id", "created", "created_at", "token_usage", "usage", "system_fingerprint", "headers", "logprobs",
    "service_tier", "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
    "eval_duration", "x_groq",
))  # fmt: skip
_COUNTED = frozenset(("usage_metadata", "tool_call_chunks", "chunk_position", "example"))
_BLOCKS_WITH_IDS = frozenset((
    "tool_use", "tool_result", "tool_call", "tool_call_chunk", "function_call", "function_call_output", "reasoning",
    "server_tool_use", "server_tool_call", "server_tool_result", "web_search_tool_result",
    "code_execution_tool_result",
))  # fmt: skip
_BLOCK_IDS = ("id", "call_id", "tool_use_id", "tool_call_id")
_TRANSPORT = frozenset((
    "callbacks", "callback_manager", "verbose", "tags", "metadata", "name", "cache", "rate_limiter",
    "custom_get_token_ids", "disable_streaming", "streaming", "stream_usage", "stream_options", "stream_chunk_timeout",
    "timeout", "request_timeout", "default_request_timeout", "max_retries", "retries", "proxy", "proxies",
    "openai_proxy", "http_socket_options", "_serialized", "_lc_kwargs",
    "_client_params",  # those of ChatAnthropic's clients, made of its fields
))  # fmt: skip
_TRANSPORT_OPTIONS = frozenset((
    "stream", "stream_options", "stream_usage", "timeout", "request_timeout", "max_retries", "callbacks",
    "run_manager", "tags", "metadata", "http_client",
))  # fmt: skip
_CUT_SHORT = frozenset(("length", "max_tokens", "content_filter", "refusal", "safety", "recitation", "blocklist"))


class ModelExchange:
    """A call of a chat model, or of a completion model."""

    def __init__(self, instance: Any, content: list[Any], stop: Any, options: dict[str, Any]) -> None:
        self._instance = instance
        self._content = content
        self._stop = stop
        self._options = options
        self._completes = isinstance(instance, BaseLLM)
        self.operation = "completion" if self._completes else "chat"
        about = instance._get_ls_params(stop=stop)
        self.model = str(about.get("ls_model_name") or getattr(instance, "model_name", None) or instance._llm_type)
        temperature = options.get("temperature", about.get("ls_temperature", getattr(instance, "temperature", None)))
        elsewhere = (getattr(instance, "model_kwargs", None) or {}).get("temperature", 0)
        self.sampled = temperature != 0 or elsewhere != 0

    def parts(self) -> dict[str, Any]:
        if any(count not in (None, 1) for count in (self._options.get("n"), getattr(self._instance, "n", None))):
            raise Unkeyable("several answers at once, of which a stream has but one")
        transport = unread(_TRANSPORT_OPTIONS, type(self._instance))
        options = {name: value for name, value in self._options.items() if name not in transport}
        fields = _fields(self._instance)
        reaching = _reaching(fields, type(self._instance))
        renamed: dict[str, str] = {}
        if self._completes:
            asked: Any = identity(list(self._content))
        else:
            asked = Listed([_asked(message, renamed) for message in self._content])
        return {
            "model": identity(self._instance, without=reaching),
            "reached": destinations(self._instance, fields, reaching),
            "parameters": identity(dict(self._instance._identifying_params)),
            "stop": identity(self._stop),
            "options": identity(options),
            "prompts" if self._completes else "messages": asked,
        }

    def seen(self) -> dict[str, Any]:
        return {
            "model": self._instance,
            "parameters": dict(self._instance._identifying_params),
            "stop": self._stop,
            "options": self._options,
            "messages": list(self._content),
        }

    def dump(self, response: Any, chunks: list[tuple[int, Any]] | None) -> Any:
        return {"response": response} if chunks is None else {"chunks": [list(one) for one in chunks]}

    def load(self, data: Any) -> Any:
        if "response" in data:
            return own(data["response"])
        chunks = [own(chunk) for _, chunk in data["chunks"]]
        if not self._completes:
            return generate_from_stream(iter(chunks))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        return LLMResult(generations=[[Generation(text=whole.text, generation_info=whole.generation_info)]])

    def load_chunks(self, data: Any) -> list[tuple[int, Any]]:
        if "chunks" in data:
            return [(after_ns, own(chunk)) for after_ns, chunk in data["chunks"]]
        response = own(data["response"])
        if isinstance(response, LLMResult):
            first = response.generations[0][0]
            return [(0, GenerationChunk(text=first.text, generation_info=first.generation_info))]
        first = response.generations[0]
        return [(0, ChatGenerationChunk(message=_as_chunk(first.message), generation_info=first.generation_info))]

    def made(self, value: Any, recorded: Any) -> Any:
        if self._completes:
            return LLMResult(generations=[[Generation(text=_text(value))]])
        return ChatResult(generations=[ChatGeneration(message=_message(value, recorded))])

    def refused(self, response: Any, chunks: list[tuple[int, Any]] | None) -> str | None:
        if chunks is not None:
            if not chunks:
                return "an empty stream"
            response = self.load({"chunks": chunks})
        for generation in _generations(response):
            message = getattr(generation, "message", None)
            about = {**(generation.generation_info or {}), **getattr(message, "response_metadata", {})}
            reason = about.get("finish_reason") or about.get("stop_reason") or about.get("done_reason")
            if reason and str(reason).lower() in _CUT_SHORT:
                return f"it ended by {reason}"
            if message is not None and message.additional_kwargs.get("refusal"):
                return "a refusal"
        return None

    def usage(self, data: Any) -> tuple[int, int]:
        if "chunks" in data and not data["chunks"]:
            return 0, 0
        for generation in _generations(self.load(data)):
            usage = getattr(getattr(generation, "message", None), "usage_metadata", None)
            if usage:
                return int(usage.get("input_tokens") or 0), int(usage.get("output_tokens") or 0)
        return 0, 0


register_form(BaseMessage, lambda message, renamed: _asked(message, renamed))


def _generations(response: Any) -> list[Any]:
    if isinstance(response, ChatResult):
        return list(response.generations)
    return [generation for one in response.generations for generation in one]


def _asked(message: Any, renamed: dict[str, str]) -> dict[str, Any]:
    """A message as a provider could be sent it."""
    if not isinstance(message, BaseMessage):
        raise Unkeyable(f"a message that is a {type(message).__name__}")

    def name(minted: Any) -> Any:
        return renamed.setdefault(minted, f"#{len(renamed)}") if type(minted) is str else minted

    told: dict[str, Any] = {"class": qualified_name(type(message))}
    for field, value in {**message.__dict__, **(message.__pydantic_extra__ or {})}.items():
        if field in _COUNTED:
            continue
        if field in ("id", "tool_call_id"):
            value = name(value)
        elif field in ("tool_calls", "invalid_tool_calls"):
            value = [{**call, "id": name(call.get("id"))} for call in value]
        elif field == "response_metadata":
            value = {key: part for key, part in value.items() if key not in _MINTED_METADATA}
        elif field == "content" and type(value) is list:
            value = [_block(block, name) for block in value]
        elif field == "additional_kwargs" and type(value.get("tool_calls")) is list:
            calls = [{**call, "id": name(call.get("id"))} for call in value["tool_calls"]]
            value = {**value, "tool_calls": calls}
        told[field] = identity(value)
    return told


def _fields(model: Any) -> dict[str, Any]:
    return {**model.__dict__, **(getattr(model, "__pydantic_private__", None) or {})}


def _reaching(fields: dict[str, Any], cls: type) -> set[str]:
    """Fields that say how the model is reached or traced, clients, and what the caller is known by."""
    transport = unread(_TRANSPORT, cls)
    return {name for name, value in fields.items() if name in transport or is_service(value) or is_hidden(value)}


def _block(block: Any, name: Any) -> Any:
    if type(block) is not dict or block.get("type") not in _BLOCKS_WITH_IDS:
        return block
    return {key: name(value) if key in _BLOCK_IDS else value for key, value in block.items()}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a completion model answers with a text, not with a {type(value).__name__}")
    return value


def _message(value: Any, recorded: Any) -> AIMessage:
    """A message that says `value`; tool calls without an id have those of the recorded answer, in their order."""
    if isinstance(value, AIMessage):
        return value
    if isinstance(value, str):
        return AIMessage(value)
    if not isinstance(value, dict) or not value.keys() <= {"content", "tool_calls"}:
        raise ValueError("a chat model answers with a text, an AIMessage, or a dict with content and tool_calls")
    before = [] if recorded is None else getattr(recorded.generations[0].message, "tool_calls", [])
    ids = [call.get("id") for call in before]
    calls = [
        {**call, "id": call.get("id") or (ids[at] if at < len(ids) else f"call_{at}")}
        for at, call in enumerate(value.get("tool_calls") or [])
    ]
    return AIMessage(value.get("content") or "", tool_calls=calls)


def _as_chunk(message: Any) -> Any:
    if not isinstance(message, AIMessage) or isinstance(message, AIMessageChunk):
        return message
    fields = {key: value for key, value in message.__dict__.items() if key != "type"}
    if "chunk_position" in AIMessageChunk.model_fields:
        fields["chunk_position"] = "last"
    return AIMessageChunk(**fields)
