"""Requests to and answers of language models, in the words of OpenTelemetry's GenAI conventions."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, NamedTuple

from clew.integrations.langchain.constant import constant
from clew.store.plain import is_plain, marshalled
from clew.tracer.capture import Given
from clew.tracer.constant import Constant, Fixed

PROVIDERS = {
    "amazon_bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "ibm": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "moonshot": "moonshot_ai",
    "xai": "x_ai",
}
_PARAMETERS = (
    ("temperature", "gen_ai.request.temperature"),
    ("max_tokens", "gen_ai.request.max_tokens"),
    ("max_completion_tokens", "gen_ai.request.max_tokens"),
    ("max_output_tokens", "gen_ai.request.max_tokens"),
    ("top_p", "gen_ai.request.top_p"),
    ("top_k", "gen_ai.request.top_k"),
    ("frequency_penalty", "gen_ai.request.frequency_penalty"),
    ("presence_penalty", "gen_ai.request.presence_penalty"),
    ("seed", "gen_ai.request.seed"),
    ("stop", "gen_ai.request.stop_sequences"),
    ("n", "gen_ai.request.choice.count"),
)
_NOT_PARAMETERS = frozenset(("tools", "functions"))
_TOLD = ("ls_provider", "ls_model_name", *("ls_" + key for key, _ in _PARAMETERS))
_ABOUT = {  # where two keys say the same, the first counts
    "model_name": "gen_ai.response.model",
    "model": "gen_ai.response.model",
    "id": "gen_ai.response.id",
    "system_fingerprint": "openai.response.system_fingerprint",
    "service_tier": "openai.response.service_tier",
}
_REMEMBERED = 512
_FIRST = Fixed(index=0)


class Request(NamedTuple):
    """What is known of a model call when it starts: the model's name, slots of model and tools, attributes."""

    name: str
    slots: list[Given]
    attributes: Fixed


_known: OrderedDict[tuple[int, int], tuple[Any, bytes, Request]] = OrderedDict()


def request(serialized: Any, metadata: dict[str, Any], parameters: dict[str, Any]) -> Request:
    """The request of a call. A model that is called with the parameters of last time gets last time's answer."""
    kept = {
        key: value
        for key, value in parameters.items()
        if key not in _NOT_PARAMETERS and value is not None and not hasattr(value, "get_secret_value")
    }
    told = list(map(metadata.get, _TOLD))
    key = (id(serialized), len(parameters))
    content = marshalled((kept, told))
    entry = _known.get(key)  # the entry holds `serialized`, so its id stays its own
    if entry is not None and entry[0] is serialized and entry[1] == content:
        name, slots, attributes = entry[2]
    else:
        snapshot = copy.deepcopy(kept) if content is not None and is_plain([kept, told]) else None
        if snapshot is not None and marshalled((snapshot, told)) != content:
            snapshot = None  # another thread is changing it
        lasting = snapshot is not None
        name, slots, attributes = found = _request(
            serialized, metadata, kept if snapshot is None else snapshot, lasting
        )
        if lasting and content is not None:
            _known[key] = (serialized, content, found)
            if len(_known) > _REMEMBERED:
                try:
                    _known.popitem(last=False)
                except KeyError:  # another thread took the last one
                    pass
    tools = parameters.get("tools") or parameters.get("functions") or ()
    bound = [("tools", "tool", constant(definition), tool_name(definition)) for definition in tools]
    return Request(name, [*slots, *bound], attributes)


