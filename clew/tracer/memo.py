"""What the gate remembers of messages and documents it has met: their digests.

By identity, while they live and do not change; and by content, because retrievers and checkpoints make the same items
anew each time. Only items of Python's own plain values are remembered, and an item is compared type by type: 0 is not
False, and a list is no tuple. A state's lists of items are told by every node that reads them, so lists are remembered
as well.

What `marshal` writes of a value is its content: equal for equal values of the same types, and never read back. It takes
whatever has a buffer for bytes, so nothing with bytes in it is remembered.
"""

from __future__ import annotations

import marshal
import weakref
from typing import Any

import msgspec

from clew.store.digest import Domain, raw_digest

_EXTRA = "__pydantic_extra__"
_LISTS = 256  # that are remembered
_LIST_BYTES = 16 << 10  # longer contents of lists stand for themselves by their digest
_CONTENT_BYTES = 32 << 20  # of contents that are remembered
_WHOLE_BYTES = 2048  # longer contents stand for themselves by their digest

Content = tuple[type, bytes]
Contents = tuple[list[type], bytes]  # of a list


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
        return kept.digest if kept.content == content_of(item) else None

    def alike(self, content: Content | None) -> bytes | None:
        """The digest of an item with this content (`content_of`)."""
        return self._alike.get(content) if content is not None else None

    def keep(self, item: Any, content: Content, digest: bytes) -> None:
        """Remember an item, if it is plain, whose content was this when it was digested."""
        if content not in self._alike and not _is_plain(item):
            return
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


class ListMemo:
    """Digests of lists of texts and of remembered items."""

    def __init__(self, classes: set[type]) -> None:
        """`classes`: of the items that are remembered."""
        self._classes = classes
        self._kept: dict[int, tuple[Contents, bytes] | None] = {}

    def look(self, values: list[Any]) -> tuple[bytes | None, Contents | None]:
        """The digest of a list, if one with its content is remembered; else its content, if it is worth remembering.

        Most lists are met once, the others again and again: the content is looked at from the second time on.
        """
        own = id(values)  # only where to look: what is compared is the content
        if own not in self._kept:
            if len(self._kept) >= _LISTS:
                self._kept = {}
            self._kept[own] = None
            return None, None
        content = self._contents(values)
        kept = self._kept.get(own)
        if kept is not None and content is not None and kept[0] == content:
            return kept[1], None
        return None, content

    def keep(self, values: list[Any], content: Contents, digest: bytes) -> None:
        """Remember a list whose content was this before it was digested, unless another thread changed it meanwhile."""
        if self._contents(values) == content:
            self._kept[id(values)] = (content, digest)

    def _contents(self, values: list[Any]) -> Contents | None:
        classes = self._classes
        parts = []
        for value in values:
            cls = type(value)
            if cls is str:
                parts.append(value)
            elif cls not in classes or getattr(value, _EXTRA, None):
                return None
            else:
                parts.append(value.__dict__)
        try:
            content = marshal.dumps(parts, 2)
        except ValueError:
            return None
        return list(map(type, values)), content if len(content) <= _LIST_BYTES else raw_digest(Domain.BYTES, content)


def content_of(item: Any) -> Content | None:
    """What an item is: its class and all that is in its fields; None if no marshal can tell."""
    try:
        if getattr(item, _EXTRA, None):
            return None
        content = marshal.dumps(item.__dict__, 2)
    except Exception:  # not plain (any more), or deeper than it goes
        return None
    return type(item), content if len(content) <= _WHOLE_BYTES else raw_digest(Domain.BYTES, content)


def _is_plain(item: Any) -> bool:
    """Whether its content tells an item from every other: there are no bytes in it."""
    try:
        return bool(msgspec.to_builtins(item.__dict__) == item.__dict__)  # it makes texts of bytes, and refuses classes
    except Exception:
        return False
