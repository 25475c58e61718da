"""Dicts that a program keeps and passes again and again, such as tool definitions, as constants."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

from clew.store.plain import is_plain, marshalled
from clew.tracer.constant import Constant

_REMEMBERED = 1024


_known: OrderedDict[int, tuple[dict[str, Any], bytes, Constant]] = OrderedDict()


def constant(value: Any) -> Any:
    """The constant of a plain dict that the caller keeps; a new one if it changed. Anything else as it is."""
    content = marshalled(value) if type(value) is dict else None
    if content is None:
        return value
    entry = _known.get(id(value))  # the entry holds the dict, so the id stays its own
    if entry is not None and entry[0] is value and entry[1] == content:
        return entry[2]
    snapshot = copy.deepcopy(value) if is_plain(value) else None
    if snapshot is None or marshalled(snapshot) != content or not all(type(key) is str for key in snapshot):
        return value
    made = Constant(snapshot)
    _known[id(value)] = (value, content, made)
    if len(_known) > _REMEMBERED:
        try:
            _known.popitem(last=False)
        except KeyError:  # another thread took the last one
            pass
    return made
