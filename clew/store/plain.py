"""Plain values: texts, numbers, None, and lists, tuples and dicts of them, known by what `marshal` writes of them.

That is equal for equal values of the same types: 1, 1.0 and True differ, a tuple is no list, an enum is refused. It is
compared, and never read back. `marshal` takes whatever has a buffer for bytes, so what is remembered by its content must
be `is_plain`, with no bytes in it; then nothing but its equal has the same content.
"""

from __future__ import annotations

import marshal
from typing import Any

import msgspec


def marshalled(value: Any) -> bytes | None:
    """The content of a value; None where it holds what is not plain, or is too deep."""
    try:
        return marshal.dumps(value, 2)
    except ValueError:
        return None


def is_plain(value: Any) -> bool:
    """Whether a value with a content is told by it from every other: there are no bytes in it."""
    try:
        return bool(msgspec.to_builtins(value) == value)  # it makes texts of bytes, and refuses classes
    except Exception:
        return False
