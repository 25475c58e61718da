"""Optional dependencies: what a missing one says."""

from __future__ import annotations

import importlib
from typing import Any

from clew.store.errors import MissingExtra


def require(module: str, extra: str) -> Any:
    """The module of an optional dependency; MissingExtra (an ImportError) names the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(f"{module} is not installed: pip install 'clew[{extra}]' brings it") from error
