"""The system's randomness: not derived, since secrets must stay secret. Who used it is noted."""

from __future__ import annotations

import os
import random
import secrets
import sys
from types import FrameType
from typing import Any

from clew.replay.ambient.draws import active
from clew.replay.ambient.patch import Patches


def patch(patches: Patches) -> None:
    """Note until it is undone, while an activation is on."""
    system, library = os.urandom, random._urandom  # type: ignore[attr-defined]

    def urandom(size: int, /) -> bytes:
        draws = active()
        if draws is not None:
            draws.note("os.urandom", sys._getframe(1))
        return system(size)

    def of_library(size: int, /) -> bytes:
        draws = active()
        if draws is not None:
            frame = sys._getframe(1)
            draws.note(_user_of(frame), frame)
        made: bytes = library(size)
        return made

    patches.put(os, "urandom", urandom)
    patches.put(random, "_urandom", of_library)


def _user_of(frame: FrameType) -> str:
    drawing: Any = frame.f_locals.get("self")  # a method of SystemRandom
    own = secrets._sysrand  # type: ignore[attr-defined]
    return "secrets" if drawing is own else "random.SystemRandom"
