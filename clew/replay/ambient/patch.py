"""Replaced attributes, and their way back.

A name that a project's module took before (`from random import random`) is replaced there too, and what such a module
took meanwhile is put back in the end.
"""

from __future__ import annotations

import sys
from typing import Any

from clew.tracer.imported import project_modules

_ABSENT = object()


class Patches:
    """What was replaced so far."""

    def __init__(self) -> None:
        self._made: list[tuple[Any, str, Any, Any]] = []  # owner, name, what was there, what is there

    def put(self, owner: Any, name: str, value: Any) -> None:
        """Replace an attribute of a module or class."""
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)
        self._made.append((owner, name, before, value))

    def spread(self) -> None:
        """Replace the same values where the project's modules hold them by names of their own."""
        _exchange([(before, value) for _, _, before, value in self._made if before is not _ABSENT])

    def undo(self) -> None:
        """Put everything back. An attribute that somebody else replaced since stays as it is."""
        made, self._made = self._made, []
        for owner, name, before, value in reversed(made):
            if vars(owner).get(name) is not value:
                continue
            if before is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
        _exchange([(value, before) for _, _, before, value in made if before is not _ABSENT])


def _exchange(pairs: list[tuple[Any, Any]]) -> None:
    instead = {id(old): (old, new) for old, new in pairs}
    for imported in project_modules(dict(sys.modules)):
        if imported.name.partition(".")[0] == "clew":  # an editable install: the real ones stand in it
            continue
        contents = vars(imported.module)
        for name, value in list(contents.items()):
            old, new = instead.get(id(value), (_ABSENT, None))
            if value is old:
                contents[name] = new
