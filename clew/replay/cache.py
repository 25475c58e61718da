"""The cache: the policy that answers a call with what the same call was answered before.

An answer is served only for an equal key (key.py), and only if it comes back exactly as it was given (answer.py). What
cannot be told apart, kept or read is called, and the span says why. Errors, refusals and answers that were cut short are
not used again. Nothing here raises into the user's program, save what the call itself raises.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import msgspec

from clew.lineage import index
from clew.replay.answer import copied, pack, texts, unpack
from clew.replay.batch import Batches, Together
from clew.replay.effect import Effect, effect_of
from clew.replay.flight import Flights, KeyLocks
from clew.replay.flight.stripe import UNWRITABLE
from clew.replay.key import Key, Part, asked_key, key_of
from clew.replay.settings import Cache, here
from clew.store import blob
from clew.store.action import Actions
from clew.store.digest import Domain
from clew.store.errors import ClewError, StoreUnwritable, Unkeyable, Unstorable
from clew.store.eviction import Bound
from clew.store.log import framed
from clew.store.record import Action
from clew.store.sharing import Sharing, is_older
from clew.tracer.boundary import MISSING, Call
from clew.tracer.capture import Batch
from clew.tracer.credential import names_a_secret
from clew.tracer.exchange import Exchange
from clew.tracer.init import Tracer

Chunks = list[tuple[int, Any]]
_PURE = Effect("pure")
_PIECE_BYTES = 1 << 20  # of answers that are written at once


class Asked(msgspec.Struct, frozen=True):
    """A call that may be answered from the cache."""

    call: Call
    exchange: Exchange
    key: Key
    expires_after_ns: int | None


class _Heard:
    """The chunks of a stream as they were when they came, each with the nanoseconds since the call."""

    def __init__(self) -> None:
        self.started_ns = time.time_ns()
        self.chunks: Chunks = []

    def add(self, chunk: Any) -> None:
        self.chunks.append((time.time_ns() - self.started_ns, copied(chunk)))


async def _yielded(chunks: list[Any]) -> AsyncIterator[Any]:
    for chunk in chunks:
        yield chunk


class CachePolicy:
    """Answers calls from the actions of a store, and adds to them."""

    def __init__(self, tracer: Tracer, said: Cache | None) -> None:
        self.tracer = tracer
        self.said = said
        folder = tracer.folder.lock / "flight"
        self._batches = Batches(self, KeyLocks(folder, self._alone))
        self._flights = Flights(folder, fault=self._alone)
        self._opened: tuple[object, Actions] | None = None  # by which process
        self._told: set[tuple[str, str]] = set()
        self._bound = Bound(said.bound_bytes) if said is not None and said.bound_bytes is not None else None

    # -- boundary.Policy

    def call(self, call: Call, perform: Callable[[], Any]) -> Any:
        asked = self._ask(call)
        if asked is None:
            return perform()
        if isinstance(asked, Together):
            return self._batches.call(call, asked, perform)
        if (known := self._find(asked, near=True)) is not None:
            self._hit(asked, known[0])
            return known[2]
        made: list[Any] = []

        def compute() -> bytes | None:
            started = time.time_ns()
            made.append(perform())
            return self._keep(asked, made[0], None, started)

        found, _ = self._flights.call(asked.key.digest, lambda: self._look(asked), compute)
        if made:
            return made[0]
        served = self._served(asked, found)
        return perform() if served is MISSING else served

    async def call_async(self, call: Call, perform: Callable[[], Awaitable[Any]]) -> Any:
        asked = self._ask(call)
        if asked is None:
            return await perform()
        if isinstance(asked, Together):
            return await self._batches.call_async(call, asked, perform)
        if (known := self._find(asked, near=True)) is not None:
            self._hit(asked, known[0])
            return known[2]
        made: list[Any] = []

        async def compute() -> bytes | None:
            started = time.time_ns()
            made.append(await perform())
            return self._keep(asked, made[0], None, started)

        found, _ = await self._flights.call_async(asked.key.digest, lambda: self._look(asked), compute)
        if made:
            return made[0]
        served = self._served(asked, found)
        return await perform() if served is MISSING else served

    def stream(self, call: Call, perform: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        asked = self._ask(call)
        if asked is None or isinstance(asked, Together):
            return perform()
        if (chunks := self._look_chunks(asked, near=True)) is not MISSING:
            return iter(chunks)

        def compute() -> Iterator[Any]:
            heard = _Heard()
            for chunk in perform():
                heard.add(chunk)
                yield chunk
            self._keep(asked, None, heard.chunks, heard.started_ns)

        return self._flights.stream(asked.key.digest, lambda: self._look_chunks(asked), compute, copy=copied)

    def stream_async(self, call: Call, perform: Callable[[], AsyncIterator[Any]]) -> AsyncIterator[Any]:
        asked = self._ask(call)
        if asked is None or isinstance(asked, Together):
            return perform()
        if (chunks := self._look_chunks(asked, near=True)) is not MISSING:
            return _yielded(chunks)

        async def compute() -> AsyncIterator[Any]:
            heard = _Heard()
            async for chunk in perform():
                heard.add(chunk)
                yield chunk
            self._keep(asked, None, heard.chunks, heard.started_ns)

        return self._flights.stream_async(asked.key.digest, lambda: self._look_chunks(asked), compute, copy=copied)

    # -- what is asked

    def _ask(self, call: Call) -> Asked | Together | None:
        if call.exchange is None or call.span is None:
            return None
        if (uncached := call.facts.get("uncached")) is not None:  # a layer above knows what no key tells
            call.span.attributes({"clew.cache.bypass": uncached})
            return None
        settings = here(self.said, asked_for=call.operation == "call")
        if settings is None or ("function" if call.operation == "call" else call.kind) not in settings.kinds:
            return None
        try:
            exchange: Any = call.exchange()
            if exchange is None:  # of a shape that no answer is kept of
                return None
            if hasattr(exchange, "each"):
                call.narrow = exchange.narrowed
                each = [self._asked(call, one, _PURE, settings) for one in exchange.each()]
                return Together(exchange, each)
            effect = getattr(exchange, "effect", _PURE)
            if effect.name == "never":
                return None
            if call.kind == "tool":
                told = settings.effect_of(call.name) or effect_of(call.instance)
                if told is None or told.name == "never":
                    self._bypassed(call, f"nothing says what the tool {call.name!r} does: see clew.effect", told)
                    return None
                effect = told
            return self._asked(call, exchange, effect, settings)
        except Unkeyable as error:
            self._bypassed(call, str(error), None)
        except Exception as error:
            self.tracer.faults.add("cache key", error)
        return None

    def _asked(self, call: Call, exchange: Exchange, effect: Effect, settings: Cache) -> Asked:
        ttl = effect.ttl_seconds
        if settings.ttl is not None:
            ttl = min(one for one in (ttl, settings.ttl_seconds) if one is not None)
        assert call.span is not None
        gate, occurrence = self.tracer.gate, (call.span.path, call.occurrence)
        if effect.idempotency_key is None:
            key = asked_key(gate, call.kind, exchange, occurrence)
        else:
            parts = exchange.parts()
            arguments = parts["arguments"]
            given = arguments.value if isinstance(arguments, Part) else arguments
            parts = {"tool": parts["tool"], "idempotency": effect.idempotency_key(given)}
            key = key_of(gate, call.kind, exchange, parts, occurrence)
        return Asked(call, exchange, key, None if ttl is None else int(ttl * 1e9))

    def _bypassed(self, call: Call, reason: str, told: Effect | None) -> None:
        """A call that goes by the cache; its span says why, and so does the log of the program, once."""
        assert call.span is not None
        if told is None:
            call.span.attributes({"clew.cache.bypass": reason[:500]})
            if (call.name, reason) not in self._told and len(self._told) < 1000:
                self._told.add((call.name, reason))
                self.tracer.faults.tell(f"not cached: {call.kind} {call.name}: {reason}")

    def _alone(self, error: OSError) -> None:
        told = f"no locks can be had in {self.tracer.folder.lock}: {error.strerror or type(error).__name__}"
        fault = StoreUnwritable(told) if error.errno in UNWRITABLE else told
        self.tracer.faults.add("single-flight between processes", fault)

    # -- what was answered

    @property
    def actions(self) -> Actions:
        """The store's actions; a forked child opens the store anew."""
        process = self.tracer.process_run
        if self._opened is None or self._opened[0] is not process:
            sharing = None
            if self.said is not None and self.said.remote is not None:
                folder = self.tracer.folder
                sharing = Sharing(self.said.open_remote, folder.hot, folder.redaction_key(), self.tracer.faults.add)
                self.tracer.waits.append(sharing.wait)
            self._opened = process, Actions(index.shared(self.tracer.folder)[0], sharing)
        return self._opened[1]

    def fetch(self, keys: list[bytes]) -> None:
        """Have answers of others at hand that are about to be looked for one by one."""
        with self.tracer.faults.guard("cache lookup"):
            self.actions.fetch(keys, time.time_ns())

    def _find(self, asked: Asked, *, chunks: bool = False, near: bool = False) -> tuple[Action, bytes, Any] | None:
        """What is known (with `near`, in this store): its action, its bytes, and the response or the chunks; None where
        nothing that can be read is."""
        try:
            now, actions = time.time_ns(), self.actions
            entry = actions.look(asked.key.digest, now, near=near)
            if entry is None or is_older(entry, asked.expires_after_ns, now):
                return None  # what was said when it was kept counts, and what is said now
            data = actions.answer(entry)
            told = unpack(data)
            return entry, data, asked.exchange.load_chunks(told) if chunks else asked.exchange.load(told)
        except (Unstorable, ClewError):
            return None
        except Exception as error:
            self.tracer.faults.add("cache lookup", error)
            return None

    def _look(self, asked: Asked, *, into: list[Action] | None = None) -> Any:
        """The bytes of a known answer, or MISSING."""
        found = self._find(asked)
        if found is None:
            return MISSING
        entry, data, _ = found
        if into is None:
            self._hit(asked, entry)
        else:
            into.append(entry)
        return data

    def _look_chunks(self, asked: Asked, *, near: bool = False) -> Any:
        """The chunks of a known answer, or MISSING."""
        found = self._find(asked, chunks=True, near=near)
        if found is None:
            return MISSING
        self._hit(asked, found[0])
        return [chunk for _, chunk in found[2]]

    def _served(self, asked: Asked, data: bytes | None) -> Any:
        """The response of an answer that was found, or that another caller has just got; MISSING where that one is not to
        be used again."""
        if data is None:
            return MISSING
        try:
            response = asked.exchange.load(unpack(data))
        except Exception as error:
            self.tracer.faults.add("cached answer", error)
            return MISSING
        if asked.call.span is not None and "served" not in asked.call.span.facts:
            self._hit(asked, self.actions.look(asked.key.digest, time.time_ns()))
        return response

    def _hit(self, asked: Asked, entry: Action | None) -> None:
        span = asked.call.span
        assert span is not None
        span.facts["served"] = True
        about: dict[str, Any] = {
            "clew.cache.hit": True,
            "clew.cache.key": asked.key.digest.hex(),
            "clew.cache.model": asked.exchange.model,
        }
        if entry is not None:
            about["clew.cache.saved.duration_ns"] = entry.duration_ns
            about["clew.cache.saved.input_tokens"] = entry.input_tokens
            about["clew.cache.saved.output_tokens"] = entry.output_tokens
            if entry.span_id:
                span.link(entry.trace_id, entry.span_id, "served_from")
        span.attributes(about)

    def _keep(self, asked: Asked, response: Any, chunks: Chunks | None, started_ns: int) -> bytes | None:
        """Publish an answer; its bytes, or None if it is not to be used again."""
        duration_ns, span = time.time_ns() - started_ns, asked.call.span
        assert span is not None
        span.attributes(
            {
                "clew.cache.hit": False,
                "clew.cache.key": asked.key.digest.hex(),
                "clew.cache.model": asked.exchange.model,
            }
        )
        kept = self._kept(asked, response, chunks, duration_ns)
        return kept[1] if kept is not None and self._publish([kept]) else None

    def keep_all(self, answered: Iterable[tuple[Asked, Any]], duration_ns: int) -> None:
        """Publish the answers of a batch, each of which took so long."""
        kept = [self._kept(asked, response, None, duration_ns) for asked, response in answered]
        self._publish([one for one in kept if one is not None])

    def _kept(
        self, asked: Asked, response: Any, chunks: Chunks | None, duration_ns: int
    ) -> tuple[Action, bytes] | None:
        """The action of an answer, and its bytes; None if it is not to be used again."""
        span = asked.call.span
        assert span is not None
        try:
            reason = asked.exchange.refused(response, chunks)
            if reason is None:
                told = asked.exchange.dump(response, chunks)
                data = pack(told)
                reason = self.secret(data)
            if reason is None:
                return self._action(asked, told, data, duration_ns), data
        except Unstorable as error:
            reason = str(error)
        except Exception as error:
            self.tracer.faults.add("cached answer", error)
            return None
        span.attributes({"clew.cache.refused": reason[:500]})
        return None

    def _publish(self, kept: list[tuple[Action, bytes]]) -> bool:
        try:
            self.publish(kept)
        except Exception as error:
            self.tracer.faults.add("cached answer", error)
            return False
        return True

    def secret(self, data: bytes) -> str | None:
        """Why an answer may not stand in the store as it is."""
        cleaner, found = self.tracer.gate.cleaner, "the answer holds a credential"
        whole = []
        for name, value in texts(data):
            if name is not None and names_a_secret(name) and cleaner.named(name, value) is not value:
                return found
            if isinstance(value, bytes):
                if cleaner.data(value) is not value:
                    return found
            elif isinstance(value, str):
                whole.append(value)
                if cleaner.text(value) is not value:
                    return found
        joined = "".join(whole)
        return found if cleaner.text(joined) is not joined else None

    def _action(self, asked: Asked, told: Any, data: bytes, duration_ns: int) -> Action:
        span, now = asked.call.span, time.time_ns()
        assert span is not None
        input_tokens, output_tokens = asked.exchange.usage(told)
        return Action(
            key=asked.key.digest,
            kind=asked.call.kind,
            operation=asked.exchange.operation,
            when_ns=now,
            fields=asked.key.fields,
            answer=data,
            trace_id=span.trace_id,
            span_id=span.span_id,
            run_id=span.run.run_id,
            occurrence=asked.call.occurrence,
            model=asked.exchange.model,
            duration_ns=duration_ns,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            expires_ns=None if asked.expires_after_ns is None else now + asked.expires_after_ns,
        )

    def publish(self, answered: Iterable[tuple[Action, bytes]], *, shared: bool = True) -> None:
        """Have this process and others find actions, each with the bytes of its answer. StoreError where they cannot be
        written."""
        piece: list[tuple[Action, bytes]] = []
        size = 0
        for one in answered:
            piece.append(one)
            size += len(one[1])
            if size > _PIECE_BYTES:
                self._write(piece, shared=shared)
                piece, size = [], 0
        self._write(piece, shared=shared)

    def _write(self, answered: list[tuple[Action, bytes]], *, shared: bool) -> None:
        if not answered:
            return
        log, entries = self.tracer.log, [self._aside(*one) for one in answered]
        frames = [framed(one) for one in entries]
        offset = log.append(frames)
        if offset >= 0 and log.stem is not None:
            places = itertools.accumulate(map(len, frames), initial=offset)
            self.actions.publish((entry, log.stem.name, at) for entry, at in zip(entries, places, strict=False))
        if shared:
            for entry, (_, data) in zip(entries, answered, strict=True):
                self.actions.share(entry, data)
        if self._bound is not None:
            with self.tracer.faults.guard("cache eviction"):
                self._bound.added(self.actions, log, [len(data) for _, data in answered], entries[-1].when_ns)

    def _aside(self, entry: Action, data: bytes) -> Action:
        """The action, with a long answer as a blob of its own."""
        if len(data) <= blob.FILE_BYTES:
            return entry
        batch = Batch(self.tracer.gate)
        name = bytes(batch.data(Domain.BYTES, data))
        batch.commit()
        return msgspec.structs.replace(entry, answer=b"", blob=name, blob_bytes=len(data))
