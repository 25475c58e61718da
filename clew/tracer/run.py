"""`clew.run`: an optional root for code that is not a graph.

with clew.run("answer", session="s-1") as run:
    ...
    run.output(answer)
clew.why(run)
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from clew.store.identifier import uuid7
from clew.tracer import context, init
from clew.tracer.capture import Given
from clew.tracer.span import OpenRun, OpenSpan

SEED = "clew.seed"  # attribute of a run's root: what random values in it are derived from


class run:  # noqa: N801 - used as a verb, like open()
    """One execution under one span. Works with `with` and `async with`; may stand inside another run. Entered again, after
    it ended, it is another run; RuntimeError while it is open.

    `seed` makes random values inside the same each time: those of `random`, `numpy.random`, `torch` and `uuid4` are derived
    from it and from the span path in which they are drawn, here and in a replay.

    `id` is the run's id (hex), None where clew is switched off. The answer is what `output` was given, else the last
    child run's answer, else the last boundary's response.
    """

    def __init__(
        self,
        name: str,
        *,
        session: str | None = None,
        seed: int | None = None,
        seeds: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a run is named by a text, not by {type(name).__name__}")
        if seeds is not None and not isinstance(seeds, Mapping):
            raise TypeError(f"seeds are a mapping, such as {{'numpy': 1}}, not {type(seeds).__name__}")
        if seed is not None and type(seed) is not int:
            raise TypeError(f"a seed is a whole number, not {type(seed).__name__}")
        self.name = name
        self.seed = seed
        self.session = None if session is None else str(session)
        self._seeds = dict(seeds or {})
        self._span: OpenSpan | None = None
        self._outputs: list[Given] = []
        self._current: Any = None
        self._derived: Any = None
        self._open = False

    def __repr__(self) -> str:
        return f"<clew run {self.name!r}{f', {self.id}' if self.id else ''}>"

    @property
    def id(self) -> str | None:
        """The run's id, 32 hex digits."""
        return self._span.run.run_id.hex() if self._span else None

    def output(self, value: Any, name: str = "answer") -> None:
        """Say what this run's answer is. It is recorded as it is now."""
        self._outputs.append((name, "value", value) if self._span is None else self._span.said(name, value))

    def __enter__(self) -> Self:
        if self._open:
            raise RuntimeError(f"{self!r} is open: a run inside it is another clew.run(...)")
        self._open, self._span, self._current = True, None, None
        tracer = init.ensure()
        if tracer is not None:
            with tracer.faults.guard("start of a run"):
                above = context.enclosing()
                session = self.session if self.session is not None else above.run.session if above else None
                opened = OpenRun(uuid7(), self.name, session, above.run if above else None, tracer.settings.project)
                opened.seeds = self._seeds
                about = None if self.seed is None else {SEED: self.seed}
                self._span = OpenSpan(tracer, "workflow", self.name, parent=above, run=opened, attributes=about)
                self._current = context.current(self._span)
                self._current.__enter__()
            if self.seed is not None and self._span is not None:
                with tracer.faults.guard("seed of a run"):
                    seeded = importlib.import_module("clew.replay.ambient.seeded")  # of a floor above
                    self._derived = seeded.derived(self.seed, self._span)
                    self._derived.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        outputs, self._outputs, self._open = self._outputs, [], False
        if self._span is None:
            return
        faults = self._span.tracer.faults
        with faults.guard("seed of a run"):
            if self._derived is not None:
                self._derived.__exit__(None, None, None)
                self._derived = None
        with faults.guard("end of a run"):
            if self._current is not None:
                self._current.__exit__(None, None, None)
        self._span.end(generated=outputs, answer=outputs, error=error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)
