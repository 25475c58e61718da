"""Lists as hash chains: each link names the one before it and one item, so a list that grows stores only what is new.

    c_0 = digest of the empty list,  c_n = digest(c_{n-1}, form of item_n, digest of item_n)

Turn 50 of a chat shares its first 98 links with turn 49.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from clew.store.digest import DOMAINS, Digest, Domain, digest

_BYTE = [bytes((number,)) for number in range(256)]
EMPTY = digest(Domain.CHAIN, b"")


class Link(NamedTuple):
    """One link: the chain before it, and its item's domain and digest."""

    previous: Digest
    domain: Domain
    item: Digest


def link_bytes(previous: bytes, domain: int, item: bytes) -> bytes:
    """The stored form of a link: previous, one byte for the item's domain, item (65 bytes)."""
    return bytes(previous) + _BYTE[domain] + bytes(item)


def parse_link(data: bytes) -> Link | None:
    """The link stored as `data`; None for the empty list."""
    if not data:
        return None
    return Link(Digest(data[:32]), DOMAINS[data[32]], Digest(data[33:65]))


def chain_digest(items: Iterable[tuple[Domain, Digest]]) -> Digest:
    """The digest of a whole list."""
    current = EMPTY
    for domain, item in items:
        current = digest(Domain.CHAIN, link_bytes(current, domain, item))
    return current


def links(chain: Digest, read: Callable[[Digest], Link | None]) -> list[Link]:
    """All links of a list, first item first. `read` gives the link with a digest."""
    found: list[Link] = []
    while chain != EMPTY:
        link = read(chain)
        if link is None:
            break
        found.append(link)
        chain = link.previous
    found.reverse()
    return found
