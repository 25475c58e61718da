"""Patches: what is another thing in a replay than it was in the recorded run.

with clew.replay(run, mode="hybrid", patch=clew.Prompt("planner", "Plan in three steps.")) as again:
    graph.invoke({"question": "..."})

A patch takes the place of the program's own thing before the call is recorded, so that the replay's spans tell what was
really asked. Only what the change touches goes live: a call that asks the same as before has the same answer.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import json
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

from clew.lineage.reader import Reader
from clew.lineage.view import SpanView
from clew.replay.playback.inside import around
from clew.replay.playback.replayer import Replayer
from clew.replay.recording.recording import Recording
from clew.store import record
from clew.tracer.init import Tracer

_INTEGRATIONS = {"langchain_core": "clew.integrations.langchain.substitution"}


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
        self._around: set[str] | None = None

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

    def is_inside(self, call: record.Answer) -> bool:
        """Whether a recorded call did what is patched: its answer then depends on it."""
        with self.lock:
            if self._around is None:
                runs = {self.replayer.recording.run_id, *(one.run_id.hex() for one in self.replayer.recording.calls)}
                reader, touches = Reader(self.replayer.tracer.folder.path), self.patch.touches
                self._around = around(reader, runs, functools.partial(touches, self.about))
            return call.span_id.hex() in self._around


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

    def touches(self, about: Any, span: SpanView) -> bool:
        """Whether a recorded span is of what is patched; `about` is what is known of the run."""
        raise NotImplementedError

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


def plain(data: dict[str, Any], patch: Patch) -> dict[str, Any]:
    """The data of a patch. ValueError where it is more than JSON can say."""
    try:
        if json.loads(json.dumps(data)) == data:
            return data
    except (TypeError, ValueError):
        pass
    raise ValueError(f"the patch of {patch.title} holds more than JSON can say, and cannot be given to another process")
