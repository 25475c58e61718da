"""What the gate remembers of messages and documents it has met: their digests, while they live and do not change."""

from __future__ import annotations

import datetime
import decimal
import uuid
import weakref
from typing import Any

import msgspec

from clew.store.digest import Digest

_BUILTIN = (bytes, datetime.datetime, datetime.date, datetime.time, datetime.timedelta, uuid.UUID, decimal.Decimal)


class _Kept(weakref.ref[Any]):
    """A reference to an item that does not keep it alive, with its digest and its fields as they were."""

    __slots__ = ("digest", "fields", "key")
    key: int
    digest: Digest
    fields: dict[str, Any]


class ItemMemo:
    """Digests of items by identity. An item of which a field changed meanwhile, however deep, is not known."""

    def __init__(self) -> None:
        kept: dict[int, _Kept] = {}

        def forget(dead: _Kept) -> None:
            if kept.get(dead.key) is dead:  # the id may belong to another item by now
                kept.pop(dead.key, None)

        self._kept = kept
        self._forget = forget

    def of(self, item: Any) -> Digest | None:
        """The digest of this very item; None if it is not known, or changed."""
        kept = self._kept.get(id(item))
        if kept is None or kept() is not item:
            return None
        try:
            return kept.digest if kept.fields == item.__dict__ else None
        except Exception:  # an array has no truth value, an object of the program's an __eq__ of its own
            return None

    def keep(self, item: Any, fields: dict[str, Any], digest: Digest) -> None:
        """Remember an item; `fields` is what `fields_of` said when it was digested."""
        try:
            kept = _Kept(item, self._forget)
        except TypeError:  # it takes no weak reference
            return
        kept.key, kept.fields, kept.digest = id(item), fields, digest
        self._kept[kept.key] = kept


def fields_of(item: Any) -> dict[str, Any] | None:
    """A copy of an item's fields, dicts and lists all the way down; None if more than plain values are in them."""
    fields = getattr(item, "__dict__", None)
    if not fields:
        return None
    try:
        copied: dict[str, Any] = msgspec.to_builtins(fields, builtin_types=_BUILTIN)
        return copied
    except (RecursionError, TypeError, ValueError):
        return None
