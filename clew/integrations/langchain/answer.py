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
            if message is not None and message.__dict__.get("id") is not None:
                message.id = None
    return response


_new, _set = object.__new__, object.__setattr__


def _dump(value: Any) -> Any:
    return [dict(value.__dict__), value.__pydantic_extra__, sorted(value.__pydantic_fields_set__)]


def _register(cls: Any) -> None:
    names = set(cls.model_fields)
    count = len(names)
    opens = cls.model_config.get("extra") == "allow"
    bare = cls.__pydantic_post_init__ is None and not cls.__private_attributes__

    def load(data: Any) -> Any:
        fields, extra, given = data
        if (
            bare and len(fields) == count and names.issuperset(fields) and (extra is not None) == opens
        ):  # what model_construct would make of it
            made = _new(cls)
            _set(made, "__dict__", fields)
            _set(made, "__pydantic_fields_set__", set(given))
            _set(made, "__pydantic_extra__", extra)
            _set(made, "__pydantic_private__", None)
            return made
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
