"""The `random` module, derived: its hidden instance draws from a generator of the place.

The module's functions are methods bound to that instance, so a class of ours on it reaches them by whatever name and
however early a program took them. `random` and `getrandbits` alone are bound in C: they are replaced by name, and
where a project's module holds them. Beyond that they draw from the hidden state, which is seeded for the process.
"""

from __future__ import annotations

import os
import random
import sys
from types import FrameType, MethodType
from typing import Any

from clew.replay.ambient.draws import Draws, active
from clew.replay.ambient.patch import Patches
from clew.replay.ambient.stream import Stream

SOURCE = "random"
MISSED = "random.random or random.getrandbits by a name taken before"

_hidden: random.Random = random._inst
_bits = random.Random.getrandbits
_number = random.Random.random
_seed = random.Random.seed
_get = random.Random.getstate
_set = random.Random.setstate
_true = random.Random()  # for draws that stay truly random
_SETTING = {_seed.__code__, _set.__code__}


class Kept(tuple[Any, ...]):
    """The state of a place's generator, as `random.getstate` gave it out: a state like any other."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        return tuple, (tuple(self),)


class Derived(random.Random):
    """The class of the hidden instance meanwhile. Where the program seeded it, it is what it was."""

    def random(self) -> float:
        here = _here(sys._getframe(1))
        return _number(self) if here is None else here.random()

    def getrandbits(self, k: int, /) -> int:
        here = _here(sys._getframe(1))
        return _bits(self, k) if here is None else here.getrandbits(k)

    def getstate(self) -> tuple[Any, ...]:
        here = _here(sys._getframe(1), counts=False)
        return _get(self) if here is None else Kept(here.getstate())

    def setstate(self, state: tuple[Any, ...]) -> None:
        draws = active()
        if draws is not None and type(state) is Kept:
            draws.own.discard(SOURCE)
            here = _here(sys._getframe(1), counts=False)
            if here is not None:
                here.setstate(state)
        else:
            _set(self, state)

    @property
    def gauss_next(self) -> float | None:
        """The second of the two numbers that `gauss` makes at a time."""
        here = _here(sys._getframe(1), counts=False)
        held: float | None = vars(_hidden if here is None else here)["gauss_next"]
        return held

    @gauss_next.setter
    def gauss_next(self, value: float | None) -> None:
        frame = sys._getframe(1)
        if frame.f_code in _SETTING:  # `seed` and `setstate` are seen by this, by whatever name they were called
            _set_by_program(frame)
            vars(self)["gauss_next"] = value
        else:
            here = _here(frame, counts=False)
            vars(_hidden if here is None else here)["gauss_next"] = value


def _here(frame: FrameType, *, counts: bool = True) -> random.Random | None:
    """The generator to draw from in `frame`; None for the hidden instance's own state."""
    draws = active()
    if draws is None or SOURCE in draws.own:
        return None
    return draws.at(SOURCE, frame, _generator, counts=counts) or _true


def _generator(stream: Stream) -> random.Random:
    return random.Random(stream.number())


def _set_by_program(frame: FrameType) -> None:
    draws = active()
    if draws is None:
        return
    if frame.f_code is _seed.__code__ and frame.f_locals["a"] is None:  # a seed from the system is derived
        draws.own.discard(SOURCE)
        _seed_hidden(draws)
    else:
        draws.own.add(SOURCE)


def _seed_any(self: random.Random, a: Any = None, version: int = 2) -> None:
    """`Random.seed`, where a generator that is made or seeded without a seed gets a derived one."""
    draws = active()
    if a is None and draws is not None and self is not _hidden:
        stream = draws.stream(f"{SOURCE} seed", sys._getframe(1))
        a = None if stream is None else stream.number()
    _seed(self, a, version)


def patch(patches: Patches) -> None:
    """Derive until `unpatch`, while an activation is on."""
    _hidden.__class__ = Derived
    for name in ("random", "getrandbits", "getstate", "setstate"):
        patches.put(random, name, MethodType(getattr(Derived, name), _hidden))
    patches.put(random.Random, "seed", _seed_any)


def unpatch() -> None:
    """The hidden instance as it was, but for its state."""
    _hidden.__class__ = random.Random


def begin(draws: Draws) -> None:
    """Give the hidden state a derived one for the process."""
    draws.saved[SOURCE] = _state()
    _seed_hidden(draws)


def end(draws: Draws, *, last: bool) -> None:
    """The hidden state as it was before, but where the program seeded it and nothing else is on."""
    state = _state()
    if SOURCE not in draws.own and state != draws.base[SOURCE]:
        draws.unseen.setdefault(MISSED)
    if SOURCE not in draws.own or not last:
        _restore(draws.saved[SOURCE])


def _seed_hidden(draws: Draws) -> None:
    super(random.Random, _hidden).seed(draws.for_process(SOURCE).number())
    vars(_hidden)["gauss_next"] = None
    draws.base[SOURCE] = _state()


def _state() -> tuple[Any, Any]:
    return super(random.Random, _hidden).getstate(), vars(_hidden)["gauss_next"]


def _restore(state: tuple[Any, Any]) -> None:
    super(random.Random, _hidden).setstate(state[0])
    vars(_hidden)["gauss_next"] = state[1]


def _after_fork() -> None:
    _seed(_true)
    draws = active()
    if draws is not None and SOURCE not in draws.own:
        _seed_hidden(draws)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
