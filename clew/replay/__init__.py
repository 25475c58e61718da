"""Answers used again: the cache, the recording of runs, and their replay.

`clew.replay` is this package, and called it is `replay.playback.replay.replay`: `with clew.replay(run) as again`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, run: Any, **options: Any) -> Any:
        return importlib.import_module("clew.replay.playback.replay").replay(run, **options)


sys.modules[__name__].__class__ = _Callable
