"""`clew.replay`: a run again, with its recorded answers.

with clew.replay(run, mode="strict") as again:
    graph.invoke({"question": "..."})
print(again.certificate)
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import Any, Self

from clew.lineage.reader import Reader
from clew.replay.playback.certificate import Certificate
from clew.replay.playback.outcome import concluded
from clew.replay.playback.replayer import Replayer
from clew.replay.playback.surroundings import Surroundings
from clew.replay.playback.terms import Prices, Terms, terms
from clew.replay.recording.recorder import Recorder
from clew.replay.recording.recording import Recording, load
from clew.replay.stack import stack_of
from clew.store.errors import ReplayMiss
from clew.store.identifier import uuid7
from clew.tracer import context, init
from clew.tracer.init import Tracer
from clew.tracer.span import OpenRun, OpenSpan


class replay:  # noqa: N801 - used as a verb, like open()
    """Run the code inside with what `run` was answered: `with clew.replay(run) as again`. A replay is a run of its own.

    `run` is a run, its id or a unique prefix, recorded with `clew.init(record=True)`. `mode` is "strict" (nothing goes
    live: a call that was not recorded is a ReplayMiss, and so is what follows it), "hybrid" (such calls go live) or
    "plan" (a dry run: what surely would). `patch` is a patch or a list of them (patch.py): what is another thing than it
    was. `allow`, `budget`, `max_calls`, `prices`, `pace` and `ordered` are those of `Terms`. `travel` has
    `datetime.now()` and its like tell when the enclosing span was recorded to begin (it needs `clew[clock]`), and `hosts`
    stay within reach where nothing else does. It is today's code that runs; `clew replay RUN` runs the recorded one.

    `certificate` is there after the block. NotRecorded, NotFound and ValueError are raised on entering; a ReplayMiss
    that the program swallowed is raised at the end.
    """

    def __init__(
        self,
        run: Any,
        *,
        mode: str = "strict",
        patch: Any = (),
        allow: Collection[str] | None = None,
        budget: float | None = None,
        max_calls: int | None = None,
        prices: Prices | None = None,
        pace: float = 0.0,
        ordered: bool = False,
        travel: bool = False,
        hosts: Collection[str] = (),
    ) -> None:
        self.terms: Terms = terms(
            mode, allow, prices, budget=budget, max_calls=max_calls, pace=float(pace), ordered=ordered
        )
        self._run = run
        self._travel, self._hosts = travel, tuple(hosts)
        self._patches: list[Any] = list(patch) if isinstance(patch, (list, tuple)) else [patch]
        for one in self._patches:
            if not hasattr(one, "applied"):
                raise ValueError(f"a patch is a clew.Prompt, Model, Tool, Retrieved or Answer, not {one!r}")
        self._certificate: Certificate | None = None
        self._span: OpenSpan | None = None
        self._exit = contextlib.ExitStack()
        self._outputs: list[Any] = []

    @property
    def id(self) -> str | None:
        """The replay's own run id."""
        return self._span.run.run_id.hex() if self._span else None

    @property
    def certificate(self) -> Certificate:
        """What the replay was. RuntimeError before its end."""
        if self._certificate is None:
            raise RuntimeError("the certificate of a replay is there when it has ended")
        return self._certificate

    @property
    def plan(self) -> list[Any]:
        """The calls that went live, or that surely would."""
        return self.certificate.live

    def output(self, value: Any, name: str = "answer") -> None:
        """Say what this replay's answer is, as `clew.run` does."""
        self._outputs.append((name, "value", value))

    def __enter__(self) -> Self:
        tracer = init.current()
        if self._span is not None:
            raise RuntimeError("a replay is entered once: for another one, call clew.replay again")
        if not tracer.settings.capture:
            raise ValueError("a replay records what is asked, and clew.init was told capture=False")
        tracer.flush()
        reader = Reader(tracer.folder.path)
        self.recording: Recording = load(reader, self._run)
        opened = OpenRun(uuid7(), f"replay of {self.recording.name}", None, None, tracer.settings.project)
        opened.replay_of = bytes.fromhex(self.recording.run_id)
        self.replayer = Replayer(tracer, self.recording, reader.store, self.terms, opened)
        with self._exit:
            self._exit.enter_context(installed(tracer, self.replayer))
            for one in self._patches:
                self._exit.enter_context(one.applied(tracer, self.replayer))
            self._span = OpenSpan(tracer, "workflow", opened.name, parent=context.enclosing(), run=opened)
            self.replayer.root_path = self._span.path
            self._exit.enter_context(context.current(self._span))
            self._around = Surroundings(self.replayer, reader, travel=self._travel, hosts=self._hosts)
            self._exit.enter_context(self._around.entered())
            self._exit = self._exit.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._exit.close()
        self.replayer.open = False
        span, replayer = self._span, self.replayer
        assert span is not None
        if error is None:
            error = replayer.failed
            swallowed = error is not None
        else:
            swallowed = False
        outputs, self._outputs = self._outputs, []
        self._certificate = concluded(replayer, self._around, span, error, outputs)
        if self.terms.mode == "plan":
            return isinstance(error, ReplayMiss)  # where the plan ends
        if swallowed:
            assert error is not None
            raise error
        return False

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return self.__exit__(kind, error, traceback)


@contextlib.contextmanager
def installed(tracer: Tracer, replayer: Replayer) -> Iterator[None]:
    """The replayer in the seam of a tracer; what it answers and asks is recorded."""
    stack = stack_of(tracer)
    recorder = stack.recorder
    stack.recorder = recorder or Recorder(tracer)
    stack.replayers.append(replayer)
    stack.arrange()
    try:
        yield
    finally:
        stack.replayers.remove(replayer)
        stack.recorder = recorder
        stack.arrange()
