"""What a call of a model asks and what it answers, as data.

The request is all that the provider is sent, and all that the model's class could make it from: message ids, tool call
ids and usage counts that were minted on the way are renamed or left out, so that a conversation that went the same way
is the same request.
"""

from __future__ import annotations

from typing import Any

import msgspec
from langchain_core.language_models import BaseLLM
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk
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
from clew.integrations.langchain.message_exchange import Messages, looked_at
from clew.integrations.langchain.reach import known_reach, reach
from clew.integrations.langchain.transport import unread
from clew.replay.code.witness import Witness, Witnessed
from clew.replay.identity import identity, is_hidden
from clew.replay.key import AskedBefore, Key, Part, Remembered, plain_part
from clew.store.errors import Unkeyable
from clew.store.plain import is_plain, marshalled
from clew.tracer.gate import Gate

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


class _Model(msgspec.Struct):
    """What is known of a model while it is as it was: what it is, and what it says of itself."""

    told: Remembered | Unkeyable
    services: list[str]  # fields that hold a client or the like
    reached: Part | None  # where those lead; None where that must be asked each time
    transport: frozenset[str]  # options that say nothing about the answer
    name: str
    completes: bool
    operation: str
    temperature: Any
    elsewhere: bool  # it hands on a temperature beside its own, which is not 0
    answers: Any  # how many it gives
    asked: AskedBefore


def _model(instance: Any, witness: Witness) -> _Model:
    fields = _fields(instance)
    try:
        told: Any = Remembered(identity(instance, without=_reaching(fields, type(instance)), witness=witness))
    except Unkeyable as error:
        told, witness.blind = error, True
    services = [name for name, value in fields.items() if is_service(value)]
    about, completes = instance._get_ls_params(), isinstance(instance, BaseLLM)
    return _Model(
        told,
        services,
        known_reach(instance, fields, services, witness),
        unread(_TRANSPORT_OPTIONS, type(instance)),
        str(about.get("ls_model_name") or getattr(instance, "model_name", None) or instance._llm_type),
        completes,
        "completion" if completes else "chat",
        about.get("ls_temperature", getattr(instance, "temperature", None)),
        (getattr(instance, "model_kwargs", None) or {}).get("temperature", 0) != 0,
        getattr(instance, "n", None),
        AskedBefore(),
    )


_models: Witnessed[_Model] = Witnessed()
_ONE = (None, 1)
_FEW = 8  # messages that are compared with what was asked before; of more, each

_NONE, _NOTHING = Remembered(None), Remembered({})


class ModelExchange:
    """A call of a chat model, or of a completion model."""

    __slots__ = (
        "_content",
        "_instance",
        "_model",
        "_options",
        "_plain",
        "_stop",
        "_texts",
        "_told",
        "model",
        "operation",
        "sampled",
    )

    def __init__(self, instance: Any, content: list[Any], stop: Any, options: dict[str, Any]) -> None:
        self._instance = instance
        self._content = content
        self._stop = stop
        self._options = options
        self._model = model = _models.of(instance, _model)
        self.operation = model.operation
        self.model = model.name
        self._told: tuple[Any, ...] | None = None  # how it is known, if it can be: see `known`
        self.sampled = model.elsewhere or options.get("temperature", model.temperature) != 0

    def known(self, gate: Gate) -> Key | None:
        """The key, where the very same was asked before."""
        messages, model, self._told = self._content, self._model, None
        if len(messages) >= _FEW or model.completes or (found := looked_at(messages)) is None:
            return None
        if (version := gate.version) != gate.secrets.version:
            return None
        texts, shapes, fields = found
        self._plain = plain = [self._instance._identifying_params, self._stop, self._options, fields]
        if (content := marshalled(plain)) is None:
            return None
        reached = model.reached or self._reached()
        if not isinstance(reached, Part):
            return None
        self._told = told = (gate, version, reached, content, *shapes)
        self._texts = texts
        return model.asked.get(told, texts)

    def learn(self, key: Key) -> None:
        """Remember the key that was made of the parts, if what was asked is still as `known` saw it."""
        if self._told is None or not is_plain(self._plain) or (now := looked_at(self._content)) is None:
            return
        texts, shapes, fields = now
        if texts == self._texts and (marshalled([*self._plain[:3], fields]), *shapes) == self._told[3:]:
            self._model.asked.keep(self._told, texts, key)

    def parts(self) -> dict[str, Any]:
        model, options = self._model, self._options
        if model.answers not in _ONE or options.get("n") not in _ONE:
            raise Unkeyable("several answers at once, of which a stream has but one")
        if isinstance(model.told, Unkeyable):
            raise model.told
        if options:
            options = {name: value for name, value in options.items() if name not in model.transport}
        if self._told is not None:  # what `known` saw: asked again, it may be another one by now
            parameters, reached = self._plain[0], self._told[2]
        else:
            parameters, reached = self._instance._identifying_params, model.reached or self._reached()
        asked: dict[str, Any] = {
            "model": model.told,
            "reached": reached,
            "parameters": plain_part(dict(parameters)),
            "stop": _NONE if self._stop is None else plain_part(self._stop),
            "options": plain_part(options) if options else _NOTHING,
        }
        if self._model.completes:
            asked["prompts"] = plain_part(list(self._content))
        else:
            asked["messages"] = Messages(self._content)
        return asked

    def _reached(self) -> Any:
        return reach(self._instance, _fields(self._instance), self._model.services)

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
        if not self._model.completes:
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
        if self._model.completes:
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


def _generations(response: Any) -> list[Any]:
    if isinstance(response, ChatResult):
        return list(response.generations)
    return [generation for one in response.generations for generation in one]


def _fields(model: Any) -> dict[str, Any]:
    return {**model.__dict__, **(getattr(model, "__pydantic_private__", None) or {})}


def _reaching(fields: dict[str, Any], cls: type) -> set[str]:
    """Fields that say how the model is reached or traced, clients, and what the caller is known by."""
    transport = unread(_TRANSPORT, cls)
    return {name for name, value in fields.items() if name in transport or is_service(value) or is_hidden(value)}


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
