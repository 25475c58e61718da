"""`uuid.uuid4`, derived. The function's code is replaced, which reaches it wherever a program or framework holds it."""

from __future__ import annotations

import sys
import uuid
from types import CodeType, FunctionType
from typing import Any

from clew.replay.ambient.draws import active
from clew.replay.ambient.patch import Patches

SOURCE = "uuid4"
_TIMED = ("uuid1", "uuid6", "uuid7")


class _Real:
    function: Any = uuid.uuid4
    code: CodeType | None = None


def _uuid4() -> Any:
    # It runs among the globals of `uuid`, so it has to import what it calls.
    from clew.replay.ambient.identifier import minted

    return minted()


def minted() -> uuid.UUID:
    """A UUID of version 4: derived while an activation is on, and else as the library makes it."""
    draws = active()
    stream = draws.stream(SOURCE, sys._getframe(1)) if draws is not None else None
    if stream is None:
        made: uuid.UUID = _Real.function()
        return made
    return uuid.UUID(bytes=stream.take(16), version=4)


def patch(patches: Patches) -> None:
    """Derive until `unpatch`, while an activation is on; those with the time and the machine in them are noted."""
    function = uuid.uuid4
    if type(function) is FunctionType and not function.__closure__ and not function.__code__.co_argcount:
        _Real.code = function.__code__
        _Real.function = FunctionType(_Real.code, function.__globals__, function.__name__)
        function.__code__ = _uuid4.__code__
    else:  # somebody replaced it
        _Real.function = function
        patches.put(uuid, "uuid4", minted)
    for name in _TIMED:
        if hasattr(uuid, name):
            patches.put(uuid, name, _noted(name, getattr(uuid, name)))


def unpatch() -> None:
    """The function as it was, unless somebody replaced its code since."""
    if _Real.code is not None and uuid.uuid4.__code__ is _uuid4.__code__:
        uuid.uuid4.__code__ = _Real.code
    _Real.code = None


def _noted(name: str, real: Any) -> Any:
    def drawn(*arguments: Any, **named: Any) -> Any:
        draws = active()
        if draws is not None:
            draws.note(f"uuid.{name}", sys._getframe(1))
        return real(*arguments, **named)

    return drawn
