"""Where the parts of an encoded value go that are content of their own."""

from __future__ import annotations

from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from clew.store.digest import Digest, Domain, digest, text_bytes

Packed = tuple[msgspec.Raw, int]
"""A value's encoding, and how many containers it is of."""


class Sink(Protocol):
    """Takes the parts of a value and returns the digest they were stored under.

    `clean` and `innocent` save calls: short texts of which `inline` is known, and names of which `named` changes nothing.
    """

    @property
    def clean(self) -> Mapping[str, str]: ...
    @property
    def innocent(self) -> Container[str]: ...

    def text(self, text: str) -> bytes:
        """A text of `encoding.REFERENCE_CHARS` characters or more."""

    def inline(self, text: str) -> str:
        """A shorter text, about to be inlined: returned as it may be stored (redacted)."""

    def named(self, name: str, value: Any) -> Any:
        """A value that stands under a name, which may say that it is secret: returned as it may go on to the others."""

    def bare(self, data: bytes) -> bytes:
        """Fewer bytes, about to be inlined: returned as they may be stored."""

    def data(self, domain: Domain, data: bytes) -> bytes:
        """Bytes, a tensor or an encoded value."""

    def item(self, kind: str, value: Any, encoded: bytes, complete: bool) -> bytes:
        """A document or message whose own encoding is `encoded`; `complete`: with no opaque marker in it."""

    def packed(self, content: bytes) -> Packed | None:
        """A small dict of plain values that was met before."""

    def keep_packed(self, content: bytes, packed: Packed) -> None:
        """One in which nothing was changed, and of which nothing is stored elsewhere."""

    def seen(self, value: Any) -> bytes | None:
        """The digest of this very item if it was met before and has not changed since; saves walking it again."""


class Digester:
    """The sink that stores nothing: it only says what each part's digest is."""

    clean: Mapping[str, str] = MappingProxyType({})
    innocent: Container[str] = ()

    def text(self, text: str) -> Digest:
        return digest(Domain.TEXT, text_bytes(text))

    def inline(self, text: str) -> str:
        return text

    def named(self, name: str, value: Any) -> Any:
        return value

    def bare(self, data: bytes) -> bytes:
        return data

    def data(self, domain: Domain, data: bytes) -> Digest:
        return digest(domain, data)

    def item(self, kind: str, value: Any, encoded: bytes, complete: bool) -> Digest:
        return digest(Domain.VALUE, encoded)

    def packed(self, content: bytes) -> Packed | None:
        return None

    def keep_packed(self, content: bytes, packed: Packed) -> None:
        pass

    def seen(self, value: Any) -> Digest | None:
        return None
