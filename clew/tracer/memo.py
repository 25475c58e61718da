"""What the gate remembers of messages and documents it has met: their digests.

By identity, while they live and do not change; and by content, because retrievers and checkpoints make the same items
anew each time.
"""

from __future__ import annotations

import datetime
import decimal
import marshal
import uuid
import weakref
from typing import Any, NamedTuple

import msgspec

_BUILTIN = (bytes, datetime.datetime, datetime.date, datetime.time, datetime.timedelta, uuid.UUID, decimal.Decimal)
_EXTRA = "__pydantic_extra__"
_CONTENT_BYTES = 32 << 20  # of contents that are remembered
_ITEM_BYTES = 1 << 16  # of one of them


class Item(NamedTuple):
    """An item as it was when it was digested. None: that can not be told in the one or the other way."""

    item: Any
    fields: dict[str, Any] | None
    content: tuple[type, bytes] | None


class _Kept(weakref.ref[Any]):
    """A reference to an item that does not keep it alive, with its digest and its fields as they were."""

    __slots__ = ("digest", "fields", "key")
    key: int
    digest: bytes
    fields: dict[str, Any]


class ItemMemo:
    """Digests of items. One that changed, in whatever field and however deep, is another one."""

    def __init__(self) -> None:
        kept: dict[int, _Kept] = {}

        def forget(dead: _Kept) -> None:
            if kept.get(dead.key) is dead:  # the id may belong to another item by now
                kept.pop(dead.key, None)

        self._kept = kept
        self._forget = forget
        self.classes: set[type] = set()  # of the items that are remembered by content
        self._alike: dict[tuple[type, bytes], bytes] = {}
        self._bytes = 0

    def of(self, item: Any) -> bytes | None:
        """The digest of this very item; None if it is not known, or changed."""
        kept = self._kept.get(id(item))
        if kept is None or kept() is not item:
            return None
        try:
            return kept.digest if kept.fields == item.__dict__ and not getattr(item, _EXTRA, None) else None
        except Exception:  # an array has no truth value, an object of the program's an __eq__ of its own
            return None

    def alike(self, content: tuple[type, bytes] | None) -> bytes | None:
        """The digest of an item with this content (`content_of`)."""
        return self._alike.get(content) if content is not None else None

    def keep(self, known: Item, digest: bytes) -> None:
        """Remember an item."""
        if known.fields is not None:
            try:
                kept = _Kept(known.item, self._forget)
            except TypeError:  # it takes no weak reference
                return
            kept.key, kept.fields, kept.digest = id(known.item), known.fields, digest
            self._kept[kept.key] = kept
        if known.content is not None and known.content not in self._alike:
            self._bytes += len(known.content[1])
            if self._bytes > _CONTENT_BYTES:
                self._alike, self._bytes = {}, len(known.content[1])
            self._alike[known.content] = digest
            self.classes.add(known.content[0])


def fields_of(item: Any) -> dict[str, Any] | None:
    """A copy of an item's fields, dicts and lists all the way down; None if more than plain values are in them."""
    fields = getattr(item, "__dict__", None)
    if not fields or getattr(item, _EXTRA, None):
        return None
    try:
        copied: dict[str, Any] = msgspec.to_builtins(fields, builtin_types=_BUILTIN)
        return copied
    except (RecursionError, TypeError, ValueError):
        return None


def content_of(item: Any) -> tuple[type, bytes] | None:
    """What an item is: its class and all that is in its fields; None if more than Python's own values are in them.

    Equal bytes mean equal values of the same types: `marshal` takes exact types only, and keeps them all apart. It is
    never read back.
    """
    fields = getattr(item, "__dict__", None)
    if not fields or getattr(item, _EXTRA, None):
        return None
    try:
        content = marshal.dumps(fields, 2)
    except (RecursionError, TypeError, ValueError):
        return None
    return (type(item), content) if len(content) <= _ITEM_BYTES else None
