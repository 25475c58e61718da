"""Where patches of a replay take the place of a program's prompts, models and tools: at LangChain's public methods, so
that callbacks and boundaries see what is really asked.

The wrappers are there while a replay has such a patch, and act inside that replay only.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.prompts import BasePromptTemplate
from langchain_core.tools import BaseTool

from clew.integrations.langchain import replacement
from clew.integrations.langchain.model import name_of
from clew.replay.ambient.patch import Patches
from clew.replay.playback.patch import InForce, in_force
from clew.replay.playback.patch_asked import Model, Prompt, Tool
from clew.tracer import boundary

Function = Callable[..., Any]
_TEMPLATE = ("invoke", "format", "format_prompt", "format_messages")
_TOOL = ("invoke", "run")
_MANY = ("generate", "agenerate")  # take lists of lists of messages
_ONE = ("stream", "astream", "stream_events", "astream_events")
_within: ContextVar[bool] = ContextVar("clew-patched-template", default=False)
_wrapped = Patches()
_users = 0
_lock = threading.Lock()


@contextlib.contextmanager
def substituting() -> Iterator[None]:
    """The wrappers in place inside."""
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _put()
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _wrapped.undo()


def _put() -> None:
    for name in (*_MANY, *_ONE):
        _wrap(BaseChatModel, name, _model)
        _wrap(BaseLLM, name, _model)
    for base, names, wrap in ((BasePromptTemplate, _TEMPLATE, _template), (BaseTool, _TOOL, _tool)):
        for cls in _with_subclasses(base):
            for name in names:
                _wrap(cls, name, wrap)
                _wrap(cls, f"a{name}", wrap)


def _wrap(cls: type, name: str, wrap: Callable[[str, Function], Function]) -> None:
    original = cls.__dict__.get(name)
    if inspect.isfunction(original) and not getattr(original, "__isabstractmethod__", False):
        _wrapped.put(cls, name, functools.wraps(original)(wrap(name, original)))


def _with_subclasses(base: type) -> list[type]:
    found: list[type] = [base]
    for cls in found:  # grows while it is read
        below: list[type] = cls.__subclasses__()
        found.extend([one for one in below if one not in found])
    return found


# -- prompts


def _template(name: str, original: Function) -> Function:
    """The outermost method of a template decides for all templates inside it."""

    def plain(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _within.get():
            return original(self, *args, **kwargs)
        self, method = _instead_of_template(self), name
        token = _within.set(True)
        try:
            return getattr(self, method)(*args, **kwargs)
        finally:
            _within.reset(token)

    async def awaited(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _within.get():
            return await original(self, *args, **kwargs)
        self = _instead_of_template(self)
        token = _within.set(True)
        try:
            return await getattr(self, name)(*args, **kwargs)
        finally:
            _within.reset(token)

    return awaited if inspect.iscoroutinefunction(original) else plain


def _instead_of_template(template: Any) -> Any:
    for force in in_force(Prompt):
        if force.about.kind == "template" and replacement.says(template, force):
            force.met()
            return _made(force, template, replacement.template)
    return template


# -- models


def _model(name: str, original: Function) -> Function:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = _literals()
        if found and isinstance(self, BaseChatModel):
            args, kwargs = _with_messages(self, name, args, kwargs, found)
        definitions = [
            force
            for force in in_force(Tool)
            if hasattr(force.patch, "instead") and hasattr(force.patch.instead, "invoke")
        ]
        if definitions and kwargs.get("tools"):
            kwargs["tools"] = [replacement.definition(one, definitions) for one in kwargs["tools"]]
        other = _instead_of_model(self, kwargs)
        return original(self, *args, **kwargs) if other is self else getattr(other, name)(*args, **kwargs)

    async def awaited(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await call(self, *args, **kwargs)

    return awaited if inspect.iscoroutinefunction(original) else call


def _literals() -> list[InForce]:
    return [force for force in in_force(Prompt) if force.about.kind != "template"]


def _with_messages(
    model: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], found: list[InForce]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    place = "messages" if name in _MANY else "input"
    given = args[0] if args else kwargs[place]
    if name in _MANY:
        given = [replacement.messages(one, found) for one in given]
    else:
        given = replacement.messages(model._convert_input(given).to_messages(), found)
    return ((given, *args[1:]), kwargs) if args else (args, {**kwargs, place: given})


def _instead_of_model(model: Any, kwargs: dict[str, Any]) -> Any:
    for force in in_force(Model):
        patch = force.patch
        assert isinstance(patch, Model)
        if _stands_in(force, "llm", model) or patch.name not in replacement.names_of(model):
            continue
        own, model = model, _made(force, model, replacement.model)
        kwargs.update((name, value) for name, value in patch.changes.items() if name in kwargs)
        force.met()
        if id(own) not in force.names:
            force.names[id(own)] = (name_of(own), name_of(model))
    return model


# -- tools


def _tool(name: str, original: Function) -> Function:
    def plain(self: Any, *args: Any, **kwargs: Any) -> Any:
        other = _instead_of_tool(self)
        return original(self, *args, **kwargs) if other is self else getattr(other, name)(*args, **kwargs)

    async def awaited(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await plain(self, *args, **kwargs)

    return awaited if inspect.iscoroutinefunction(original) else plain


def _instead_of_tool(tool: Any) -> Any:
    for force in in_force(Tool):
        assert isinstance(force.patch, Tool)
        if tool.name == force.patch.name and not _stands_in(force, "tool", tool):
            force.met()
            return _made(force, tool, replacement.tool)
    return tool


# -- what stands in


def _made(force: InForce, own: Any, make: Callable[[Any, InForce], Any]) -> Any:
    """What stands in for the program's own thing: one for each, so that what is remembered of it is remembered once."""
    with force.lock:
        known = force.made.get(id(own))
        if known is None:
            known = force.made[id(own)] = (own, make(own, force))  # held, so that its identity stays its own
        return known[1]


def _stands_in(force: InForce, kind: str, thing: Any) -> bool:
    """Whether a thing stands in for another one already, or is used by one that does."""
    with force.lock:
        made = [made for _, made in force.made.values()]
    return any(thing is one or boundary.is_open(kind, one) for one in made)
