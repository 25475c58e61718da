"""LangChain's classes in answers: how they are taken apart, and put together again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core import messages, outputs
from langchain_core.documents import Document
from pydantic import BaseModel

from clew.replay.answer import register_answer
from clew.store.errors import Unstorable

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


_new = object.__new__
_set_fields, _set_given, _set_extra, _set_private = (
    BaseModel.__dict__[slot].__set__
    for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)


def own(response: Any) -> Any:
    """A response with no message id that was minted for another call: LangChain gives it one. The one that is given may be
    the program's: it keeps its own."""
    fields = getattr(response, "__dict__", {})  # to ask a pydantic object for what it has not takes long
    if (message := fields.get("message")) is not None:
        return response if message.__dict__.get("id") is None else _with(response, message=_with(message, id=None))
    found = fields.get("generations", ())
    for each in found:
        for one in each if type(each) is list else (each,):
            message = one.__dict__.get("message")
            if message is not None and message.__dict__.get("id") is not None:
                made = [list(map(own, each)) if type(each) is list else own(each) for each in found]
                return _with(response, generations=made)
    return response


def _with(value: Any, **fields: Any) -> Any:
    """Another one that has these fields, and else the very same."""
    made = _new(type(value))
    _set_fields(made, {**value.__dict__, **fields})
    _set_given(made, set(value.__pydantic_fields_set__))
    _set_extra(made, value.__pydantic_extra__)
    _set_private(made, value.__pydantic_private__)
    return made


def _dump(value: Any) -> Any:
    return [dict(value.__dict__), value.__pydantic_extra__, sorted(value.__pydantic_fields_set__)]


def _register(cls: Any) -> None:
    names = set(cls.model_fields)
    opens = cls.model_config.get("extra") == "allow"
    bare = cls.__pydantic_post_init__ is None and not cls.__private_attributes__

    def load(data: Any) -> Any:
        fields, extra, given = data
        if bare and fields.keys() == names and (extra is not None) == opens:  # what model_construct would make of it
            made = _new(cls)
            _set_fields(made, fields)
            _set_given(made, set(given))
            _set_extra(made, extra)
            _set_private(made, None)
            return made
        made = cls.model_construct(_fields_set=set(given), **fields)
        if extra:
            made.__pydantic_extra__.update(extra)
        return made

    def again(value: Any) -> Callable[[Any], Any]:
        given, extra = value.__pydantic_fields_set__, value.__pydantic_extra__
        if extra or value.__pydantic_private__ is not None:
            raise Unstorable("more than fields")

        def made(fields: Any) -> Any:
            new = _new(cls)
            _set_fields(new, fields)
            _set_given(new, given.copy())
            _set_extra(new, None if extra is None else {})
            _set_private(new, None)
            return new

        return made

    register_answer(cls, _dump, load, again=again)


for _class in _CLASSES:
    _register(_class)
_accessor = getattr(messages.base, "TextAccessor", None)  # a text that older callers call
if _accessor is not None:
    register_answer(_accessor, str.__str__, _accessor, again=lambda _: None)
