"""What the gate remembers of messages and documents it has met: their digests.

By identity, while they live and do not change; and by content, because retrievers and checkpoints make the same items
anew each time. Only items of Python's own plain values are remembered, and an item is compared type by type: 0 is not
False, and a list is no tuple.
"""

from __future__ import annotations

import marshal
import weakref
from typing import Any

import msgspec

from clew.store.digest import Domain, raw_digest

_EXTRA = "__pydantic_extra__"
_CONTENT_BYTES = 32 << 20  # of contents that are remembered
_WHOLE_BYTES = 2048  # longer contents stand for themselves by their digest

Content = tuple[type, bytes]


class _Kept(weakref.ref[Any]):
    """A reference to an item that does not keep it alive, with its digest and its content as it was."""

    __slots__ = ("content", "digest", "key")
    key: int
    digest: bytes
    content: Content


class ItemMemo:
    """Digests of items. One that changed, in whatever field and however deep, is another one."""

    def __init__(self) -> None:
        kept: dict[int, _Kept] = {}

        def forget(dead: _Kept) -> None:
            if kept.get(dead.key) is dead:  # the id may belong to another item by now
                kept.pop(dead.key, None)

        self._kept = kept
        self._forget = forget
        self.classes: set[type] = set()  # of the items that are remembered
        self._alike: dict[Content, bytes] = {}
        self._bytes = 0

    def of(self, item: Any) -> bytes | None:
        """The digest of this very item; None if it is not known, or changed."""
        kept = self._kept.get(id(item))
        if kept is None or kept() is not item:
            return None
        return kept.digest if kept.content == _marshalled(item) else None

    def alike(self, content: Content | None) -> bytes | None:
        """The digest of an item with this content (`content_of`)."""
        return self._alike.get(content) if content is not None else None

    def keep(self, item: Any, content: Content, digest: bytes) -> None:
        """Remember an item, whose content was this when it was digested."""
        try:
            kept = _Kept(item, self._forget)
        except TypeError:  # it takes no weak reference
            return
        kept.key, kept.content, kept.digest = id(item), content, digest
        self._kept[kept.key] = kept
        if content not in self._alike:
            self._bytes += len(content[1])
            if self._bytes > _CONTENT_BYTES:
                self._alike, self._bytes = {}, len(content[1])
            self._alike[content] = digest
            self.classes.add(content[0])


def content_of(item: Any) -> Content | None:
    """What an item is: its class and all that is in its fields; None if more than plain values are in them."""
    try:
        msgspec.to_builtins(item.__dict__, builtin_types=(bytes,))  # refuses what else has a buffer, and all classes
    except Exception:
        return None
    return _marshalled(item)


def _marshalled(item: Any) -> Content | None:
    """Equal for equal values of the same types, as `marshal` keeps all exact types apart. It is never read back."""
    try:
        if getattr(item, _EXTRA, None):
            return None
        content = marshal.dumps(item.__dict__, 2)
    except Exception:  # not plain (any more), or deeper than it goes
        return None
    return type(item), content if len(content) <= _WHOLE_BYTES else raw_digest(Domain.BYTES, content)
