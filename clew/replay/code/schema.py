"""What pydantic makes of a class: its fields and decorators count by what the class says of them, and what pydantic
compiles from these, by its version alone."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from clew.replay.code.witness import Witness

_COMPILED = frozenset((
    "__pydantic_validator__", "__pydantic_serializer__", "__pydantic_core_schema__", "__signature__",
    "__pydantic_setattr_handlers__",
))  # fmt: skip
_OWNERS = ("pydantic", "pydantic_core")
_FIELD = ("pydantic.fields", "FieldInfo")
_DECORATORS = "pydantic._internal._decorators"
# what stands in the class itself, is made of other parts, or names the class by its place in memory
_LEFT_OUT = frozenset((
    "_attributes_set", "_qualifiers", "_complete", "_original_assignment", "_original_annotation", "cls_ref", "func",
    "shim", "wrapped_property",
))  # fmt: skip


def is_compiled(name: str, value: Any) -> bool:
    """Whether an attribute of a class is what pydantic compiled from the others."""
    return name in _COMPILED and str(type(value).__module__).partition(".")[0] in _OWNERS


def is_described(cls: type) -> bool:
    """Whether the docstring of a class says something where it runs: a schema made of it has that for a description."""
    held = cls.__dict__
    if "__dataclass_fields__" in held:  # where it has none, it is given one that may hold addresses
        return not str(held.get("__doc__")).startswith(f"{cls.__name__}(")
    return isinstance(cls, enum.EnumMeta) or "__pydantic_fields__" in held or "__total__" in held


def said(value: Any, witness: Witness) -> list[tuple[str, Any]] | None:
    """What a field or a decorator of a class says, by name; None of anything else.

    Most of its lists and dicts are empty: they are left out, and only watched. Not so a default, which may be either.
    """
    cls = type(value)
    place = (cls.__module__, cls.__qualname__)
    if place == _FIELD:
        names = [str(name) for name in cls.__slots__]
        witness.add(value)  # it can be set in place
    elif (place[0] == _DECORATORS and dataclasses.is_dataclass(cls)) or place == (
        "pydantic.fields",
        "ComputedFieldInfo",
    ):
        names = [field.name for field in dataclasses.fields(cls)]
    elif place == ("pydantic_core._pydantic_core", "PydanticUndefinedType"):
        names = []
    else:
        return None
    found = []
    for name in sorted(names):
        if name in _LEFT_OUT or not hasattr(value, name):
            continue
        part = getattr(value, name)
        if type(part) in (dict, list) and not part and name != "default":
            witness.add_container(part)
        else:
            found.append((name, part))
    return found
