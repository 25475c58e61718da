"""Patches: what is another thing in a replay than it was in the recorded run.

with clew.replay(run, mode="hybrid", patch=clew.Prompt("planner", "Plan in three steps.")) as again:
    graph.invoke({"question": "..."})

A patch takes the place of the program's own thing before the call is recorded, so that the replay's spans tell what was
really asked. Only what the change touches goes live: a call that asks the same as before has the same answer.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import importlib.util
import json
import string
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import msgspec

from clew.lineage.reader import Reader
from clew.replay.playback.prompt import SeenPrompt, find, prompts
from clew.replay.playback.reference import Reference
from clew.replay.playback.replayer import Replayer
from clew.replay.recording.recording import Recording
from clew.store import record
from clew.store.errors import Ambiguous, NotFound
from clew.tracer.boundary import Call
from clew.tracer.capture import Batch
from clew.tracer.credential import names_a_secret
from clew.tracer.init import Tracer

_INTEGRATIONS = {"langchain_core": "clew.integrations.langchain.substitution"}
_NOT_MODELLED = "a document was patched where it was found: what else would be found with it is not modelled"
Pairs = list[tuple[str, str]]


class InForce:
    """A patch in a running replay, and how often it was met. `about` is what it knows of the recorded run."""

    def __init__(self, patch: Patch, replayer: Replayer, about: Any = None) -> None:
        self.patch = patch
        self.replayer = replayer
        self.about = about
        self.count = 0
        self.made: dict[int, tuple[Any, Any]] = {}  # by identity: the program's own thing, and what stands in for it
        self.names: dict[int, tuple[str, str]] = {}  # by identity of the own: its name in span paths, and the other's
        self.lock = threading.Lock()

    def stands_in(self, thing: Any) -> bool:
        """Whether a thing is one of those that were put in the place of the program's own."""
        with self.lock:
            return any(thing is made for _, made in self.made.values())

    def own(self, thing: Any) -> tuple[Any, tuple[str, str] | None] | None:
        """What a thing stands in for, and the names of both in span paths where they are known."""
        with self.lock:
            return next(
                ((own, self.names.get(number)) for number, (own, made) in self.made.items() if made is thing), None
            )

    def met(self) -> None:
        """What is patched was used."""
        with self.lock:
            self.count += 1


_in_force: list[InForce] = []


def in_force(kind: type[Patch]) -> list[InForce]:
    """The patches of a kind that hold at this place."""
    return [one for one in _in_force if type(one.patch) is kind and one.replayer.acts_here()]


class Patch:
    """One change. `applied` holds it in force in a replay."""

    kind: ClassVar[str]
    substitutes: ClassVar[bool] = False  # a thing of the program's, before a framework's observers see it

    @property
    def title(self) -> str:
        """What is patched, for the certificate."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The patch as JSON has it, for another process. ValueError of one that holds more than data."""
        raise NotImplementedError

    def about(self, reader: Reader, recording: Recording) -> Any:
        """What must be known of the recorded run. NotFound and ValueError for what makes no sense in it."""
        return None

    def hold(self, force: InForce) -> None:
        """Say to the replayer what it is to answer otherwise."""

    @contextlib.contextmanager
    def applied(self, tracer: Tracer, replayer: Replayer) -> Iterator[None]:
        """In force inside."""
        force = InForce(self, replayer, self.about(Reader(tracer.folder.path), replayer.recording))
        with contextlib.ExitStack() as stack:
            if self.substitutes:
                for framework, module in _INTEGRATIONS.items():
                    if importlib.util.find_spec(framework) is not None:
                        stack.enter_context(importlib.import_module(module).substituting())
            self.hold(force)
            replayer.instead.patches.append(force)
            _in_force.append(force)
            try:
                yield
            finally:
                _in_force.remove(force)


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
        return _plain({"patch": self.kind, "name": self.name, "changes": self.changes}, self)


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


