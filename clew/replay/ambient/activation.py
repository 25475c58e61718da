"""An activation: while it is on, random values of this process are derived from a seed and the place of the draw."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import MappingProxyType, TracebackType
from typing import Any, Self

from clew.replay.ambient import clock as clocks
from clew.replay.ambient import entropy, generator, identifier, numpy_random, torch_random
from clew.replay.ambient.clock import Recalled
from clew.replay.ambient.draws import ACTIVE, Draws
from clew.replay.ambient.late_import import LateImport
from clew.replay.ambient.patch import Patches
from clew.replay.ambient.travel import Travel
from clew.tracer import branch

_OPTIONAL: dict[str, Any] = {numpy_random.MODULE: numpy_random, torch_random.MODULE: torch_random}
UNKNOWN = (  # what may have been drawn, and is not seen
    "maybe random generators made before the replay began (make them later, or seed them)",
    "maybe random values of C extensions",
)
_lock = threading.RLock()
_put_back = ExitStack()  # what undoes the patches of the process
_sources: list[Any] = []  # those that are patched and have a state for the process


class Ambient:
    """Derives `random`, `numpy.random`, `uuid4` and torch's seed from `seed` and `place()`, the span path of a draw.

    `clock(place, n)` is the recorded n-th reading of `clew.now` at a place, and `moment()` when the enclosing span was
    recorded to begin, both in nanoseconds since the epoch or None. With a `moment` the program's own readings of
    `datetime.now`, `time.time` and their like are told it; MissingExtra is raised if `clew[clock]` is not there.

    A source that the program seeds itself is its own from then on. An activation may be entered more than once and in
    several threads; of several the newest counts whose part it is what draws (`holds()` says so), and the last one to
    end leaves everything as it was found.
    """

    def __init__(
        self,
        seed: bytes,
        *,
        place: Callable[[], str] = clocks.here,
        clock: Callable[[str, int], int | None] | None = None,
        moment: Callable[[], int | None] | None = None,
        holds: Callable[[], bool] = lambda: True,
    ) -> None:
        self._draws = Draws(seed, place, holds)
        self._recalled = Recalled(clock, moment, holds) if clock is not None else None
        self._travel = Travel(moment, self._draws.count) if moment is not None else None
        self._depth = 0

    @property
    def draws(self) -> Mapping[str, int]:
        """How many values were drawn: the program's own by source ("random", "numpy", "torch", "uuid4", "clock"
        for `clew.now`, "system clock"; "random seed" and "numpy seed" are generators that were made without one), those
        of installed distributions by "SOURCE by NAME"."""
        counts = dict(self._draws.counts)
        if self._recalled is not None and self._recalled.readings:
            counts["clock"] = self._recalled.readings
        return MappingProxyType(counts)

    @property
    def unseen(self) -> list[str]:
        """What was used, or may have been, and is not derived."""
        return [*self._draws.unseen, *UNKNOWN]

    def __enter__(self) -> Self:
        with _lock:
            if self._depth == 0:
                _begin(self._draws)
                if self._recalled is not None:
                    clocks.listeners.append(self._recalled)
                if self._travel is not None:
                    self._travel.start()
            self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _lock:
            self._depth -= 1
            if self._depth == 0:
                if self._travel is not None:
                    self._travel.stop()
                if self._recalled is not None:
                    clocks.listeners.remove(self._recalled)
                _end(self._draws)


def _begin(draws: Draws) -> None:
    if not ACTIVE:
        _patch()
    for source in _sources:
        source.begin(draws)
    ACTIVE.append(draws)
    branch.wanted.append(draws)


def _end(draws: Draws) -> None:
    branch.wanted.remove(draws)
    where = ACTIVE.index(draws)
    if where == len(ACTIVE) - 1:
        ACTIVE.pop()
        for source in _sources:
            source.end(draws, last=not ACTIVE)
    else:  # a newer one goes on, and finds in the end what this one found
        ACTIVE[where + 1].saved = draws.saved
        ACTIVE.remove(draws)
    if not ACTIVE:
        _put_back.close()


def _patch() -> None:
    patches = Patches()
    with ExitStack() as undo:
        undo.callback(_sources.clear)
        undo.callback(patches.undo)
        generator.patch(patches)
        undo.callback(generator.unpatch)
        _sources.append(generator)
        identifier.patch(patches)
        undo.callback(identifier.unpatch)
        entropy.patch(patches)
        for name, source in _OPTIONAL.items():
            if _imported(name):
                source.patch(patches)
                _sources.append(source)
        patches.spread()

        def late(name: str) -> None:
            with _lock:
                source = _OPTIONAL[name]
                if ACTIVE and source not in _sources:
                    source.patch(patches)
                    _sources.append(source)
                    for draws in ACTIVE:
                        source.begin(draws)

        finder = LateImport(frozenset(_OPTIONAL), late)
        sys.meta_path.insert(0, finder)
        undo.callback(sys.meta_path.remove, finder)
        _put_back.push(undo.pop_all())


def _imported(name: str) -> bool:
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return module is not None and not getattr(spec, "_initializing", False)
