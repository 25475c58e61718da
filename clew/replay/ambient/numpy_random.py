"""`numpy.random`, derived: its global state stands for a generator of the place, and what is made without a seed gets
a derived one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from clew.replay.ambient.draws import Draws, active
from clew.replay.ambient.patch import Patches
from clew.replay.ambient.stream import Stream

SOURCE = "numpy"
MODULE = "numpy.random"
MISSED = "numpy.random by a name taken before"

_SEED_BYTES = 16


class _KeptTuple(tuple[Any, ...]):
    """The state of a place's generator, as `get_state` gave it out."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        return tuple, (tuple(self),)


class _KeptDict(dict[str, Any]):
    """The same in numpy's newer form."""

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


_KEPT: dict[type, Any] = {tuple: _KeptTuple, dict: _KeptDict}


def patch(patches: Patches) -> None:
    """Derive until it is undone, while an activation is on."""
    module = sys.modules[MODULE]
    legacy, entropy = sys.modules[f"{MODULE}.mtrand"], sys.modules[f"{MODULE}.bit_generator"]
    real = legacy._rand
    stand_in = _stand_in(real)
    patches.put(legacy, "_rand", stand_in)
    for owner in (module, legacy):
        for name, value in list(vars(owner).items()):
            if getattr(value, "__self__", None) is real:  # a method of the global state
                patches.put(owner, name, getattr(stand_in, value.__name__))
    patches.put(entropy, "randbits", _derived_bits(entropy.randbits))


def begin(draws: Draws) -> None:
    """Give the global state a derived one for the process."""
    real = _real()
    draws.saved[SOURCE] = real.get_state(legacy=False)
    _seed_global(draws)


def end(draws: Draws, *, last: bool) -> None:
    """The global state as it was before, but where the program seeded it and nothing else is on."""
    if SOURCE not in draws.saved:  # numpy was imported by none
        return
    real = _real()
    if SOURCE not in draws.own and not _same(real.get_state(legacy=False), draws.base[SOURCE]):
        draws.unseen.setdefault(MISSED)
    if SOURCE not in draws.own or not last:
        real.set_state(draws.saved[SOURCE])


def _real() -> Any:
    state = sys.modules[f"{MODULE}.mtrand"]._rand
    return getattr(state, "clew_real", state)


def _seed_global(draws: Draws) -> None:
    real = _real()
    real.seed(_seed_of(draws.for_process(SOURCE)))
    draws.base[SOURCE] = real.get_state(legacy=False)


def _stand_in(real: Any) -> Any:
    """A RandomState whose methods are those of the place's generator, or of `real` where the program seeded it."""
    kind = type(real)

    def method(name: str) -> Callable[..., Any]:
        def drawn(self: Any, *arguments: Any, **named: Any) -> Any:
            return getattr(_here(real, sys._getframe(1)), name)(*arguments, **named)

        drawn.__name__ = name
        drawn.__doc__ = getattr(kind, name).__doc__
        return drawn

    def seed(self: Any, seed: Any = None) -> None:
        draws = active()
        if draws is not None and seed is None:  # a seed from the system is derived
            draws.own.discard(SOURCE)
            _seed_global(draws)
            return
        if draws is not None:
            draws.own.add(SOURCE)
        real.seed(seed)

    def get_state(self: Any, legacy: bool = True) -> Any:
        here = _here(real, sys._getframe(1), counts=False)
        state = here.get_state(legacy=legacy)
        return state if here is real else _KEPT[type(state)](state)

    def set_state(self: Any, state: Any) -> None:
        draws = active()
        if draws is not None:
            if type(state) in _KEPT.values():
                draws.own.discard(SOURCE)
            else:
                draws.own.add(SOURCE)
        _here(real, sys._getframe(1), counts=False).set_state(state)

    own = {"seed": seed, "get_state": get_state, "set_state": set_state}
    methods = {name: method(name) for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))}
    return type("RandomState", (kind,), {**methods, **own, "clew_real": real})(0)


def _here(real: Any, frame: FrameType, *, counts: bool = True) -> Any:
    draws = active()
    if draws is None or SOURCE in draws.own:
        return real
    return draws.at(SOURCE, frame, _generator, counts=counts) or real


def _generator(stream: Stream) -> Any:
    module = sys.modules[MODULE]
    return module.RandomState(module.MT19937(stream.number()))  # `RandomState(seed)` draws from the system first


def _seed_of(stream: Stream) -> list[int]:
    return [stream.number(4) for _ in range(_SEED_BYTES)]


def _derived_bits(real: Callable[[int], int]) -> Callable[[int], int]:
    def randbits(k: int) -> int:
        draws = active()
        stream = draws.stream(f"{SOURCE} seed", sys._getframe(1)) if draws is not None else None
        return real(k) if stream is None else stream.number((k + 7) // 8) >> (-k % 8)

    return randbits


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool((one["state"]["key"] == other["state"]["key"]).all()) and (
        one["state"]["pos"] == other["state"]["pos"] and one["gauss"] == other["gauss"]
    )
