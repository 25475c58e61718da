"""Captured content as the indexer reads it: texts, items and the parts of values, by digest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from clew.lineage.rows import Rows
from clew.store import chain, decoding
from clew.store.decoding import Code, Opaque, Record, Reference
from clew.store.digest import CHAIN, TEXT, VALUE, Digest, Domain
from clew.store.errors import ClewError
from clew.store.record import Slot
from clew.store.store import Store

T = TypeVar("T")
_REMEMBERED = 8192
_SMALL_BYTES = _SMALL_CHARS = 4096
_FEW = 32  # items of a list that is remembered whole


class Content:
    """Reads what the log holds. What is not there (captured without content, damaged) reads as None."""

    def __init__(self, store: Store, rows: Rows) -> None:
        self.store = store
        self.rows = rows
        self._texts: dict[bytes, str] = {}
        self._values: dict[bytes, Any] = {}
        self._kinds: dict[bytes, str | None] = {}
        self._links: dict[bytes, chain.Link | None] = {}
        self._lists: dict[bytes, list[tuple[Domain, Digest]]] = {}

    def settle(self) -> None:
        """Forget what was decoded: a batch is over, and the next one seldom asks for the same."""
        self._texts.clear()
        self._values.clear()
        self._kinds.clear()
        self._links.clear()
        self._lists.clear()

    def _read(self, domain: int, digest: bytes) -> Any:
        try:
            return self.store.value(domain, digest, self.rows.connection)
        except ClewError:
            return None

    def _text(self, digest: bytes) -> str | None:
        texts = self._texts
        if digest in texts:
            return texts[digest]
        try:
            text = self.store.text(digest, self.rows.connection)
        except ClewError:
            return None
        return _kept(texts, digest, text) if len(text) <= _SMALL_CHARS else text

    def _shallow(self, digest: bytes) -> Any:
        """A value with references left in place of its parts; None where there is no content. Not to be changed."""
        values = self._values
        if digest in values:
            return values[digest]
        try:
            domain, data = self.store.blob(digest, self.rows.connection)
        except ClewError:
            return None
        value = decoding.decode(data) if domain is VALUE else None
        return _kept(values, digest, value) if len(data) <= _SMALL_BYTES else value

    def _link(self, digest: bytes) -> chain.Link | None:
        """The link of a list with this digest. ClewError where it is not in the store."""
        links = self._links
        if digest in links:
            return links[digest]
        return _kept(links, digest, chain.parse_link(self.store.blob(digest, self.rows.connection)[1]))

    def _item(self, digest: bytes) -> dict[str, Any] | None:
        value = self._shallow(digest)
        return value if isinstance(value, dict) else None

    def _item_kind(self, digest: bytes) -> str | None:
        """ "message" or "document" by the shape of an item's encoding."""
        kinds = self._kinds
        if digest in kinds:
            return kinds[digest]
        value = self._shallow(digest)
        if value is None:
            return None
        kind = None
        if isinstance(value, dict):
            if "role" in value and "content" in value:
                kind = "message"
            elif "text" in value and "metadata" in value:
                kind = "document"
        return _kept(kinds, digest, kind)

    def _message_text(self, item: bytes) -> str | None:
        message = self._item(item)
        return content_text(message.get("content"), self._text) if message else None

    def _members(self, slot: Slot) -> list[tuple[Domain, Digest]]:
        """The items of a list. Not to be changed."""
        lists = self._lists
        if slot.digest in lists:
            return lists[slot.digest]
        members = [(link.domain, link.item) for link in chain.links(Digest(slot.digest), self._link)]
        return _kept(lists, slot.digest, members) if len(members) <= _FEW else members

    def _items_in(self, digest: bytes) -> list[Digest]:
        """Digests of the documents and messages that a value holds."""
        return [
            part.digest
            for part in walk(self._shallow(digest))
            if isinstance(part, Reference) and part.code == Code.ITEM
        ]

    def _strings(self, digest: bytes) -> list[str]:
        """The texts that a value holds."""
        return self._strings_of(self._shallow(digest))

    def _strings_of(self, value: Any) -> list[str]:
        """The texts in a value that was read."""
        texts = []
        for part in walk(value):
            if isinstance(part, str):
                texts.append(part)
            elif isinstance(part, Reference) and part.code == Code.TEXT:
                text = self._text(part.digest)
                if text is not None:
                    texts.append(text)
        return texts

    def _empty(self, slot: Slot) -> bool:
        if slot.domain == CHAIN:
            return bytes(slot.digest) == bytes(chain.EMPTY)
        if slot.domain == TEXT:
            return not self._text(slot.digest)
        if slot.domain == VALUE:
            return self._shallow(slot.digest) in (None, {}, [], "")
        return False


def _kept(memory: dict[bytes, T], digest: bytes, read: T) -> T:
    """What was read, remembered."""
    if len(memory) >= _REMEMBERED:
        memory.clear()
    memory[bytes(digest)] = read
    return read


def walk(value: Any) -> Iterable[Any]:
    """Every leaf of a decoded value."""
    if isinstance(value, dict):
        for part in value.values():
            yield from walk(part)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            yield from walk(part)
    elif isinstance(value, Record):
        yield from walk(value.fields)
    elif not isinstance(value, Opaque):
        yield value


def content_text(content: Any, read: Callable[[bytes], str | None]) -> str | None:
    """The text of a message's content: a text, a reference to one, or a list of parts of which some are text."""
    if isinstance(content, str):
        return content
    if isinstance(content, Reference):
        return read(content.digest) if content.code == Code.TEXT else None
    if isinstance(content, list):
        texts = []
        for part in content:
            if isinstance(part, dict) and part.get("type") in ("text", None):
                part = part.get("text")
            text = content_text(part, read) if not isinstance(part, (dict, list)) else None
            if text:
                texts.append(text)
        return "\n".join(texts) or None
    return None
