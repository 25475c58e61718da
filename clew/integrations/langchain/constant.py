"""Dicts that a program keeps and passes again and again, such as tool definitions, as constants."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

from clew.tracer.constant import Constant

_REMEMBERED = 1024


_known: OrderedDict[int, tuple[dict[str, Any], dict[str, Any], Constant]] = OrderedDict()


def constant(value: Any) -> Any:
    """The constant of a dict that the caller keeps; a new one if it changed. Anything else as it is."""
    if value.__class__ is not dict or not all(key.__class__ is str for key in value):
        return value
    entry = _known.get(id(value))  # the entry holds the dict, so the id stays its own
    if entry is not None and entry[0] is value and entry[1] == value:
        return entry[2]
    snapshot = copy.deepcopy(value)
    made = Constant(snapshot)
    _known[id(value)] = (value, snapshot, made)
    if len(_known) > _REMEMBERED:
        try:
            _known.popitem(last=False)
        except KeyError:  # another thread took the last one
            pass
    return made
