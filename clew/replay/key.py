"""Keys: what a call asks, as one digest.

A key is made of everything that may decide the answer, in the strict encoding: a type with no canonical form makes no
key, and a field that nobody thought of is in it. So what is forgotten costs a miss, and never a wrong answer. Credentials
are redacted before anything is hashed, as everywhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from clew.store import chain
from clew.store.digest import CHAIN, VALUE, Digest, Domain, digest, raw_digest
from clew.store.encoding import encode_key
from clew.store.errors import EncodingError, Unkeyable
from clew.tracer.capture import Batch
from clew.tracer.exchange import Exchange
from clew.tracer.gate import Gate

_VERSION = 1
_pack = msgspec.msgpack.Encoder(order="sorted", enc_hook=bytes).encode


class Key(NamedTuple):
    """A key, and what it was made of: name -> digest, to tell why it is another one than some other.

    `request` says what is asked; `digest` which time as well, where it is sampled.
    """

    digest: Digest
    request: Digest
    fields: dict[str, bytes]


def key_of(gate: Gate, kind: str, exchange: Exchange, parts: dict[str, Any], occurrence: tuple[str, int]) -> Key:
    """The key of a call that asks with `parts`: where it is sampled, the so-and-so-many-th of its kind at a place in its
    run (span path and number). Raises Unkeyable."""
    sink = Batch(gate)  # which redacts, and is never written
    fields: dict[str, bytes] = {}
    for name, value in parts.items():
        try:
            fields[name] = _list(value, sink) if type(value) is Listed else raw_digest(VALUE, encode_key(value, sink))
        except EncodingError as error:
            raise Unkeyable(f"{name}: {error}") from error
    request = request_of(kind, exchange.operation, fields)
    made = digest(Domain.ACTION, _pack([_VERSION, request, *occurrence])) if exchange.sampled else request
    return Key(made, request, fields)


def request_of(kind: str, operation: str, fields: dict[str, bytes]) -> Digest:
    """What is asked, as one digest: the key of a call that is not sampled."""
    return digest(Domain.ACTION, _pack([_VERSION, kind, operation, fields]))


class Listed(list[Any]):
    """A list that grows at its end from call to call, such as a conversation: its digest is a hash chain."""


def _list(values: Listed, sink: Batch) -> bytes:
    current = bytes(chain.EMPTY)
    for value in values:
        item = raw_digest(VALUE, encode_key(value, sink))
        current = raw_digest(CHAIN, chain.link_bytes(current, VALUE, item))
    return current
