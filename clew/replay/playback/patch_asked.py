"""Patches of what is asked: a prompt, a model or a tool that is another one."""

from __future__ import annotations

import string
from typing import Any

import msgspec

from clew.lineage.reader import Reader
from clew.lineage.view import SpanView
from clew.replay.playback.patch import Patch, plain
from clew.replay.playback.prompt import SeenPrompt, find, prompts, says
from clew.replay.playback.reference import Reference
from clew.replay.recording.recording import Recording
from clew.tracer.credential import names_a_secret

Pairs = list[tuple[str, str]]


class Prompt(Patch):
    """A prompt that says something else: `clew.Prompt("planner", "Plan in three steps.")`.

    `name` is one of those that `clew show RUN --prompts` lists (or a digest there). `new` is a text, in the place of the system message
    or of a template's only message; or a list of (role, template) pairs, in the place of all messages of a template. A
    variable that the old prompt was not given is a ValueError, an unknown name is NotFound, both before anything runs.
    """

    kind = "prompt"
    substitutes = True

    def __init__(self, name: str, new: str | Pairs) -> None:
        if not isinstance(new, str):
            new = [(str(role), str(text)) for role, text in new]
            if not new:
                raise ValueError("a prompt without a message")
        self.name = name
        self.new = new

    @property
    def title(self) -> str:
        return f"prompt {self.name!r}"

    def to_dict(self) -> dict[str, Any]:
        new = self.new if isinstance(self.new, str) else [list(pair) for pair in self.new]
        return {"patch": self.kind, "name": self.name, "new": new}

    def about(self, reader: Reader, recording: Recording) -> SeenPrompt:
        runs = [recording.run_id]
        if recording.whole:
            runs += sorted({entry.run_id.hex() for _, entry in recording.entries} - {recording.run_id})
        found = find(prompts(reader, runs), self.name)
        if found.kind != "template":
            self._check_literal(found)
        else:
            self._check_template(found)
        return found

    def touches(self, about: SeenPrompt, span: SpanView) -> bool:
        return says(span, about)

    def _check_literal(self, found: SeenPrompt) -> None:
        if not isinstance(self.new, str) and [role for role, _ in self.new] != ["system"]:
            raise ValueError(
                f"{found.name} is a system message: it is replaced by a text, or by one (system, text) pair"
            )

    def _check_template(self, found: SeenPrompt) -> None:
        if isinstance(self.new, str):
            replaced_message(found.messages, found.name)
        given = found.variables or frozenset()
        before = [_variables(text) for role, text in found.messages if role != "placeholder"]
        if not all(names is not None and names <= given for names in before):
            return  # of another template format than f-strings: it is looked at where it is used
        texts = [self.new] if isinstance(self.new, str) else [text for role, text in self.new if role != "placeholder"]
        after = set()
        for text in texts:
            names = _variables(text)
            if names is None:
                raise ValueError(
                    f"the new text of prompt {found.name} is no template: a brace stands alone (write {{{{ or }}}})"
                )
            after.update(names)
        if unknown := sorted(after - given):
            raise ValueError(
                f"prompt {found.name} is given {', '.join(sorted(given)) or 'no variables'}, and the new one needs "
                f"{', '.join(unknown)} (a brace that is text is written twice: {{{{ }}}})"
            )


def replaced_message(messages: list[list[str]], name: str) -> int:
    """Which message of a template a text takes the place of: its only one, else its system message. ValueError where
    that is none."""
    real = [at for at, (role, _) in enumerate(messages) if role != "placeholder"]
    systems = [at for at in real if messages[at][0] == "system"]
    if len(real) == 1:
        return real[0]
    if len(systems) == 1:
        return systems[0]
    raise ValueError(
        f"prompt {name} has {len(real)} messages, {len(systems)} of them of the system: give all as (role, template) pairs"
    )


def _variables(text: str) -> set[str] | None:
    """The variables of an f-string template; None of what is none."""
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(text) if field is not None]
    except ValueError:
        return None
    return {field.partition(".")[0].partition("[")[0] for field in fields}


class Model(Patch):
    """A model with other fields, `clew.Model("gpt-4o-mini", temperature=0)`, or another one in its place,
    `clew.Model("gpt-4o-mini", ChatAnthropic(...))`.

    `name` is the model's name as spans show it, or its class's. Fields are those of its class, or their aliases; one
    that the model's client was made of (its address, its key) needs another instance. Tools that are bound to it stay
    as the program bound them.
    """

    kind = "model"
    substitutes = True

    def __init__(self, name: str, instance: Any = None, /, **changes: Any) -> None:
        if (instance is None) == (not changes):
            raise ValueError("a model is patched by fields, such as temperature=0, or by another instance")
        self.name = name
        self.instance = instance
        self.changes = changes

    @property
    def title(self) -> str:
        told = ", ".join(
            f"{name}={'…' if names_a_secret(name) else repr(value)}" for name, value in self.changes.items()
        )
        return f"model {self.name!r} ({told or type(self.instance).__name__})"

    def to_dict(self) -> dict[str, Any]:
        if self.instance is not None:
            raise ValueError(f"the patch of {self.title} holds an object, which another process cannot be given")
        return plain({"patch": self.kind, "name": self.name, "changes": self.changes}, self)

    def touches(self, about: Any, span: SpanView) -> bool:
        slot = next((one for one in span.used if one.role == "model"), None) if span.kind == "llm" else None
        if slot is None:
            return span.kind == "llm"
        told = {**slot.value["parameters"], **slot.value}
        known = {slot.name, span.name, *(told.get(name) for name in ("model", "model_name", "_type", "class"))}
        return self.name in known or self.name == told["class"].rpartition(".")[2]


class Tool(Patch):
    """Another implementation of a tool: `clew.Tool("search", my_search)`, or `clew.Tool("search", "module:my_search")`.

    It is given what the program's tool is given. A function takes the place of the tool's own, which keeps its
    definition; a tool object brings its own definition and description, and models are shown those. One that is named
    is imported when it is first needed (reference.py says which module is meant), and can be given to another process.
    """

    kind = "tool"
    substitutes = True

    def __init__(self, name: str, instead: Any) -> None:
        self.name = name
        self.reference = Reference.parsed(instead) if isinstance(instead, str) else None
        if isinstance(instead, Reference):
            self.reference = instead
        elif self.reference is None and not callable(instead) and not hasattr(instead, "invoke"):
            raise ValueError(f"a tool is replaced by a function or by another tool, not by a {type(instead).__name__}")
        self._instead = None if self.reference is not None else instead

    @property
    def instead(self) -> Any:
        """The function or the tool. Unpatchable where it was named and cannot be imported."""
        if self._instead is None:
            assert self.reference is not None
            self._instead = self.reference.load()
        return self._instead

    @property
    def title(self) -> str:
        return f"tool {self.name!r}" + (f" ({self.reference})" if self.reference is not None else "")

    def to_dict(self) -> dict[str, Any]:
        if self.reference is None:
            raise ValueError(
                f"the patch of {self.title} is code, which another process cannot be given as data: name it, "
                f"clew.Tool({self.name!r}, 'module:function')"
            )
        return {"patch": self.kind, "name": self.name, "reference": msgspec.to_builtins(self.reference.located())}

    def touches(self, about: Any, span: SpanView) -> bool:
        # Models are shown the definition of a tool object; what was named is not imported before the program needs it.
        roles = ("tool",) if self._instead is not None and not hasattr(self._instead, "invoke") else ("tool", "tools")
        return any(one.role in roles and one.name == self.name for one in span.used)
