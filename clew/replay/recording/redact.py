"""Answers without credentials: what would stand in the store is redacted as everything else is.

Most answers hold none. So an answer is looked at first, piece by piece and with what is known of the short ones (gate.py),
and only one in which something was found is made anew.
"""

from __future__ import annotations

from typing import Any

import msgspec

from clew.tracer.capture import Batch
from clew.tracer.credential import names_a_secret
from clew.tracer.gate import Cleaner

_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.decode
_SILENT = frozenset((type(None), bool, int, float))  # types of values that hold no text


def redacted(data: bytes, batch: Batch) -> tuple[bytes, bool]:
    """A packed answer (replay/answer.py) as it may be stored by `batch`, and whether that is another one."""
    if _is_clean(data, batch) and batch.current:
        return data, False
    made = _cleaned(data, batch.gate.cleaner)
    return made, made != data


def _is_clean(data: bytes, batch: Batch) -> bool:
    """Whether nothing in a packed answer would be redacted."""
    innocent, known, inline, named = batch.innocent, batch.clean, batch.inline, batch.named
    found = False

    def look(name: str | None, value: Any) -> None:
        nonlocal found
        cls = type(value)
        if cls is str:
            found |= known.get(value) != value and inline(value) != value
            found |= name is not None and name not in innocent and named(name, value) != value
        elif cls is dict:
            for key, part in value.items():
                if type(key) is not str:
                    look(None, key)
                else:
                    found |= known.get(key) != key and inline(key) != key
                if type(part) not in _SILENT:
                    look(key if type(key) is str else None, part)
        elif cls is list:
            if not _SILENT.issuperset(map(type, value)):  # a vector
                for part in value:
                    look(name, part)
        elif cls is bytes:
            found |= batch.bare(value) != value or (name is not None and named(name, value) != value)

    def inside(code: int, content: memoryview) -> None:
        look(None, read(content))

    read = msgspec.msgpack.Decoder(ext_hook=inside).decode
    look(None, read(data))
    return not found


def _cleaned(data: bytes, cleaner: Cleaner) -> bytes:
    """A packed answer without what is redacted."""

    def cleaned(name: str | None, value: Any) -> Any:
        if name is not None and names_a_secret(name) and isinstance(value, (str, bytes)):
            return cleaner.named(name, value)
        if isinstance(value, str):
            return cleaner.text(value)
        if isinstance(value, bytes):
            return cleaner.data(value)
        if isinstance(value, list):
            return [cleaned(name, part) for part in value]
        if isinstance(value, dict):
            return {
                cleaned(None, key): cleaned(key if isinstance(key, str) else None, part) for key, part in value.items()
            }
        return value

    def inside(code: int, content: memoryview) -> Any:
        return msgspec.msgpack.Ext(code, _encode(cleaned(None, _decode(content, ext_hook=inside))))

    return _encode(cleaned(None, _decode(data, ext_hook=inside)))
