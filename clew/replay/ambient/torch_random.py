"""torch's global generators: seeded once from the run's seed, since they have one state for the whole process.

Draws are not seen: in the end it is, whether there were any.
"""

from __future__ import annotations

import sys
from typing import Any

from clew.replay.ambient.draws import ACTIVE, Draws, active
from clew.replay.ambient.patch import Patches

SOURCE = "torch"
MODULE = "torch"
ONE_FOR_ALL = "torch: one seed for the process, so draws of several threads depend on their order"


def patch(patches: Patches) -> None:
    """See until it is undone whether the program seeds torch itself."""
    torch: Any = sys.modules[MODULE]
    real = torch.manual_seed

    def manual_seed(seed: Any) -> Any:
        draws = active()
        if draws is not None:
            draws.own.add(SOURCE)
        return real(seed)

    def seed() -> int:
        draws = active()
        if draws is None:
            made: int = torch.default_generator.seed()
        else:  # a seed from the system is derived
            draws.own.discard(SOURCE)
            made = _seed(draws, real)
            draws.count(SOURCE)
        return made

    manual_seed.clew_real = real  # type: ignore[attr-defined]
    for owner in (torch, sys.modules[f"{MODULE}.random"]):
        patches.put(owner, "manual_seed", manual_seed)
        patches.put(owner, "seed", seed)


def begin(draws: Draws) -> None:
    """Seed the generators of all devices."""
    torch: Any = sys.modules[MODULE]
    if ACTIVE:
        _look(ACTIVE[-1])
    draws.saved[SOURCE] = _states()
    _seed(draws, torch.manual_seed.clew_real)


def end(draws: Draws, *, last: bool) -> None:
    """The generators as they were before, but where the program seeded them and nothing else is on."""
    if SOURCE not in draws.saved:
        return
    torch: Any = sys.modules[MODULE]
    _look(draws)
    if SOURCE in draws.own and last:
        return
    of_cpu, of_gpus = draws.saved[SOURCE]
    torch.set_rng_state(of_cpu)
    if of_gpus is not None:
        torch.cuda.set_rng_state_all(of_gpus)


def _seed(draws: Draws, real: Any) -> int:
    stream = draws.stream(SOURCE, None, counts=False)
    assert stream is not None
    number = stream.number(8) >> 1
    real(number)
    draws.base[SOURCE] = _states()
    return number


def _states() -> tuple[Any, Any]:
    """Of the processor's generator, and of those of CUDA's devices; None before CUDA is used."""
    torch: Any = sys.modules[MODULE]
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None


def _look(draws: Draws) -> None:
    """Note that there were draws, if there were."""
    if SOURCE in draws.base and SOURCE not in draws.own and _has_drawn(*draws.base[SOURCE]):
        draws.counts.setdefault(SOURCE, 1)
        draws.unseen.setdefault(ONE_FOR_ALL)


def _has_drawn(of_cpu: Any, of_gpus: Any) -> bool:
    """Whether anything was drawn since the states were these; True where that cannot be seen."""
    torch: Any = sys.modules[MODULE]
    now, gpus_now = _states()
    if not torch.equal(now, of_cpu):
        return True
    if gpus_now is not None:
        return of_gpus is None or not all(map(torch.equal, gpus_now, of_gpus))
    other = torch.accelerator.current_accelerator(check_available=True)
    return other is not None and other.type != "cuda"
