"""Digests: their values are part of the format, so these literals never change."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.store.chain import EMPTY
from clew.store.digest import Digest, DigestStream, Domain, digest, text_bytes, text_digest, text_of

GOLDEN_DOMAINS = {
    "TEXT": "b3:3aaed354156be905b7089f51b98ba5f706383b1db154997b1d84f12f5aba776d",
    "VALUE": "b3:c618d149d210378771dcd23e6843220c6542faf5bf8d8c84c1a9f472e9b1598d",
    "BYTES": "b3:a7d0a223252808958dc8b1a00cc379b7f514d7348e35b0f91f2c16ca02ce56bb",
    "TENSOR": "b3:6f2f98a2ad9461a00425856dab8aa64d4634424b9fd35923910ae6797a4a944f",
    "TREE": "b3:7826a13d3f65e4fa0ac79d6ad9e0cc17245b6b3652a52c17e698154e81efb961",
    "CHAIN": "b3:85f795b7aeb530d2c282d1f0348bda18d64f7fa31dcc1b58f8a1357ae5f08825",
    "ACTION": "b3:93d604359c6fc98d31e283beda2d9b7b7904e8c995ba445deba78b230e284871",
}
GOLDEN_TEXTS = {
    "": "b3:0b316914de23a64b531aedcbb0581902faa3e59e732e58e0112b1b2fdeff02ce",
    "clew": "b3:3aaed354156be905b7089f51b98ba5f706383b1db154997b1d84f12f5aba776d",
    "Ariadne's thread\n": "b3:67ab4ab73e825957c7b2587d126facee3667bad338d6dcadbce8aca7f82ec690",
    "Gr\xfc\xdfe, \u4e16\u754c \U0001f9f6": "b3:3a0ff7957ba79449e43f3fc7522962c5c5706a19693f988b5b44f53e472d2509",
    "e\u0301": "b3:968145b33eb65aac5e4117a634502d35ccc7cb1b7e6b3b8f33d91970beabec85",
    "\xe9": "b3:51724446779d1a88ad956c3651c80234926d23f06ab5570d261ba139a46416c7",
    "\ud800": "b3:0f642bdb3aa7b451e86424cc703aa07fa0c1e06e40104107de6b09d55253d419",
    "a\x00b": "b3:c88d89af4b3f9186894c6579f60b93f8703abd250b1065394a9e9ec644897356",
}


@pytest.mark.parametrize("domain", Domain, ids=lambda domain: domain.name)
def test_the_digest_of_the_same_bytes_in_each_domain_is_golden(domain: Domain) -> None:
    assert str(digest(domain, b"clew")) == GOLDEN_DOMAINS[domain.name]


@pytest.mark.parametrize("text", GOLDEN_TEXTS, ids=ascii)
def test_the_digest_of_a_text_is_golden(text: str) -> None:
    assert str(text_digest(text)) == GOLDEN_TEXTS[text]


def test_domains_keep_their_numbers() -> None:
    numbers = {domain.name: int(domain) for domain in Domain}
    assert numbers == {"TEXT": 1, "VALUE": 2, "BYTES": 3, "TENSOR": 4, "TREE": 5, "CHAIN": 6, "ACTION": 7}


def test_the_empty_list_is_golden() -> None:
    assert str(EMPTY) == "b3:f6d9970ffab86d50051cc565821611269d2c64de406ffbe83d0d5503e6327a41"


def test_a_digest_prints_parses_and_sorts_as_its_hex() -> None:
    one = text_digest("clew")
    assert Digest.parse(str(one)) == Digest.parse(one.hex()) == Digest.parse(one.hex().upper()) == one
    assert repr(one) == f"Digest('{one}')"
    others = sorted(text_digest(str(number)) for number in range(50))
    assert [str(each) for each in others] == sorted(str(each) for each in others)


@pytest.mark.parametrize("text", ["", "b3:", "b3:12", "x" * 64, "b3:" + "g" * 64, "ab " * 21 + "a", "٣" * 64])
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a digest"):
        Digest.parse(text)


@given(st.text(st.characters()))
def test_a_text_survives_its_bytes_lone_surrogates_too(text: str) -> None:
    assert text_of(text_bytes(text)) == text


@given(st.lists(st.binary()))
def test_a_digest_made_piece_by_piece_is_that_of_the_whole(pieces: list[bytes]) -> None:
    stream = DigestStream(Domain.BYTES)
    for piece in pieces:
        stream.update(piece)
    assert stream.digest() == digest(Domain.BYTES, b"".join(pieces))


def test_a_domain_is_no_prefix_of_another() -> None:
    """Not a hash of (prefix + bytes), which another domain's bytes could imitate."""
    assert bytes(digest(Domain.TEXT, b"clew")) not in {
        hashlib.sha256(b"clew").digest(), *(bytes(digest(each, b"clew")) for each in Domain if each is not Domain.TEXT)
    }  # fmt: skip