class Retrieved(Patch):
    """A document that says something else, wherever a retriever answers with it: `clew.Retrieved("d3", "new text")`.

    `which` is its id, its exact text or its digest. `metadata` replaces all of its own. Whether it would be found at all with
    its new text, and in which place, is not modelled: it stands where the old one stood, and its score is the old one's.
    """

    kind = "document"

    def __init__(self, which: str, text: str | None = None, metadata: dict[str, Any] | None = None) -> None:
        if text is None and metadata is None:
            raise ValueError("a document is patched by a text, by metadata, or by both")
        self.which = which
        self.text = text
        self.metadata = metadata

    @property
    def title(self) -> str:
        line = " ".join(self.which.split())
        return f"document {line if len(line) <= 60 else line[:59] + '…'!r}"

    def to_dict(self) -> dict[str, Any]:
        return _plain({"patch": self.kind, "which": self.which, "text": self.text, "metadata": self.metadata}, self)

    def hold(self, force: InForce) -> None:
        instead, before = force.replayer.instead, force.replayer.instead.change

        def changed(call: Call, response: Any) -> Any:
            response = response if before is None else before(call, response)
            return self._changed(force, call, response) if call.kind == "retriever" else response

        instead.change = changed

    def _changed(self, force: InForce, call: Call, response: Any) -> Any:
        if not isinstance(response, (list, tuple)):
            return response
        found = [self._one(force, one) for one in response]
        changed = [(one, other) for one, other in zip(response, found, strict=True) if one is not other]
        if not changed:
            return response
        scores = {} if call.span is None else call.span.facts.get("scored", {})
        for one, other in changed:
            if id(one) in scores:
                scores[id(other)] = (other, scores[id(one)][1])
        force.met()
        force.replayer.notes[_NOT_MODELLED] = None
        return type(response)(found)

    def _one(self, force: InForce, found: Any) -> Any:
        if isinstance(found, tuple) and found:  # with its score
            inner = self._one(force, found[0])
            return found if inner is found[0] else (inner, *found[1:])
        text = getattr(found, "page_content", None)
        if text is None or not (self.which in (text, getattr(found, "id", None)) or self._is_digest(force, found)):
            return found
        update: dict[str, Any] = {} if self.text is None else {"page_content": self.text}
        if self.metadata is not None:
            update["metadata"] = dict(self.metadata)
        return found.model_copy(update=update)

    def _is_digest(self, force: InForce, found: Any) -> bool:
        if not self.which.startswith("b3:") or len(self.which) < 11:
            return False
        return str(Batch(force.replayer.tracer.gate).part(found)[1]).startswith(self.which)


class Answer(Patch):
    """One recorded answer that is another one: `clew.Answer("5f3a", "No flights today.")`.

    `of` is the span of the recorded call, or its id or a unique prefix of it. `value` is what the call answers: of a
    model a text, a message or a dict with `content` and `tool_calls`; of a tool what it returns; of a retriever a list of documents
    (or of texts or dicts), of an embedding a vector, or a list of them for several texts. Tool calls without an id have
    the recorded ones.
    """

    kind = "answer"

    def __init__(self, of: Any, value: Any) -> None:
        self.of = str(getattr(of, "span_id", of))
        self.value = value

    @property
    def title(self) -> str:
        return f"answer of span {self.of}"

    def to_dict(self) -> dict[str, Any]:
        return _plain({"patch": self.kind, "of": self.of, "value": self.value}, self)

    def about(self, reader: Reader, recording: Recording) -> list[tuple[record.Answer, Any]]:
        """The recorded answers that it takes the place of, each with its own value."""
        calls = recording.calls
        fits = {one.span_id: one for one in calls if self.of and one.span_id.hex().startswith(self.of.lower())}
        if not fits:
            known = ", ".join(f"{one.span_id.hex()} ({one.kind} {one.name})" for one in calls[:8]) or "none"
            raise NotFound(f"no recorded call of this run has the span {self.of!r}; its calls: {known}")
        if len(fits) > 1:
            raise Ambiguous(
                f"span {self.of!r} fits {len(fits)} calls: {', '.join(one.hex() for one in list(fits)[:8])}"
            )
        (span_id,) = fits
        parts = [one for one in calls if one.span_id == span_id]
        values: list[Any] = [self.value]
        if parts[0].kind == "embedding" and not (self.value and isinstance(self.value[0], (int, float))):
            values = list(self.value)
            if len(values) != len(parts):
                raise ValueError(
                    f"span {self.of} answered {len(parts)} texts at once: it needs as many vectors, not {len(values)}"
                )
        return list(zip(parts, values, strict=True))

    def hold(self, force: InForce) -> None:
        for part, value in force.about:
            force.replayer.instead.answers[part.span_id, part.request] = functools.partial(self._made, force, value)

    def _made(self, force: InForce, value: Any, exchange: Any, entry: record.Answer, data: Callable[..., Any]) -> Any:
        force.met()
        recorded = None if entry.error or entry.missing else exchange.load(data(entry))
        return exchange.made(copy.deepcopy(value), recorded)


def from_dict(data: dict[str, Any]) -> Patch:
    """The patch of what `to_dict` made. ValueError for anything else."""
    fields = {name: value for name, value in data.items() if name != "patch"}
    try:
        match data.get("patch"):
            case "prompt":
                return Prompt(**fields)
            case "model":
                return Model(fields["name"], **fields["changes"])
            case "tool":
                return Tool(fields["name"], Reference(**fields["reference"]))
            case "document":
                return Retrieved(**fields)
            case "answer":
                return Answer(**fields)
    except (TypeError, KeyError) as error:
        raise ValueError(f"a patch that is none: {error}") from error
    raise ValueError(f"{data.get('patch')!r} is no patch that stands as data: prompt, model, tool, document or answer")


def _plain(data: dict[str, Any], patch: Patch) -> dict[str, Any]:
    try:
        if json.loads(json.dumps(data)) == data:
            return data
    except (TypeError, ValueError):
        pass
    raise ValueError(f"the patch of {patch.title} holds more than JSON can say, and cannot be given to another process")
