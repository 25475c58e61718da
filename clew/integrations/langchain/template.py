"""What a prompt template says before its variables are filled in, read from LangChain's serialized form."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

from clew.tracer.capture import Given
from clew.tracer.constant import Constant

_ROLES = {
    "SystemMessage": "system",
    "HumanMessage": "user",
    "AIMessage": "assistant",
    "ToolMessage": "tool",
    "FunctionMessage": "function",
}
_REMEMBERED = 512


class Template(NamedTuple):
    """`literals.messages` is a list of [role, literal text]; a placeholder for messages has the role `placeholder`."""

    literals: Constant
    variables: list[str]
    partial: dict[str, Any]


_known: OrderedDict[int, tuple[dict[str, Any], Template | None]] = OrderedDict()  # holds the dict: its id stays its own


def template_of(serialized: dict[str, Any] | None) -> Template | None:
    """The template; None where LangChain cannot serialize it. The answer is remembered for each prompt object."""
    if not serialized:
        return None
    entry = _known.get(id(serialized))
    if entry is not None and entry[0] is serialized:
        return entry[1]
    found = _read(serialized)
    while len(_known) >= _REMEMBERED:
        try:
            _known.popitem(last=False)
        except KeyError:  # another thread took the last one
            break
    _known[id(serialized)] = (serialized, found)
    return found


def slots(serialized: dict[str, Any] | None, inputs: Any, name: str) -> list[Given]:
    """The slots of a prompt that is about to be rendered: the template, then the variables."""
    given: list[Given] = []
    template = template_of(serialized)
    if template is not None:
        given.append(("template", "prompt", template.literals, name))
        given.extend((variable, "value", value) for variable, value in template.partial.items())
    if isinstance(inputs, dict):
        given.extend((str(variable), "value", value) for variable, value in inputs.items())
    else:  # LangChain takes the value of a sole variable bare
        variables = template.variables if template is not None else []
        given.append((variables[0] if len(variables) == 1 else "input", "value", inputs))
    return given


def _read(serialized: dict[str, Any]) -> Template | None:
    fields = serialized.get("kwargs")
    if not isinstance(fields, dict):
        return None
    messages: list[list[str]] = []
    _collect(serialized, "user", messages)
    if not messages:
        return None
    partial = {
        name: value
        for name, value in (fields.get("partial_variables") or {}).items()
        if not (isinstance(value, dict) and "lc" in value)  # a function: its value is not known here
    }
    return Template(Constant({"messages": messages}), list(fields.get("input_variables") or ()), partial)


def _collect(part: Any, role: str, into: list[list[str]]) -> None:
    """Add the literals of one serialized template, or of the templates inside it."""
    if isinstance(part, list):
        for one in part:
            _collect(one, role, into)
        return
    if not isinstance(part, dict) or not isinstance(part.get("kwargs"), dict):
        return
    fields, name = part["kwargs"], str((part.get("id") or [""])[-1])
    base = name.removesuffix("PromptTemplate").removesuffix("Chunk")
    role = _ROLES.get(base) or (str(fields.get("role") or "user") if base in ("ChatMessage", "DictMessage") else role)
    if name == "MessagesPlaceholder":
        into.append(["placeholder", str(fields.get("variable_name", ""))])
    elif isinstance(fields.get("template"), str):
        into.append([role, fields["template"]])
    elif isinstance(fields.get("content"), str):  # a message that stands in the template as it is
        into.append([role, fields["content"]])
    else:
        for key in ("prefix", "prompt", "messages", "example_prompt", "suffix"):
            value = fields.get(key)
            if isinstance(value, str):
                into.append([role, value])
            elif value is not None:
                _collect(value, role, into)
