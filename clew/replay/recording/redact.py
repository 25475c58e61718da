"""Answers without credentials: what would stand in the store is redacted as everything else is."""

from __future__ import annotations

from typing import Any

import msgspec

from clew.tracer.credential import names_a_secret
from clew.tracer.gate import Cleaner

_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.decode


def redacted(data: bytes, cleaner: Cleaner) -> tuple[bytes, bool]:
    """A packed answer (replay/answer.py) as it may be stored, and whether that is another one."""

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

    made = _encode(cleaned(None, _decode(data, ext_hook=inside)))
    return made, made != data
