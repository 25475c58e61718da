"""Fingerprints of content: equal where two runs did the same, whatever ids were minted on the way.

They live as long as one comparison and are kept nowhere. An item is decoded once; a list that grows costs only its new
items, since the fingerprint of a chain is made of that of the chain before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import msgspec
from sqlalchemy.engine import Connection

from clew.lineage.difference.minted import SHORT, Minted, Renaming
from clew.store import chain, decoding
from clew.store.decoding import Code, Opaque, Record, Reference
from clew.store.digest import CHAIN, TEXT, VALUE, Digest, text_bytes, text_digest
from clew.store.errors import ClewError
from clew.store.store import Store

_pack = msgspec.msgpack.Encoder().encode
_EXACT = 1 << 63
_SIGNIFICANT = 6  # digits of a score: what is beyond them is the order of additions


def fingerprint(*parts: Any) -> bytes:
    """16 bytes that are equal for equal values, type by type."""
    return blake2b(_pack([_canonical(part) for part in parts]), digest_size=16).digest()


def _canonical(value: Any) -> Any:
    match value:
        case str():
            return value if value.isascii() else [0, text_bytes(value)]
        case None | bool() | float():
            return value
        case bytes():
            return bytes(value)
        case int():
            return value if -_EXACT <= value < _EXACT else [1, hex(value)]
        case dict():
            return [2, sorted(([_canonical(key), _canonical(part)] for key, part in value.items()), key=_pack)]
        case list():
            return [3, *map(_canonical, value)]
        case tuple():
            return [4, *map(_canonical, value)]
        case set() | frozenset():
            return [5, *sorted(map(_canonical, value), key=_pack)]
        case Minted(number=number):
            return [6, number]
        case Record(type=kind, fields=fields):
            return [7, kind, _canonical(fields)]
        case Reference(code=code, digest=digest):
            return [8, int(code), bytes(digest)]
        case Opaque(type=kind):
            return [9, kind]
        case _:
            return [10, type(value).__name__, str(value)]


def rounded(info: dict[str, Any]) -> dict[str, Any]:
    """A slot's small facts, with numbers as exact as they mean something; without its place, which its order tells, and
    its score, by which it has that place."""
    return {
        key: float(f"{part:.{_SIGNIFICANT}g}") if isinstance(part, float) else part
        for key, part in info.items()
        if key not in ("rank", "index", "score")
    }


class _Chain:
    """A list so far: its fingerprint, and how many ids of `names`, which longer lists share, stand in it."""

    __slots__ = ("count", "names", "print")

    def __init__(self, print_: bytes, names: dict[str, int], count: int) -> None:
        self.print = print_
        self.names = names
        self.count = count


class Fingerprints:
    """Fingerprints of the content of one run. `unread` counts what the store has no content for."""

    def __init__(self, store: Store, connection: Connection, ids: Iterable[str] = ()) -> None:
        self._store = store
        self._connection: Connection | None = connection
        self._known = {one for one in ids if one}
        self._texts: dict[bytes, str] = {}
        self._met: set[bytes] = set()
        self._items: dict[bytes, tuple[bytes, tuple[str, ...]]] = {}
        self._values: dict[bytes, Any] = {}
        self._chains: dict[bytes, _Chain] = {}
        self._links: dict[bytes, chain.Link | None] = {}
        self.unread = 0

    def detach(self) -> None:
        """Let go of the connection: what is read from now on opens its own."""
        self._connection = None

    # -- first the ids, of all that the run held

    def meet(self, domain: int, digest: bytes) -> None:
        """Learn the ids that stand in a value's declared fields."""
        while domain == CHAIN and digest not in self._met:
            self._met.add(digest)
            link = self._link(digest)
            if link is None:
                return
            self.meet(link.domain, link.item)
            digest = link.previous
        if domain == VALUE and digest not in self._met:
            self._met.add(digest)
            met = Renaming(resolve=self._meeting)
            met.value(self._decoded(digest))
            self._known.update(one for one in met.met.union(met.names) if len(one) >= SHORT)

    def _meeting(self, code: Code, digest: Digest) -> Any:
        if code is Code.ITEM:
            self.meet(VALUE, digest)
        return Reference(code, digest)

    def settle(self) -> None:
        """Every id is known from here on."""
        self._texts = {bytes(text_digest(one)): one for one in self._known}

    # -- then the fingerprints

    def of(self, domain: int, digest: bytes) -> bytes:
        """The fingerprint of a value."""
        if domain == CHAIN:
            return self._chain(digest).print
        return self.item(domain, digest)[0]

    def item(self, domain: int, digest: bytes) -> tuple[bytes, tuple[str, ...]]:
        """The fingerprint of a value that is no list, and its ids in the order of their first use."""
        if domain == TEXT:
            minted = self._texts.get(digest)
            return (b"#", (minted,)) if minted is not None else (digest, ())
        if domain != VALUE:
            return digest, ()
        found = self._items.get(digest)
        if found is None:
            value = self._decoded(digest)
            if isinstance(value, Reference):
                found = digest, ()
            else:
                renaming = Renaming(self._known, self._part)
                print_ = fingerprint(renaming.value(value))
                found = print_, tuple(renaming.names)
            self._items[digest] = found
        return found

    def items(self, domain: int, digest: bytes, count: int) -> list[bytes]:
        """Fingerprints of a list's last items, at most `count`, each by itself; of what is no list, its own."""
        if domain != CHAIN:
            return [self.item(domain, digest)[0]]
        found: list[bytes] = []
        while len(found) < count and (link := self._link(digest)) is not None:
            found.append(self.item(link.domain, link.item)[0])
            digest = link.previous
        return found

    def value(self, domain: int, digest: bytes, renaming: Renaming | None = None) -> Any:
        """A value to read, its ids renamed. What the store has no content for is a Reference."""
        renaming = renaming or self.renaming()
        if domain == CHAIN:
            return [self.value(link.domain, link.item, renaming) for link in self.links(digest)]
        if domain == TEXT:
            return renaming.value(self._whole(Code.TEXT, Digest(digest)))
        if domain == VALUE:
            value = self._decoded(digest)
            return value if isinstance(value, Reference) else renaming.value(value)
        return Digest(digest)

    def renaming(self) -> Renaming:
        """A renaming of this run's ids, for values that are read together."""
        return Renaming(self._known, self._whole)

    def links(self, digest: bytes) -> list[chain.Link]:
        """A list's links, first item first."""
        return chain.links(Digest(digest), self._link)

    def _chain(self, digest: bytes) -> _Chain:
        waiting: list[tuple[bytes, chain.Link]] = []
        known = self._chains.get(digest)
        while known is None:
            link = self._link(digest)
            if link is None:
                known = self._chains[digest] = _Chain(b"" if digest == chain.EMPTY else digest, {}, 0)
                break
            waiting.append((digest, link))
            digest = link.previous
            known = self._chains.get(digest)
        for digest, link in reversed(waiting):
            print_, ids = self.item(link.domain, link.item)
            names, count = known.names, known.count
            if len(names) > count:  # another list went on from here
                names = dict(list(names.items())[:count])
            numbers = [names.setdefault(one, len(names)) for one in ids]
            known = self._chains[digest] = _Chain(fingerprint(known.print, print_, numbers), names, len(names))
        return known

    def _link(self, digest: bytes) -> chain.Link | None:
        if digest not in self._links:
            try:
                self._links[digest] = chain.parse_link(self._store.blob(digest, self._connection)[1])
            except ClewError:
                self._links[digest] = None
                self.unread += digest != chain.EMPTY
        return self._links[digest]

    def _decoded(self, digest: bytes) -> Any:
        if digest not in self._values:
            try:
                self._values[digest] = decoding.decode(self._store.blob(digest, self._connection)[1])
            except ClewError:
                self._values[digest] = Reference(Code.ITEM, Digest(digest))
                self.unread += 1
        return self._values[digest]

    def _part(self, code: Code, digest: Digest) -> Any:
        """A part of a value, long texts by their digest."""
        if code is Code.ITEM:
            return self._decoded(digest)
        if code is Code.TEXT and digest in self._texts:
            return self._texts[digest]
        return Reference(code, digest)

    def _whole(self, code: Code, digest: Digest) -> Any:
        """A part of a value, long texts in full."""
        if code is not Code.TEXT:
            return self._part(code, digest)
        try:
            return self._store.text(digest, self._connection)
        except ClewError:
            return Reference(code, digest)
