"""What a call asks, as a recording names it: by the digest of its key, or where it has none, of what can be seen of it."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from clew.replay.key import asked_key, key_of
from clew.replay.recording.loose import Renamed, loose
from clew.store.errors import ClewError, Unkeyable
from clew.tracer.boundary import Call
from clew.tracer.init import Tracer
from clew.tracer.span import OpenRun

CLOCK = b"clock"  # what a reading of the clock asks
CONSOLE = b"console"  # what a person is asked at the console
THREAD = b"thread"  # from where a graph began, and with which answer of a person
NO_CALL = frozenset((CLOCK, CONSOLE, THREAD))
_NOWHERE = ("", 0)


class Request(NamedTuple):
    """What is asked. `loose` says why it has no key; "" of one that has."""

    exchange: Any
    digest: bytes
    fields: dict[str, bytes]
    loose: str


class Requests(NamedTuple):
    """What one call asks: one thing, or the several of a batch."""

    all: list[Request]
    batch: Any  # the exchange of all, or None


def requests(tracer: Tracer, call: Call) -> Requests | None:
    """What `call` asks; None where nothing tells: no answer can be kept of it, or found for it."""
    if call.exchange is None or call.span is None:
        return None
    known = call.facts.get("requests")
    if known is None:
        known = call.facts["requests"] = _requests(tracer, call)
    return known if isinstance(known, Requests) else None


def _requests(tracer: Tracer, call: Call) -> Requests | bool:
    assert call.exchange is not None
    try:
        exchange: Any = call.exchange()
        if exchange is None:
            return False
        if not hasattr(exchange, "each"):
            return Requests([_request(tracer, call, exchange)], None)
        return Requests([_request(tracer, call, one) for one in exchange.each()], exchange)
    except Exception as error:
        tracer.faults.add("recorded request", error)
        return False


def _request(tracer: Tracer, call: Call, exchange: Any) -> Request:
    try:
        key = asked_key(tracer.gate, call.kind, exchange, _NOWHERE)
        return Request(exchange, bytes(key.request), key.fields, "")
    except Unkeyable as error:
        reason = str(error)
    renamed: Renamed = {}
    seen = {name: ["loose", loose(value, renamed)] for name, value in exchange.seen().items()}
    try:
        key = key_of(tracer.gate, call.kind, exchange, seen, _NOWHERE)
    except ClewError:  # a value of a type that only looks plain
        key = key_of(tracer.gate, call.kind, exchange, {name: repr(type(one)) for name, one in seen.items()}, _NOWHERE)
    return Request(exchange, bytes(key.request), key.fields, reason[:500])


def number(run: OpenRun, path: str, what: bytes, *, by: str = "recorded") -> int:
    """For the how-manieth time this is asked at a place of a run, from 0, as one who counts knows it."""
    return next(run.calls.setdefault((by, path, what), itertools.count()))  # one step: branches run in threads