def _request(serialized: Any, metadata: dict[str, Any], parameters: dict[str, Any], lasting: bool) -> Request:
    """`lasting`: the parameters are plain, and nobody else has them, so that the model's identity is a constant."""
    path = serialized.get("id") if serialized else None
    model = metadata.get("ls_model_name") or parameters.get("model_name") or parameters.get("model")
    provider = metadata.get("ls_provider")
    if provider is not None:
        provider = PROVIDERS.get(provider, provider)
    attributes: dict[str, Any] = {"gen_ai.provider.name": provider, "gen_ai.request.model": model}
    for key, attribute in _PARAMETERS:
        value = parameters.get(key)
        if value is None:
            value = metadata.get("ls_" + key)
        if value is not None and value != []:
            attributes[attribute] = value if isinstance(value, (str, int, float)) else [str(one) for one in value]
    if attributes.get("gen_ai.request.choice.count") == 1:
        del attributes["gen_ai.request.choice.count"]
    name = model or (path[-1] if path else None) or "model"
    identity = {
        "class": ".".join(path) if path else None,
        "provider": provider,
        "model": model,
        "parameters": parameters,
    }
    return Request(name, [("model", "model", Constant(identity) if lasting else identity, model)], Fixed(attributes))


def tool_name(definition: Any) -> str | None:
    """The name in a bound tool's definition, whichever provider's form it has."""
    if isinstance(definition, str):
        return definition
    if not isinstance(definition, dict):
        return getattr(definition, "name", None)
    inner = definition.get("function")
    name = inner.get("name") if isinstance(inner, dict) else definition.get("name")
    return name or definition.get("type")


def answer(result: Any) -> tuple[list[Given], dict[str, Any]]:
    """The slots and attributes of an `LLMResult`."""
    slots: list[Given] = []
    attributes: dict[str, Any] = {}
    reasons: list[str] = []
    for generations in result.generations:
        for generation in generations:
            message = getattr(generation, "message", None)
            index = {"index": len(slots)} if slots else _FIRST
            about = generation.generation_info or {}
            if message is None:
                slots.append(("text", "value", generation.text, None, index))
            else:
                slots.append(("message", "message", message, None, index))
                about = {**about, **message.response_metadata} if about else message.response_metadata
                usage = getattr(message, "usage_metadata", None)
                if usage and "gen_ai.usage.input_tokens" not in attributes:
                    attributes.update(_usage(usage))
            reason = about.get("finish_reason") or about.get("stop_reason") or about.get("done_reason")
            if reason:
                reasons.append(str(reason))
            if about:
                _response(about, attributes)
    told = result.llm_output
    if told:
        _response(told, attributes)
        if "gen_ai.usage.input_tokens" not in attributes:
            attributes.update(_older_usage(told.get("token_usage") or told.get("usage") or {}))
    if reasons:
        attributes["gen_ai.response.finish_reasons"] = reasons
    return slots, attributes


def decided(response: Any) -> tuple[list[Given], dict[str, Any]]:
    """The slots and attributes of a decision model's response, which is no message."""
    attributes: dict[str, Any] = {
        "gen_ai.response.model": getattr(response, "model", None),
        "gen_ai.response.id": getattr(response, "request_id", None),
    }
    if usage := getattr(response, "usage", None):
        attributes.update(_usage(usage))
    return [("message", "value", response, None, {"index": 0})], attributes


def _response(about: dict[str, Any], attributes: dict[str, Any]) -> None:
    for key, attribute in _ABOUT.items():
        if key in about and attribute not in attributes and isinstance(about[key], str):
            attributes[attribute] = about[key]


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    found = {
        "gen_ai.usage.input_tokens": usage.get("input_tokens"),
        "gen_ai.usage.output_tokens": usage.get("output_tokens"),
    }
    if details := usage.get("input_token_details"):
        found["gen_ai.usage.cache_read.input_tokens"] = details.get("cache_read")
        found["gen_ai.usage.cache_write.input_tokens"] = details.get("cache_creation")
    if details := usage.get("output_token_details"):
        found["gen_ai.usage.reasoning.output_tokens"] = details.get("reasoning")
    if usage.get("total_cost") == 0:  # how LangChain marks what its own cache answered
        found["langchain.cache.hit"] = True
    return found


def _older_usage(usage: Any) -> dict[str, Any]:
    """Token counts as completion models and older integrations report them."""
    if not isinstance(usage, dict):
        return {}
    return {
        "gen_ai.usage.input_tokens": usage.get("prompt_tokens", usage.get("input_tokens")),
        "gen_ai.usage.output_tokens": usage.get("completion_tokens", usage.get("output_tokens")),
    }
