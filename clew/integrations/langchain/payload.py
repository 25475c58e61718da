"""What goes into and comes out of a chain, as slots."""

from __future__ import annotations

import dataclasses
from typing import Any

from langchain_core.prompt_values import ChatPromptValue, PromptValue

from clew.store.encoding import item_kind
from clew.tracer.capture import Given


def slots(value: Any, role: str) -> list[Given]:
    """One slot for each key of a dict, else one of `role`; nothing for None."""
    if type(value) is dict:
        return [(str(key), "value", part) for key, part in value.items()]
    if value is None:
        return []
    return [(role, "value", bare(value))]


def bare(value: Any) -> Any:
    """A prompt value as its messages or text; anything else as it is."""
    if isinstance(value, PromptValue):
        return value.messages if isinstance(value, ChatPromptValue) else value.to_string()
    return value


def fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of a state object (pydantic, dataclass); None for everything else, messages and documents included."""
    cls = type(value)
    if hasattr(cls, "__pydantic_fields__"):
        return None if item_kind(cls) or isinstance(value, PromptValue) else dict(value.__dict__)
    if dataclasses.is_dataclass(cls):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(cls)}
    return None
