"""The replayer: the policy that answers a run's calls as they were recorded, and meets what was not on its terms.

Nothing is served by position: what a call asks, and where, says which recorded answer is its own.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from clew.replay.answer import unpack
from clew.replay.effect import Effect, effect_of
from clew.replay.playback.allowance import forbidden, over
from clew.replay.playback.asked import Asked, Pending, Served, waited
from clew.replay.playback.certificate import Live
from clew.replay.playback.descendant import Processes
from clew.replay.playback.instead import Instead
from clew.replay.playback.miss import told_miss
from clew.replay.playback.note import notes_of
from clew.replay.playback.order import Order
from clew.replay.playback.terms import Terms
from clew.replay.playback.where import Where
from clew.replay.recording import failure, question
from clew.replay.recording.loose import loose
from clew.replay.recording.recording import HERE, Place, Recording, Time
from clew.replay.recording.request import Request, Requests, number, requests
from clew.store import answers
from clew.store.errors import ClewError, OverBudget, ReplayMiss
from clew.store.record import Answer
from clew.store.store import Store
from clew.tracer.boundary import Call
from clew.tracer.init import Tracer
from clew.tracer.span import OpenRun

_AGAIN = ("pure", "read")
_MADE_OF_OTHERS = ("tool", "chain")  # calls of the program's own code, which may make others
_PATCHED = "a patch of a replay may change what it does"
_numbers = itertools.count()


class Replayer(Where):
    """Answers from one recording. `root` is the run that replays it; None where the whole process does."""

    def __init__(self, tracer: Tracer, recording: Recording, store: Store, terms: Terms, root: OpenRun | None) -> None:
        super().__init__(tracer, recording, root)
        self.terms = terms
        self.served: Counter[str] = Counter()
        self.used: list[Answer] = []
        self.live: list[Live] = []
        self.notes: dict[str, None] = {}
        self.failed: ReplayMiss | None = None
        self.over: OverBudget | None = None
        self.spent = 0.0
        self.instead = Instead()  # of what patches say
        self.store = store
        self.processes = Processes()
        self._given: dict[int, tuple[str, ...]] = {}  # recorded answers -> the branch that was given it
        self._order = Order(recording) if terms.ordered else None
        self._number = next(_numbers)  # replays in each other count for themselves

    # -- boundary.Policy

    def call(self, call: Call, perform: Callable[[], Any]) -> Any:
        place = self._place(call)
        if place is None:
            return perform()
        found = self._decide(call, place)
        if isinstance(found, Served):
            for one in found.asked:
                self._turn(one)
            return self._response(call, found)
        response = perform()
        self._was_live(call, found, response)
        return self.instead.changed(call, response)

    async def call_async(self, call: Call, perform: Callable[[], Awaitable[Any]]) -> Any:
        place = self._place(call)
        if place is None:
            return await perform()
        found = self._decide(call, place, pending=True)
        if isinstance(found, Pending):
            await asyncio.sleep(found.seconds)  # until it is given up again
            found = self._missed(call, found.asked, place, found.why)
        if isinstance(found, Served):
            for one in found.asked:
                await self._turn_async(one)
            return self._response(call, found)
        response = await perform()
        self._was_live(call, found, response)
        return self.instead.changed(call, response)

    def stream(self, call: Call, perform: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        place = self._place(call)
        if place is None:
            yield from perform()
            return
        found = self._decide(call, place, streams=True)
        if isinstance(found, Served):
            before = 0
            for after_ns, chunk in self._chunks(call, found):
                if self.terms.pace:
                    time.sleep(max(after_ns - before, 0) * self.terms.pace / 1e9)
                before = after_ns
                yield chunk
            self._to_its_end(call, found)
            self._turn(found.asked[0])
            self._answered(call, found)
            return
        chunks = []
        for chunk in perform():
            chunks.append((0, chunk))
            yield chunk
        self._was_live(call, found, None, chunks)

    async def stream_async(self, call: Call, perform: Callable[[], AsyncIterator[Any]]) -> AsyncIterator[Any]:
        place = self._place(call)
        if place is None:
            async for chunk in perform():
                yield chunk
            return
        found = self._decide(call, place, streams=True)
        if isinstance(found, Served):
            before = 0
            for after_ns, chunk in self._chunks(call, found):
                if self.terms.pace:
                    await asyncio.sleep(max(after_ns - before, 0) * self.terms.pace / 1e9)
                before = after_ns
                yield chunk
            if (given_up := found.asked[0].found) is not None and given_up.left == "cancelled":
                await asyncio.sleep(waited(given_up))
            self._to_its_end(call, found)
            await self._turn_async(found.asked[0])
            self._answered(call, found)
            return
        chunks = []
        async for chunk in perform():
            chunks.append((0, chunk))
            yield chunk
        self._was_live(call, found, None, chunks)

    # -- what is asked

    def _digests(self, call: Call) -> list[bytes]:
        found = requests(self.tracer, call)
        return [] if found is None else [one.digest for one in found.all]

    def _place(self, call: Call) -> Place | None:
        """Where a call is asked, as the recording names it; None of one that is not this replay's."""
        if not self.open or call.span is None:
            return None
        path = self.instead.path(call.instance, call.span.path)
        place = self._of(call.span, path, lambda: self._digests(call))
        if place is None and self._is_lost(call.span):
            self._lost(call)
        return place

    def _lost(self, call: Call) -> None:
        """A call that is asked outside of any run, and so cannot be found. ReplayMiss where it may not go live."""
        assert call.span is not None
        path, why = call.span.path, "asked outside of any run: its thread was given no context"
        if self.terms.mode != "hybrid":
            raise self._miss(call, why, path)
        self._allowed(call, [], Place(HERE, path))
        self._goes_live(call, [], path, why)

    def _decide(self, call: Call, place: Place, *, streams: bool = False, pending: bool = False) -> Any:
        """What the call is answered with (Served); Pending, where it can be, if it was given up; or, where it goes live,
        what it asks. Raises ReplayMiss or OverBudget."""
        if self.failed is not None:
            raise self.failed
        found = requests(self.tracer, call)
        assert call.span is not None
        if found is None:
            return self._missed(call, [], place, "what it asks could not be told when it was recorded")
        asked = [self._asked(call, one, place, streams) for one in found.all]
        unknown = [one for one in asked if self._is_unknown(one, streams)]
        if unknown:
            entry = unknown[0].found
            if pending and entry is not None and entry.left == "cancelled":
                return Pending(asked, waited(entry), self._why(call, unknown[0]))
            return self._missed(call, asked, place, self._why(call, unknown[0]), batch=found)
        for one in asked:
            if (inside := self.instead.inside(one.found, one.request.digest)) is not None:
                told, call.facts["uncached"] = self.tracer.gate.cleaner.text(inside), _PATCHED
                return self._missed(call, asked, place, f"what it does itself is patched: {told}", batch=found)
        return self._serve(call, asked, found.batch is not None)

    def _is_unknown(self, asked: Asked, streams: bool) -> bool:
        """Whether there is no answer; one that was not taken to its end is none but to a stream."""
        found = asked.found
        if found is None or not (found.missing or (found.left and not streams)):
            return found is None
        return self.instead.answer(found, asked.request.digest) is None

    def _asked(self, call: Call, request: Request, place: Place, streams: bool) -> Asked:
        assert call.span is not None
        run, path = self.top(call.span), self.instead.path(call.instance, call.span.path)
        occurrence = number(run, path, request.digest, by=f"replay {self._number}")
        kind = f"{call.kind} {request.exchange.operation}".encode()
        turn = self.turn(call.span, path, kind, by=f"turn {self._number}")
        again = self._is_the_same_again(call, request)
        found = self._found(place, request, self.time(call.span, path, request.digest, by=f"{self._number}"), again)
        if found is not None and found.left and not streams and again:
            found = self.recording.complete(place, request.digest) or found
        if request.loose and self.instead.stands_in(call.instance):
            found = None  # what can be seen of it may not show how it was changed
        return Asked(request, place, occurrence, turn, found)

    def _found(self, place: Place, request: Request, time: Time, again: bool) -> Answer | None:
        with self._lock:
            found = self.recording.find(
                place, request.digest, time, again=again, given=lambda entry: self._given.get(id(entry))
            )
            if found is not None:
                self._given.setdefault(id(found), time.branch)
        return found

    def _is_the_same_again(self, call: Call, request: Request) -> bool:
        """Whether the same request has the same answer wherever and however often it is made."""
        if request.exchange.sampled or request.loose:
            return False
        effect = self._effect(call, request)
        return call.kind not in ("tool", "chain") or (effect is not None and effect.name in _AGAIN)

    def _effect(self, call: Call, request: Request) -> Effect | None:
        told = getattr(request.exchange, "effect", None)
        if told is None:
            said = self.tracer.settings.cache
            told = (said.effect_of(call.name) if said is not None else None) or effect_of(call.instance)
        return told

    def _serve(self, call: Call, asked: list[Asked], batch: bool, *, instead: bool = False) -> Served:
        span = call.span
        assert span is not None
        span.facts["served"] = True
        span.attributes({"clew.replay": "instead" if instead else "served"})
        seen = set()
        with self._lock:
            for one in asked:
                assert one.found is not None
                if one.found.span_id not in seen:
                    seen.add(one.found.span_id)
                    span.link(one.found.trace_id, one.found.span_id, "served_from")
                self.notes.update((f"{call.kind} {call.name} was {told}", None) for told in notes_of(one.found))
                if not instead:
                    self.used.append(one.found)
            if not instead:
                self.served[call.kind] += 1
        return Served(asked, batch)

    def _response(self, call: Call, served: Served) -> Any:
        try:
            found = [self._one(call, one) for one in served.asked]
        finally:
            self._answered(call, served)
        return self.instead.changed(call, found if served.batch else found[0])

    def _one(self, call: Call, asked: Asked) -> Any:
        entry = asked.found
        assert entry is not None
        question.repeat(entry.questions)
        if (patched := self.instead.answer(entry, asked.request.digest)) is not None:
            return patched(asked.request.exchange, entry, self._data)
        if entry.error:
            return failure.again(entry.error)
        return asked.request.exchange.load(self._data(entry))

    def _chunks(self, call: Call, served: Served) -> Iterator[tuple[int, Any]]:
        asked = served.asked[0]
        entry = asked.found
        assert entry is not None
        if (patched := self.instead.answer(entry, asked.request.digest)) is not None:
            exchange = asked.request.exchange
            yield from exchange.load_chunks(exchange.dump(patched(exchange, entry, self._data), None))
            return
        if entry.answer or entry.blob:
            yield from asked.request.exchange.load_chunks(self._data(entry))
        question.repeat(entry.questions)
        if entry.error:
            failure.again(entry.error)

    def _to_its_end(self, call: Call, served: Served) -> None:
        """ReplayMiss if the recorded program took no more of a stream than it has been given by now."""
        one = served.asked[0]
        if one.found is None or not one.found.left or self.instead.answer(one.found, one.request.digest) is not None:
            return
        why = "the recorded program took no more of this stream, and the rest is not known"
        raise self._miss(call, why, one.place.path)

    def _data(self, entry: Answer) -> Any:
        return unpack(answers.content(self.store, entry))

    # -- what is not

    def _why(self, call: Call, asked: Asked) -> str:
        if asked.found is not None and asked.found.left:
            return "the recorded program did not wait for its end, so its whole answer is not known"
        if asked.found is not None:
            return f"its recorded answer was not kept: {asked.found.missing}"
        if asked.request.loose and self.instead.stands_in(call.instance):
            return f"it is patched, and it cannot be seen whether it is the same: {asked.request.loose}"
        near = self.recording.near(asked.place, call.kind, asked.request.exchange.operation, asked.turn)
        if (elsewhere := self.recording.elsewhere(asked.request.digest)) is not None:
            if elsewhere == asked.place:
                return f"asked here {asked.occurrence + 1} times, recorded {asked.occurrence}"
            return f"recorded elsewhere, at {elsewhere.path}, and the same may be answered otherwise here"
        if near is None:
            return "nothing like it was recorded here"
        return told_miss(self.tracer, self.store, call, asked.request, near)

    def _missed(
        self, call: Call, asked: list[Asked], place: Place, why: str, *, batch: Requests | None = None
    ) -> Served | list[Asked]:
        why = self.processes.told(why)
        if self.terms.mode == "strict":
            raise self._miss(call, why, place.path)
        if self.terms.mode == "plan":
            return self._planned(call, asked, place, why, batch)
        self._allowed(call, asked, place)
        if self.instead.patches and call.kind in _MADE_OF_OTHERS:
            call.facts["uncached"] = _PATCHED
        self._goes_live(call, asked, place.path, why)
        return asked

    def _goes_live(self, call: Call, asked: list[Asked], path: str, why: str) -> None:
        assert call.span is not None
        with self._lock:
            self.live.append(self._live(call, asked, path, why))
            call.span.facts["replay live"] = self.live[-1]
        call.span.attributes({"clew.replay": "live", "clew.replay.why": why[:1000]})

    def _miss(self, call: Call, why: str, path: str) -> ReplayMiss:
        miss = ReplayMiss(f"{call.kind} {call.name} at {path or 'the root'}: {why}")
        self._note_miss(call, miss, why, path)
        return miss

    def _note_miss(self, call: Call, miss: ReplayMiss, why: str, path: str) -> None:
        assert call.span is not None
        call.span.attributes({"clew.replay": "missed", "clew.replay.why": why[:1000]})
        with self._lock:
            self.live.append(self._live(call, [], path, why, refused=True))
            self.failed = self.failed or miss

    def _planned(self, call: Call, asked: list[Asked], place: Place, why: str, batch: Requests | None) -> Served:
        """In a plan a call that would go live is answered with what was recorded at its place: so what follows from it is
        live only if it must be."""
        near = [
            one._replace(
                found=one.found or self.recording.near(one.place, call.kind, one.request.exchange.operation, one.turn)
            )
            for one in asked
        ]
        known = [one.found for one in near if one.found is not None]
        with self._lock:
            self.live.append(self._live(call, near, place.path, why))
        if not asked or any(self._is_unknown(one, False) for one in near):
            assert call.span is not None
            call.span.attributes({"clew.replay": "missed", "clew.replay.why": why[:1000]})
            raise ReplayMiss(f"{call.kind} {call.name}: the plan ends here, as {why}")
        assert known
        return self._serve(call, near, batch is not None and batch.batch is not None, instead=True)

    def _live(self, call: Call, asked: list[Asked], path: str, why: str, *, refused: bool = False) -> Live:
        assert call.span is not None
        near = [one.found for one in asked if one.found is not None]
        model = next((one.request.exchange.model for one in asked), "")
        live = Live(call.kind, call.name, path, why, call.span.span_id.hex(), model, refused=refused)
        if self.terms.mode == "plan":
            live.input_tokens = sum(one.input_tokens for one in near)
            live.output_tokens = sum(one.output_tokens for one in near)
            live.cost = self.terms.cost(model, live.input_tokens, live.output_tokens)
            self.spent += live.cost or 0.0
        self.processes.report(live)
        return live

    def _allowed(self, call: Call, asked: list[Asked], place: Place) -> None:
        effect = self._effect(call, asked[0].request) if asked else effect_of(call.instance)
        told = forbidden(self.terms, call, effect)
        if told is not None:
            miss = ReplayMiss(told)
            self._note_miss(call, miss, told, place.path)
            raise miss
        beyond = over(self.terms, call, calls=len(self.live), spent=self.spent)
        if beyond is not None:
            self.over = self.over or beyond
            raise beyond

    def _was_live(
        self, call: Call, asked: list[Asked], response: Any, chunks: list[tuple[int, Any]] | None = None
    ) -> None:
        """What a live call took, and whether it was answered as recorded."""
        assert call.span is not None
        live = call.span.facts.pop("replay live", None)
        if live is None or not asked:
            return
        with self.tracer.faults.guard("live call of a replay"):
            exchange = asked[0].request.exchange
            told = exchange.dump(response, chunks) if len(asked) == 1 else {}
            live.cached = "served" in call.span.facts
            if len(asked) == 1 and not live.cached:
                live.input_tokens, live.output_tokens = exchange.usage(told)
            live.cost = self.terms.cost(live.model, live.input_tokens, live.output_tokens)
            with self._lock:
                self.spent += live.cost or 0.0
            near = self.recording.near(asked[0].place, call.kind, exchange.operation, asked[0].turn)
            if len(asked) == 1 and near is not None and not near.error and not near.missing:
                try:
                    made = exchange.load(told) if chunks is not None else response
                    live.same = bool(loose(made) == loose(exchange.load(self._data(near))))
                except ClewError:
                    live.same = None

    # -- when

    def _turn(self, asked: Asked) -> None:
        if self._order is not None and asked.found is not None:
            self._order.wait(asked.found)

    async def _turn_async(self, asked: Asked) -> None:
        if self._order is not None and asked.found is not None:
            await self._order.wait_async(asked.found)

    def _answered(self, call: Call, served: Served) -> None:
        if self._order is not None and call.span is not None:
            for one in served.asked:
                if one.found is not None:
                    self._order.answered(one.found, call.span)
