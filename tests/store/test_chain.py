"""Lists as hash chains: a list that grows stores only what is new, and every list has a name of its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clew.store.chain import EMPTY, Link, chain_digest, link_bytes, links, parse_link
from clew.store.digest import Digest, Domain, digest, text_digest

items = st.lists(st.tuples(st.sampled_from([Domain.TEXT, Domain.VALUE, Domain.CHAIN]), st.binary(max_size=3)))


def named(pairs: list[tuple[Domain, bytes]]) -> list[tuple[Domain, Digest]]:
    return [(domain, digest(domain, data)) for domain, data in pairs]


def stored(pairs: list[tuple[Domain, Digest]]) -> dict[Digest, bytes]:
    kept = {EMPTY: b""}
    current = EMPTY
    for domain, item in pairs:
        data = link_bytes(current, domain, item)
        current = digest(Domain.CHAIN, data)
        kept[current] = data
    return kept


@given(items)
def test_a_list_is_read_back_from_its_digest(pairs: list[tuple[Domain, bytes]]) -> None:
    wanted = named(pairs)
    found = links(chain_digest(wanted), lambda link: parse_link(stored(wanted)[link]))
    assert [(link.domain, link.item) for link in found] == wanted


@given(items, items)
def test_two_lists_have_two_digests(one: list[tuple[Domain, bytes]], other: list[tuple[Domain, bytes]]) -> None:
    assert (chain_digest(named(one)) == chain_digest(named(other))) == (one == other)


def test_a_chat_of_fifty_turns_stores_each_message_once() -> None:
    messages = [(Domain.TEXT, text_digest(str(turn))) for turn in range(100)]
    kept: dict[Digest, bytes] = {}
    for turn in range(2, 101, 2):
        kept |= stored(messages[:turn])
    assert len(kept) == 101  # a link for each message, and the empty list
    assert all(len(data) in (0, 65) for data in kept.values())


def test_the_chain_of_two_texts_is_golden() -> None:
    chain = chain_digest([(Domain.TEXT, text_digest("a")), (Domain.TEXT, text_digest("b"))])
    assert str(chain) == "b3:5e572eceaea617d4165fd9cba5a0818f8c8c81610e6e292eb2094bfa04a88e3d"
    assert parse_link(b"") is None
    assert parse_link(link_bytes(EMPTY, Domain.TEXT, text_digest("a"))) == Link(EMPTY, Domain.TEXT, text_digest("a"))
