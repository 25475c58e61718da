"""What the gate remembers of messages and documents it has met: their digests.

By content, because retrievers and checkpoints make the same items anew each time. Only items of Python's own plain values
are remembered, and an item is compared type by type: 0 is not False, and a list is no tuple.

What `marshal` writes of a plain value is its content (store/plain.py). A long item is not written again each time that it
is met: it is known by identity while it lives and its fields are the very same objects, of which those that can change
have the content they had.
Short lists of items are remembered as well, by their content: every node of a graph is told the state's lists again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from itertools import compress, repeat
from operator import attrgetter, is_, not_
from typing import Any

from clew.store.digest import Domain, raw_digest
from clew.store.plain import is_plain, marshalled

_EXTRA = "__pydantic_extra__"
_CONTENT_BYTES = 32 << 20  # of contents that are remembered
_WHOLE_BYTES = 4096  # longer contents stand for themselves by their digest
_LISTS = 512  # that are remembered
_LIST_BYTES = 1 << 14  # of the content of one of them
_FIXED = frozenset((str, int, float, bool, type(None)))  # types of values that cannot change
UNCHANGING = _FIXED | {bytes}  # types of values that need no capture at once: they will be what they are
_fields_of = attrgetter("__dict__")

Content = tuple[type, bytes]
ListContent = tuple[tuple[type, ...], bytes]


class Look(weakref.ref[Any]):
    """An item as it was when it was looked at. It does not keep the item alive; of a long one, what stood in its fields."""

    __slots__ = ("changeable", "content", "digest", "inner", "key", "names", "values")
    key: int
    digest: bytes
    content: Content
    names: list[str] | None  # None of a short one, which its content tells
    values: list[Any]
    changeable: list[Any]  # of the values, those that can change
    inner: bytes | None  # and their content


class ItemMemo:
    """Digests of items. One that changed, in whatever field and however deep, is another one."""

    def __init__(self) -> None:
        kept: dict[int, Look] = {}

        def forget(dead: weakref.ref[Any]) -> None:
            assert isinstance(dead, Look)
            if kept.get(dead.key) is dead:  # the id may belong to another item by now
                kept.pop(dead.key, None)

        self._kept = kept
        self._forget: Callable[[weakref.ref[Any]], None] = forget
        self.classes: set[type] = set()  # of the items that are remembered
        self._alike: dict[Content, bytes] = {}
        self._bytes = 0

    def of(self, item: Any) -> bytes | None:
        """The digest of an item; None if it is not known."""
        look = self._kept.get(id(item))
        if look is None or look() is not item:
            if type(item) not in self.classes or getattr(item, _EXTRA, None):
                return None
            content = marshalled(item.__dict__)
            return self._alike.get((type(item), content)) if content and len(content) <= _WHOLE_BYTES else None
        fields = item.__dict__
        if (
            len(fields) == len(look.values)
            and all(map(is_, fields.values(), look.values))
            and list(fields) == look.names
            and not getattr(item, _EXTRA, None)
        ):
            same = not look.changeable or marshalled(look.changeable) == look.inner
        else:
            same = content_of(item) == look.content  # such as another object for the same number
        return look.digest if same else None

    def look(self, item: Any) -> Look | None:
        """The item as it is now; None if it is one that cannot be remembered."""
        # An item that another thread changes and leaves so, here or while it is encoded, is not remembered. One that it
        # changes and changes back within that time has the digest of what it was in between from then on. That takes
        # two switches of threads; where a file is written, which invites them, `Batch.put` drops the look.
        try:
            look = Look(item, self._forget)
            fields = item.__dict__
        except (TypeError, AttributeError):  # it takes no weak reference, or has no fields
            return None
        if type(fields) is not dict or getattr(item, _EXTRA, None):
            return None
        look.key = id(item)
        content = marshalled(fields)
        if content is None:
            return None
        look.names = None
        if len(content) > _WHOLE_BYTES:
            look.names, look.values = list(fields), list(fields.values())
            look.changeable = list(compress(look.values, map(not_, map(_FIXED.__contains__, map(type, look.values)))))
            look.inner = marshalled(look.changeable)
            content = marshalled(fields)  # once more, last
            if content is None:
                return None
            content = raw_digest(Domain.BYTES, content)
        look.content = type(item), content
        return look

    def alike(self, look: Look) -> bytes | None:
        """The digest of an item with the same content; from here on this item has it too."""
        digest = self._alike.get(look.content)
        if digest is not None:
            self._keep(look, digest)
        return digest

    def _keep(self, look: Look, digest: bytes) -> None:
        if look.names is not None:
            look.digest = digest
            self._kept[look.key] = look

    def same(self, look: Look) -> bool:
        """Whether the item is plain, and as it was when it was looked at. To be asked as soon as it is encoded: to hash
        and to write lets other threads run, and they may change it back."""
        item = look()
        return item is not None and is_plain(item.__dict__) and content_of(item) == look.content

    def keep(self, look: Look, digest: bytes) -> None:
        """Remember the digest of an item that was the `same` when it was encoded, if it is alive."""
        if look() is None:
            return
        self._keep(look, digest)
        if look.content not in self._alike:
            self._bytes += len(look.content[1])
            if self._bytes > _CONTENT_BYTES:
                self._alike, self._bytes = {}, len(look.content[1])
            self._alike[look.content] = digest
            self.classes.add(look.content[0])


class ListMemo:
    """Digests of short lists of remembered items, by what is in them: a graph makes its state's lists anew for each node."""

    def __init__(self, items: ItemMemo) -> None:
        self._items = items
        self._kept: dict[ListContent, bytes] = {}
        self.of: Callable[[ListContent], bytes | None] = self._kept.get  # the digest of lists of this content, or None

    def content_of(self, values: list[Any]) -> ListContent | None:
        """What a list is: the items' classes and fields. None where it holds anything else, or much."""
        classes = tuple(map(type, values))
        if not self._items.classes.issuperset(classes) or any(map(getattr, values, repeat(_EXTRA), repeat(None))):
            return None
        content = marshalled(list(map(_fields_of, values)))
        return (classes, content) if content is not None and len(content) <= _LIST_BYTES else None

    def keep(self, content: ListContent, values: list[Any], digest: bytes) -> None:
        """Remember the digest of a list of remembered items that had this content before its digest was made, if it
        still has."""
        if self.content_of(values) == content:
            if len(self._kept) >= _LISTS:
                self._kept.clear()
            self._kept[content] = digest


def content_of(item: Any) -> Content | None:
    """What an item is: its class and all that is in its fields; None if no marshal can tell."""
    fields = getattr(item, "__dict__", None)
    if type(fields) is not dict or getattr(item, _EXTRA, None):
        return None
    content = marshalled(fields)
    if content is None:
        return None
    return type(item), content if len(content) <= _WHOLE_BYTES else raw_digest(Domain.BYTES, content)
