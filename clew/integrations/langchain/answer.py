"""LangChain's classes in answers: how they are taken apart, and put together again."""

from __future__ import annotations

from typing import Any

from langchain_core import messages, outputs
from langchain_core.documents import Document

from clew.replay.answer import register_answer

_CLASSES = [
    messages.AIMessage,
    messages.AIMessageChunk,
    messages.HumanMessage,
    messages.SystemMessage,
    messages.ToolMessage,
    messages.ChatMessage,
    messages.FunctionMessage,
    messages.RemoveMessage,
    outputs.ChatGeneration,
    outputs.ChatGenerationChunk,
    outputs.ChatResult,
    outputs.Generation,
    outputs.GenerationChunk,
    outputs.LLMResult,
    Document,
]


def own(response: Any) -> Any:
    """A response that was read, with no message id that was minted for another call: LangChain gives it one."""
    for generation in getattr(response, "generations", [response]):
        for one in generation if isinstance(generation, list) else [generation]:
            message = getattr(one, "message", None)
            if message is not None:
                message.id = None
    return response


def _dump(value: Any) -> Any:
    return [dict(value.__dict__), value.__pydantic_extra__, sorted(value.__pydantic_fields_set__)]


def _register(cls: Any) -> None:
    def load(data: Any) -> Any:
        fields, extra, given = data
        made = cls.model_construct(_fields_set=set(given), **fields)
        if extra:
            made.__pydantic_extra__.update(extra)
        return made

    register_answer(cls, _dump, load)


for _class in _CLASSES:
    _register(_class)
_accessor = getattr(messages.base, "TextAccessor", None)  # a text that older callers call
if _accessor is not None:
    register_answer(_accessor, str.__str__, _accessor)
