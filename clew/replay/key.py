"""Keys: what a call asks, as one digest.

A key is made of everything that may decide the answer, in the strict encoding: a type with no canonical form makes no
key, and a field that nobody thought of is in it. So what is forgotten costs a miss, and never a wrong answer. Credentials
are redacted before anything is hashed, as everywhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from clew.replay.identity import identity
from clew.store import chain
from clew.store.digest import CHAIN, VALUE, Digest, Domain, digest, raw_digest
from clew.store.encoding import encode_key
from clew.store.errors import EncodingError, Unkeyable
from clew.store.plain import is_plain, marshalled
from clew.tracer.capture import Batch
from clew.tracer.exchange import Exchange
from clew.tracer.gate import Gate

_VERSION = 2
_REMEMBERED = 4096
_pack = msgspec.msgpack.Encoder(order="sorted", enc_hook=bytes).encode


class Key(NamedTuple):
    """A key, and what it was made of: name -> digest, to tell why it is another one than some other.

    `request` says what is asked; `digest` which time as well, where it is sampled.
    """

    digest: Digest
    request: Digest
    fields: dict[str, bytes]


def asked_key(gate: Gate, kind: str, exchange: Exchange, occurrence: tuple[str, int]) -> Key:
    """The key of a call, as `key_of`; at once where the exchange knows it."""
    if (known_of := getattr(exchange, "known", None)) is None:
        return key_of(gate, kind, exchange, exchange.parts(), occurrence)
    known: Key | None = known_of(gate)
    if known is None:
        version = gate.secrets.version
        made = key_of(gate, kind, exchange, exchange.parts(), occurrence)
        known = Key(made.request, made.request, made.fields)
        if gate.version == version == gate.secrets.version:
            exchange.learn(known)  # type: ignore[attr-defined]
    return numbered(known, occurrence) if exchange.sampled else known


def key_of(gate: Gate, kind: str, exchange: Exchange, parts: dict[str, Any], occurrence: tuple[str, int]) -> Key:
    """The key of a call that asks with `parts`: where it is sampled, the so-and-so-many-th of its kind at a place in its
    run (span path and number). Raises Unkeyable."""
    sink = Batch(gate)  # which redacts, and is never written
    fields: dict[str, bytes] = {}
    for name, value in parts.items():
        try:
            fields[name] = value.digest(sink) if isinstance(value, Part) else raw_digest(VALUE, encode_key(value, sink))
        except EncodingError as error:
            raise Unkeyable(f"{name}: {error}") from error
    request = request_of(kind, exchange.operation, fields)
    key = Key(request, request, fields)
    return numbered(key, occurrence) if exchange.sampled else key


def numbered(key: Key, occurrence: tuple[str, int]) -> Key:
    """The key of a sampled call: of the so-and-so-many-th of its kind at a place in its run."""
    return key._replace(digest=digest(Domain.ACTION, _pack([_VERSION, key.request, *occurrence])))


def request_of(kind: str, operation: str, fields: dict[str, bytes]) -> Digest:
    """What is asked, as one digest: the key of a call that is not sampled."""
    asked = (kind, operation, *fields, *fields.values())
    request = _requests.get(asked)
    if request is None:
        request = digest(Domain.ACTION, _pack([_VERSION, kind, operation, fields]))
        if len(_requests) >= _REMEMBERED:
            _requests.clear()
        _requests[asked] = request
    return request


_requests: dict[tuple[Any, ...], Digest] = {}


class AskedBefore:
    """Keys of what one model or the like was asked, by its texts and by all else that tells it: with those alike, the key is
    the same. So one that is asked the very same again needs no parts. They are not `numbered`.

    A long text is new each time, as a rule, and to compare it with a few takes less time than to hash it.
    """

    __slots__ = ("_count", "_kept", "_size")

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], dict[tuple[str, ...], Key]] = {}
        self._count = self._size = 0

    def get(self, told: tuple[Any, ...], texts: tuple[str, ...]) -> Key | None:
        """The key of what is told so, with these texts; None if it is not known."""
        alike = self._kept.get(told, _NOTHING)
        if len(alike) > _FEW:
            return alike.get(texts)
        for known, key in alike.items():
            if known == texts:
                return key
        return None

    def keep(self, told: tuple[Any, ...], texts: tuple[str, ...], key: Key) -> None:
        """Remember a key."""
        if self._size > _KEPT_CHARS or self._count >= _REMEMBERED:
            self._kept, self._count, self._size = {}, 0, 0
        alike = self._kept.get(told, _NOTHING)
        self._size += sum(map(len, texts))
        if not alike:
            self._size += sum(len(one) for one in told if type(one) is bytes)
        self._count += 1
        if len(alike) > _FEW:
            alike[texts] = key
        else:  # another thread may go through it
            self._kept[told] = {**alike, texts: key}


_KEPT_CHARS, _FEW = 4 << 20, 8  # characters and bytes that are kept; texts that are compared one by one
_NOTHING: dict[tuple[str, ...], Key] = {}


class Part:
    """A part of a request that knows its digest better than by its whole content. `value` is that content."""

    __slots__ = ()

    @property
    def value(self) -> Any:
        """What is asked, as data."""
        raise NotImplementedError

    def digest(self, sink: Batch) -> bytes:
        """The digest of what is asked, redacted by `sink`. Raises EncodingError."""
        raise NotImplementedError


class Listed(Part):
    """A list that grows at its end from call to call, such as a conversation: its digest is a hash chain."""

    __slots__ = ("_value",)

    def __init__(self, value: list[Any]) -> None:
        self._value = value

    @property
    def value(self) -> list[Any]:
        return self._value

    def digest(self, sink: Batch) -> bytes:
        current = bytes(chain.EMPTY)
        for value in self._value:
            current = linked(current, raw_digest(VALUE, encode_key(value, sink)))
        return current


def linked(current: bytes, item: bytes) -> bytes:
    """The digest of a list with one more item."""
    return raw_digest(CHAIN, chain.link_bytes(current, VALUE, item))


class Remembered(Part):
    """A value that is asked with again and again. Whoever gives it knows that it is the same."""

    __slots__ = ("_known", "_value")

    def __init__(self, value: Any) -> None:
        self._value = value
        self._known: tuple[Gate, int, bytes] | None = None

    @property
    def value(self) -> Any:
        return self._value

    def digest(self, sink: Batch) -> bytes:
        known = self._known
        if known is not None and known[0] is sink.gate and known[1] == sink.version:
            return known[2]
        made = raw_digest(VALUE, encode_key(self._value, sink))
        if sink.current:
            self._known = sink.gate, sink.version, made
        return made


def plain_part(value: Any) -> Any:
    """The part of a value that is plain, as options and arguments mostly are: one of equal content is remembered. Of any
    other, its identity. Raises Unkeyable."""
    content = marshalled(value)
    if content is None or len(content) > _LONG:
        return identity(value)
    known = _plain.get(content)
    if known is not None:
        return known
    made = Remembered(identity(value))
    if not is_plain(value) or marshalled(value) != content:
        return made
    if len(_plain) >= _REMEMBERED:
        _plain.clear()
    _plain[content] = made
    return made


_LONG = 1 << 14
_plain: dict[bytes, Remembered] = {}
