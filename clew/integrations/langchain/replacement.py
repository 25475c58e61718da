"""What stands in for a program's prompt, model or tool where it is patched: a copy that differs in what the patch says."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from langchain_core.messages import BaseMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.prompts.string import get_template_variables
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.tools import Tool as SimpleTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from clew.integrations.langchain.attachment import is_service
from clew.integrations.langchain.template import template_of
from clew.replay.playback.patch import InForce
from clew.replay.playback.patch_asked import replaced_message
from clew.store.encoding import qualified_name
from clew.store.errors import Unpatchable

T = TypeVar("T", bound=BaseModel)
_REACHING = (
    "base",
    "url",
    "key",
    "endpoint",
    "host",
    "proxy",
    "timeout",
    "headers",
    "organization",
    "retries",
    "client",
)


def copied(thing: T, **update: Any) -> T:
    """A copy of a pydantic object with other fields, and without what it had derived from its fields."""
    made: T = thing.model_copy(update=update)
    for name in list(made.__dict__):
        if isinstance(inspect.getattr_static(type(made), name, None), functools.cached_property):
            del made.__dict__[name]
    return made


# -- prompts


def says(template: Any, force: InForce) -> bool:
    """Whether a template has the messages of the recorded one."""
    known = template_of(getattr(template, "_serialized", None))
    if known is None:
        return False
    clean = force.replayer.tracer.gate.cleaner.text
    messages: list[list[str]] = known.literals.__dict__["messages"]
    return bool([[role, clean(text)] for role, text in messages] == force.about.messages)


def template(own: Any, force: InForce) -> Any:
    """The template with other messages. ValueError where it cannot have them."""
    patch: Any = force.patch
    made: Any
    if isinstance(own, PromptTemplate):
        text = patch.new if isinstance(patch.new, str) else _sole(patch.new, patch.name)
        variables = get_template_variables(text, own.template_format)
        made = copied(own, template=text, input_variables=_open(variables, own))
    elif isinstance(own, ChatPromptTemplate):
        made = _chat(own, force)
    else:
        raise Unpatchable(f"prompt {patch.name} is a {type(own).__name__}, of which no other one can be made")
    given = {*own.input_variables, *own.partial_variables, *own.optional_variables, *(force.about.variables or ())}
    if unknown := sorted(set(made.input_variables) - given):
        raise Unpatchable(
            f"prompt {patch.name} is given {', '.join(sorted(given))}, and the new one needs {', '.join(unknown)}"
        )
    return made


def _chat(own: ChatPromptTemplate, force: InForce) -> ChatPromptTemplate:
    patch: Any = force.patch
    kind = _format_of(own)
    if isinstance(patch.new, str):
        at = replaced_message(force.about.messages, patch.name)
        if len(own.messages) != len(force.about.messages):
            raise Unpatchable(f"prompt {patch.name} has messages of several parts: give all as (role, template) pairs")
        before = own.messages[at]
        if isinstance(before, BaseMessage):
            instead: Any = before.model_copy(update={"content": patch.new})
        else:
            prompt = PromptTemplate.from_template(patch.new, template_format=kind)
            instead = copied(before, prompt=prompt)
        messages: list[Any] = [*own.messages[:at], instead, *own.messages[at + 1 :]]
    else:
        places = {one.variable_name: one for one in own.messages if isinstance(one, MessagesPlaceholder)}
        messages = []
        for role, text in patch.new:
            if role == "placeholder":
                name = text.strip("{}")
                messages.append(places.get(name) or MessagesPlaceholder(name))
            else:
                messages += ChatPromptTemplate.from_messages([(role, text)], template_format=kind).messages
    return copied(own, messages=messages, input_variables=_open(ChatPromptTemplate(messages).input_variables, own))


def _sole(pairs: list[tuple[str, str]], name: str) -> str:
    if len(pairs) != 1:
        raise Unpatchable(f"prompt {name} is a text: it is replaced by a text")
    return pairs[0][1]


def _open(variables: list[str], own: Any) -> list[str]:
    return sorted(set(variables) - set(own.partial_variables) - set(own.optional_variables))


def _format_of(own: ChatPromptTemplate) -> Any:
    kinds = [getattr(getattr(one, "prompt", None), "template_format", None) for one in own.messages]
    return next((kind for kind in kinds if kind is not None), "f-string")


def messages(given: list[Any], found: list[InForce]) -> list[Any]:
    """Messages with other system messages where those of `found` stand."""
    return [_system(one, found) for one in given]


def _system(message: Any, found: list[InForce]) -> Any:
    if not isinstance(message, SystemMessage):
        return message
    for force in found:
        content = message.content
        if _clean(content, force.replayer.tracer.gate.cleaner.text) != force.about.content:
            continue
        patch: Any = force.patch
        text = patch.new if isinstance(patch.new, str) else patch.new[0][1]
        force.met()
        if isinstance(content, list) and content and isinstance(content[0], dict):  # such as one that a provider caches
            return message.model_copy(update={"content": [{**content[0], "text": text}]})
        return message.model_copy(update={"content": text})
    return message


def _clean(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_clean(part, clean) for part in value]
    return {key: _clean(part, clean) for key, part in value.items()} if isinstance(value, dict) else value


# -- models


def names_of(model: Any) -> set[str]:
    """What a model may be called: its name, and its class."""
    parameters = model._identifying_params
    told = [
        model._get_ls_params().get("ls_model_name"),
        *(getattr(model, name, None) for name in ("model", "model_name")),
        *(parameters.get(name) for name in ("model", "model_name")),
        model._llm_type,
        type(model).__name__,
        qualified_name(type(model)),
    ]
    return {one for one in told if isinstance(one, str)}


def model(own: Any, force: InForce) -> Any:
    """The model with other fields, or the other model. ValueError where it has no such field, or such a value."""
    patch: Any = force.patch
    if patch.instance is not None:
        return patch.instance
    cls = type(own)
    update = {}
    for name, value in patch.changes.items():
        field = name if name in cls.model_fields else _aliased(cls, name)
        if field is None:
            raise Unpatchable(f"{cls.__name__} has no field {name}; it has {', '.join(sorted(cls.model_fields))}")
        words = {*field.split("_"), *name.split("_")}
        if words & set(_REACHING) and any(is_service(one) for one in vars(own).values()):
            raise Unpatchable(f"the client of {patch.name} was made with {name}: patch the model by another instance")
        update[field] = _valid(cls, field, value)
    return copied(own, **update)


def _aliased(cls: Any, name: str) -> str | None:
    return next((field for field, about in cls.model_fields.items() if about.alias == name), None)


def _valid(cls: Any, field: str, value: Any) -> Any:
    about = cls.model_fields[field]
    annotation: Any = Annotated[(about.annotation, *about.metadata)] if about.metadata else about.annotation
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except PydanticSchemaGenerationError:
        return value
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise Unpatchable(f"the field {field} of {cls.__name__} cannot be {value!r}: {why}") from error


# -- tools


def tool(own: Any, force: InForce) -> Any:
    """The tool with another function, or the other tool, under the same name."""
    patch: Any = force.patch
    instead = patch.instead
    if isinstance(instead, BaseTool):
        return instead if instead.name == own.name else copied(instead, name=own.name)
    is_async = any(inspect.iscoroutinefunction(one) for one in (instead, type(instead).__call__))
    functions: dict[str, Any] = {"func": None if is_async else instead, "coroutine": instead if is_async else None}
    if isinstance(own, (StructuredTool, SimpleTool)):
        return copied(own, **functions)
    kept = ("return_direct", "response_format", "handle_tool_error", "handle_validation_error", "tags", "metadata")
    return StructuredTool(
        name=own.name,
        description=own.description,
        args_schema=own.args_schema or own.get_input_schema(),
        callbacks=own.callbacks,
        **{**functions, **{name: getattr(own, name) for name in kept}},
    )


def definition(shown: Any, found: list[InForce]) -> Any:
    """A tool's definition as a model is shown it, with what another tool object says of itself."""
    if not isinstance(shown, dict):
        return shown
    inner = shown.get("function")
    name = inner.get("name") if isinstance(inner, dict) else shown.get("name")
    force = next((one for one in found if getattr(one.patch, "name", None) == name), None)
    if force is None:
        return shown
    patch: Any = force.patch
    told = {**convert_to_openai_tool(patch.instead)["function"], "name": name}
    if isinstance(inner, dict):
        changed = {**shown, "function": {**inner, **told}}
    else:
        schema = "input_schema" if "input_schema" in shown else "parameters"
        changed = {**shown, "description": told["description"], schema: told.get("parameters")}
    if changed != shown:
        force.met()
    return changed
