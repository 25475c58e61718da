"""torch's global generators: seeded once from the run's seed, since they have one state for the whole process."""

from __future__ import annotations

import sys
from typing import Any

from clew.replay.ambient.draws import Draws, active
from clew.replay.ambient.patch import Patches

SOURCE = "torch"
MODULE = "torch"
ONE_FOR_ALL = "torch: one seed for the process, so draws of several threads depend on their order"

_SETTING = ("manual_seed", "seed", "set_rng_state")


def patch(patches: Patches) -> None:
    """See until it is undone whether the program seeds torch itself."""
    for name in _SETTING:
        seen = _seen(getattr(sys.modules[MODULE], name))
        for owner in (sys.modules[MODULE], sys.modules[f"{MODULE}.random"]):
            patches.put(owner, name, seen)


def begin(draws: Draws) -> None:
    """Seed the generators of all devices."""
    torch: Any = sys.modules[MODULE]
    draws.saved[SOURCE] = torch.get_rng_state(), torch.cuda.get_rng_state_all() if _on_gpu(torch) else None
    _default_seed(torch)(draws.for_process(SOURCE).number(8) >> 1)
    draws.count(SOURCE)
    draws.unseen.setdefault(ONE_FOR_ALL)


def end(draws: Draws, *, last: bool) -> None:
    """The generators as they were before, but where the program seeded them and nothing else is on."""
    if SOURCE not in draws.saved or (SOURCE in draws.own and last):
        return
    torch: Any = sys.modules[MODULE]
    of_cpu, of_gpus = draws.saved[SOURCE]
    torch.default_generator.set_state(of_cpu)
    if of_gpus is not None:
        torch.cuda.set_rng_state_all(of_gpus)


def _on_gpu(torch: Any) -> bool:
    return bool(torch.cuda.is_available() and torch.cuda.is_initialized())


def _default_seed(torch: Any) -> Any:
    return getattr(torch.manual_seed, "clew_real", torch.manual_seed)


def _seen(real: Any) -> Any:
    def setting(*arguments: Any, **named: Any) -> Any:
        draws = active()
        if draws is not None:
            draws.own.add(SOURCE)
        return real(*arguments, **named)

    setting.clew_real = real  # type: ignore[attr-defined]
    return setting
