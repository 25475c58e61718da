"""Checkpointed threads in a replay.

A replayed graph reads and writes a copy of its saver: the thread as it was when the recorded run began. So it asks the
same although the thread has gone on, and the user's thread is not touched. Which checkpoints there were then, their own
times tell.
"""

from __future__ import annotations

import dataclasses
import datetime
import threading
import uuid
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, Interrupt

from clew.integrations.langgraph.thread import INTERRUPT, RESUME, questions
from clew.replay.answer import unpack
from clew.replay.playback.replayer import Replayer
from clew.replay.recording.loose import loose
from clew.replay.recording.request import THREAD
from clew.replay.stack import Stack
from clew.store import answers
from clew.store.record import Answer
from clew.tracer import context, init
from clew.tracer.span import OpenSpan

_CHECKPOINTER = "__pregel_checkpointer"
_UUID_EPOCH_NS = 0x01B21DD213814000 * 100  # from 1582 to 1970
_copies: weakref.WeakKeyDictionary[Replayer, dict[int, Copy]] = weakref.WeakKeyDictionary()
_caches: weakref.WeakKeyDictionary[Replayer, dict[int, tuple[Any, Any]]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def answer_as_recorded(loop: Any, stack: Stack, span: OpenSpan) -> None:
    """Whatever answer a person gives to a graph, the recorded one counts; that its store is not recorded is told."""
    replayer = _replayer(stack, span)
    if replayer is None:
        return
    if getattr(loop, "store", None) is not None:
        replayer.notes[f"{span.name} has a store: it is as it is now, and what is written to it stays"] = None
    if replayer.instead.patches and loop.cache is not None:
        loop.cache = _cache_of_replay(replayer, loop.cache)
    if not loop.checkpointer:
        return
    path = replayer.relative(span.path)
    entry = replayer.recording.noted(THREAD, path, replayer.turn(span, span.path, THREAD, by="replayed"))
    given = loop.input.resume if isinstance(loop.input, Command) else None
    if entry is None or given is None:
        return
    recorded = _read(replayer, entry).get("resume")
    if recorded is None:
        return
    if recorded[0] == "lost":
        replayer.notes[f"the answer with which {span.name} was resumed was not kept: {recorded[1]}"] = None
        return
    if recorded[0] == "each":
        asked_now = questions(loop)
        ids = {question: one for one, question in asked_now.items()}
        answer = {ids[asked, at]: one for asked, at, one in recorded[1] if (asked, at) in ids}
        changed = len(recorded[1]) - len(answer)  # questions that a patch made others: nobody answered them
        if changed and isinstance(given, dict):
            others = [one for one in given if one in asked_now and one not in answer][:changed]
            answer.update((one, given[one]) for one in others)
            replayer.notes[
                f"{span.name} asked what was not asked in the recorded run, and took the program's answer"
            ] = None
    else:
        answer = recorded[1]
    if loose(answer) != loose(given):
        replayer.notes[f"{span.name} was resumed with the recorded answer in place of another one"] = None
        loop.input = dataclasses.replace(loop.input, resume=answer)
    if entry.redacted:
        replayer.notes[f"{span.name} was resumed without a credential that the answer held"] = None


def _cache_of_replay(replayer: Replayer, found: Any) -> Any:
    """A cache of nodes for a replay with patches, of which what stands in the program's knows nothing, nor is to learn."""
    # Not at the top: what is imported first in a replay draws ids at the place of the graph.
    from langgraph.cache.memory import InMemoryCache

    from clew.integrations.langgraph.node_cache import NodeCache

    if isinstance(found, NodeCache):  # it serves nothing in a replay
        return found
    with _lock:
        own = _caches.setdefault(replayer, {})
        if id(found) not in own:
            made: InMemoryCache[Any] = InMemoryCache()
            own[id(found)] = found, made
            own[id(made)] = made, made  # a graph inside may be handed it
    return own[id(found)][1]


def saver(graph: Any, config: Any, found: Any) -> Any:
    """The saver that a graph runs on: in a replay the copy of `found`, which LangGraph would have it run on."""
    tracer = init.active()
    stack = tracer.policies if tracer is not None else None
    if not isinstance(stack, Stack) or not stack.replayers or not isinstance(found, BaseCheckpointSaver):
        return found
    replayer = _replayer(stack, context.enclosing())
    given = config.get("configurable", {}).get(
        _CHECKPOINTER, graph.checkpointer
    )  # LangGraph may have made `found` of it
    if replayer is None or (isinstance(given, Copy) and given.replayer is replayer):
        return found
    with _lock:
        copies = _copies.setdefault(replayer, {})
        if id(given) not in copies:
            copies[id(given)] = Copy(given, replayer)
        copy = copies[id(given)]
    return copy if found is given else graph._apply_checkpointer_allowlist(copy)


def _replayer(stack: Stack, span: OpenSpan | None) -> Replayer | None:
    """The innermost replay that what is done in `span` is part of."""
    return next((one for one in reversed(stack.replayers) if isinstance(one, Replayer) and one.holds(span)), None)


class Copy(InMemorySaver):
    """What a saver held of each thread when the recorded run began, and what the replay adds."""

    def __init__(self, real: BaseCheckpointSaver[Any], replayer: Replayer) -> None:
        super().__init__(serde=real.serde)
        self.real = real
        self.replayer = replayer
        self._begun: set[Any] = set()
        self._began = threading.RLock()

    # -- a thread's beginning

    def _begin(self, config: Any) -> None:
        with self._began:
            if (thread := _thread(config)) is not None and thread not in self._begun:
                self._take(thread, list(self.real.list({"configurable": {"thread_id": thread}})))

    async def _begin_async(self, config: Any) -> None:
        thread = _thread(config)
        if thread is None or thread in self._begun:
            return
        found = [one async for one in self.real.alist({"configurable": {"thread_id": thread}})]
        with self._began:
            if thread not in self._begun:
                self._take(thread, found)

    def _take(self, thread: Any, found: list[Any]) -> None:
        recording = self.replayer.recording
        firsts: dict[str, dict[str, Any]] = {}
        for entry in recording.all_noted(THREAD):
            told = _read(self.replayer, entry)
            if told.get("thread") == str(thread):
                firsts.setdefault(told["namespace"], told)
        for saved in reversed(found):
            if not firsts or _made_ns(saved.checkpoint) < recording.begun_ns:
                self._put(thread, saved, firsts)
        self._begun.add(thread)
        first = firsts.get("", {}).get("checkpoint")
        if first and first not in self.storage[thread][""] and _id_ns(first) < recording.begun_ns:
            self.replayer.notes[
                f"checkpoint {first} of thread {thread}, from which the recorded run went on, is not there any more"
            ] = None

    def _put(self, thread: Any, saved: Any, firsts: dict[str, dict[str, Any]]) -> None:
        place = saved.config["configurable"]
        namespace, checkpoint = place.get("checkpoint_ns", ""), saved.checkpoint
        parent = (saved.parent_config or {}).get("configurable", {}).get("checkpoint_id")
        here = {"thread_id": thread, "checkpoint_ns": namespace}
        above: Any = {"configurable": {**here, "checkpoint_id": parent}}
        super().put(above, checkpoint, saved.metadata, checkpoint["channel_versions"])
        writes = list(saved.pending_writes or ())
        first = firsts.get(namespace)
        if first is not None and first["checkpoint"] == checkpoint["id"]:
            writes = _as_they_were(writes, first["writes"])
        by_task: dict[str, list[tuple[str, Any]]] = {}
        for task, channel, value in writes:
            by_task.setdefault(task, []).append((channel, value))
        itself: Any = {"configurable": {**here, "checkpoint_id": checkpoint["id"]}}
        for at, (task, written) in enumerate(by_task.items()):
            super().put_writes(itself, written, task, f"{at:06}")  # a path, to keep their order

    # -- the saver

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self.real.get_next_version(current, channel)

    def get_tuple(self, config: Any) -> Any:
        self._begin(config)
        return super().get_tuple(config)

    def list(self, config: Any, **options: Any) -> Iterator[Any]:
        self._begin(config)
        yield from super().list(config, **options)

    def put(self, config: Any, *rest: Any) -> Any:
        self._begin(config)
        return super().put(config, *rest)

    def delete_thread(self, thread_id: str) -> None:
        self._begun.add(thread_id)
        super().delete_thread(thread_id)

    async def aget_tuple(self, config: Any) -> Any:
        await self._begin_async(config)
        return await super().aget_tuple(config)

    async def alist(self, config: Any, **options: Any) -> AsyncIterator[Any]:
        await self._begin_async(config)
        async for one in super().alist(config, **options):
            yield one

    async def aput(self, config: Any, *rest: Any) -> Any:
        await self._begin_async(config)
        return await super().aput(config, *rest)


def _thread(config: Any) -> Any:
    return None if config is None else config.get("configurable", {}).get("thread_id")


def _read(replayer: Replayer, entry: Answer) -> dict[str, Any]:
    if entry.missing:
        return {}
    found: dict[str, Any] = unpack(answers.content(replayer.store, entry))
    return found


def _as_they_were(writes: Any, told: Any) -> list[tuple[str, str, Any]]:
    """Of the writes to a checkpoint, those that were there when the recorded run went on from it."""
    then = {(task, channel): what for task, channel, what in told}
    counts: Counter[tuple[str, str]] = Counter()
    found: list[tuple[str, str, Any]] = []
    for task, channel, value in writes:
        what = then.get((task, channel))
        counts[task, channel] += 1
        if what is None:
            continue
        if channel == INTERRUPT:
            ids = zip(value, what, strict=False)
            found.append(
                (task, channel, [Interrupt(one.value, name, response_schema=one.response_schema) for one, name in ids])
            )
        elif channel == RESUME and isinstance(value, list):
            found.append((task, channel, value[:what]))
        elif counts[task, channel] <= what:
            found.append((task, channel, value))
    return found


def _made_ns(checkpoint: Any) -> int:
    """When a checkpoint was made, in nanoseconds since 1970; 0 where it does not tell."""
    try:
        return int(datetime.datetime.fromisoformat(checkpoint["ts"]).timestamp() * 1e6) * 1000
    except (KeyError, TypeError, ValueError):
        return 0


def _id_ns(name: str) -> int:
    """The time in a checkpoint's id, a UUID of version 6; 0 of another."""
    try:
        number = uuid.UUID(name).int
    except ValueError:
        return 0
    if number >> 76 & 0xF != 6:
        return 0
    return (number >> 80 << 12 | number >> 64 & 0xFFF) * 100 - _UUID_EPOCH_NS
