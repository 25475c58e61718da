"""The version of a class: a number that changes whenever anything in it, or in a class that it inherits from, is set.

CPython gives each class such a number and takes it away when the class is changed; its own cache of methods rests on it
(`tp_version_tag`, Objects/typeobject.c). Python does not show it, so it is read where it stands in memory. Whether it
stands there is tried out once; where it does not, no class has a version.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_FLAGS, _TAG = 21, 48  # words before them in a type object


def version_of(cls: type) -> ctypes.c_uint | None:
    """The place of the class's version; None where it has none. `value` is 0 while it has none any more."""
    if not works():
        return None
    found = ctypes.c_uint.from_address(id(cls) + _TAG * ctypes.sizeof(ctypes.c_void_p))
    getattr(cls, "__clew_version__", None)  # a look into a class gives it one
    return found if found.value else None


@cache
def works() -> bool:
    """Whether versions are where they are looked for, and do what they should."""
    if sys.implementation.name != "cpython" or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return False

    class One:
        pass

    class Other(One):
        pass

    size = ctypes.sizeof(ctypes.c_void_p)
    for cls in (One, Other, int):
        if ctypes.c_ulong.from_address(id(cls) + _FLAGS * size).value & 0x7FFF != cls.__flags__ & 0x7FFF:
            return False
    place = ctypes.c_uint.from_address(id(Other) + _TAG * size)
    seen = []
    name = "missing"
    for changed in (Other, One, One):
        for _ in range(2):
            getattr(Other, name, None)
            seen.append(place.value)
        setattr(changed, name, 1)
        seen.append(place.value)
        delattr(changed, name)
    tags = [tag for tag in seen if tag]
    return [bool(tag) for tag in seen] == [True, True, False] * 3 and seen[0] == seen[1] and len({*tags}) == 3
