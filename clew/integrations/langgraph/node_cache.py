"""LangGraph's cache of nodes, kept in the store: `graph.compile(cache=clew.NodeCache())`.

LangGraph asks it for the writes of tasks that have a cache policy, and hands it those of tasks that ran. It names a task
by the name of its function and a hash of its input; to that is added here what the task really is (node_code.py),
which is read off the loop that asks. A task that LangGraph serves fires no callback, so its span is made here.

Two that want the same node at once both run it: LangGraph asks and hands over in two calls.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
import weakref
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple

from langgraph.cache.base import BaseCache, FullKey, Namespace

from clew.integrations.langchain import answer as answer  # registers messages and documents
from clew.integrations.langchain import open_runs
from clew.integrations.langgraph import answer as graph_answer  # noqa: F401 - registers sends
from clew.integrations.langgraph import node_code
from clew.integrations.langgraph.minted import minted, renamed
from clew.integrations.langgraph.node_key import SHORTEST_ID, input_told, why_refused
from clew.integrations.langgraph.observer import LangGraphObserver, _plain, _written
from clew.replay.answer import pack, texts, unpack
from clew.replay.cache import CachePolicy
from clew.replay.code.witness import Witness
from clew.replay.key import Key, key_of
from clew.replay.provider import settings_of
from clew.replay.settings import here
from clew.replay.stack import stack_of
from clew.replay.value_exchange import ValueExchange
from clew.store.action import CLEARED
from clew.store.digest import Domain, digest
from clew.store.encoding import encode_key
from clew.store.errors import ClewError, Unkeyable, Unstorable
from clew.store.record import Action
from clew.store.sharing import is_older
from clew.tracer import init
from clew.tracer.capture import Batch, Given
from clew.tracer.init import Tracer
from clew.tracer.span import OpenSpan

_GIVEN, _NEW = "\0clew given id ", "\0clew new id "
_WHOLE = ("__root__", "__return__")  # channels that hold all that a node returned


class _Asked(NamedTuple):
    """A task whose writes were asked for. It does not hold the task, whose end it waits for."""

    name: str
    step: Any
    place: Any  # its checkpoint namespace
    namespace: Namespace
    key: Key
    ids: list[str]
    age_ns: int | None  # of an answer, at most
    parent: OpenSpan | None
    when_ns: int


class NodeExchange(ValueExchange):
    """What a node wrote."""

    def __init__(self, parts: dict[str, Any]) -> None:
        super().__init__("node")
        self._parts = parts

    def parts(self) -> dict[str, Any]:
        return self._parts

    def seen(self) -> dict[str, Any]:
        return self._parts


class NodeCache(BaseCache[Any]):
    """The writes of nodes with a `CachePolicy`, kept in clew's store, over runs and processes.

    A node is answered with what it wrote before for an input of the same key (`clew.node_key`, say), if its code, all of
    the project's code that it calls, its edges, the run's configuration and context are the same too. Ids of messages
    are those of the run that is served. What cannot be told apart (a node that is given the graph's store, state whose
    class has no canonical form) or kept (a value whose class is not registered) runs each time, and the log says why,
    once. `versions` stand for the code of nodes, by their names. The policy's `ttl` is honoured, `clear` is remembered
    in the store, nothing is pickled, and nothing here raises into the graph. Works where `clew.init` was called.
    Where runs are recorded for replays a node runs, so that what it asks is in the recording, and is kept; in a replay
    nothing is served or kept.
    """

    def __init__(self, *, versions: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._versions = dict(versions or {})
        self._asked: dict[int, tuple[weakref.ref[Any], _Asked]] = {}  # by the object that a task's writes will be
        self._told: set[tuple[str, str]] = set()
        self._own: CachePolicy | None = None

    # -- LangGraph's

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        return self._get(keys, _tasks(sys._getframe(1)))

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        tasks = _tasks(sys._getframe(1))
        return await asyncio.to_thread(self._get, keys, tasks)

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        tracer = init.active()
        if tracer is None:
            return
        for writes, ttl in pairs.values():
            known = self._asked.pop(id(writes), None)
            if known is None or known[0]() is not writes or here(None, asked_for=True) is None:
                continue
            try:
                self._keep(tracer, known[1], list(writes or ()), ttl)
            except Exception as error:
                tracer.faults.add("node cache", error)

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        await asyncio.to_thread(self.set, pairs)

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Use nothing again of what was kept before now of these namespaces, or of all, in this store.

        NotInitialized without `clew.init`, StoreError where the store cannot be written.
        """
        tracer = init.current()
        for one in [()] if namespaces is None else namespaces:
            now = time.time_ns()
            entry = Action(_cleared(tracer, one), "node", CLEARED, now, {}, b"", run_id=tracer.process_id)
            self._policy(tracer).publish([(entry, b"")], shared=False)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        await asyncio.to_thread(self.clear, namespaces)

    # -- what is known

    def _get(self, keys: Sequence[FullKey], loop: Any) -> dict[FullKey, Any]:
        tracer = init.active()
        found: dict[FullKey, Any] = {}
        if tracer is None or not tracer.settings.capture or here(None, asked_for=True) is None:
            return found
        stack = stack_of(tracer)
        if stack.replayers:  # what is patched in a replay must not be hidden, nor kept for others
            return found
        try:
            wanted = set(keys)
            tasks = list(loop.tasks.values()) if loop is not None else []
            if not tasks:
                self._say(tracer, "a graph", "this version of LangGraph asks in a way that clew does not know")
            for task in tasks:
                full = (task.cache_key.ns, task.cache_key.key) if task.cache_key is not None else None
                if full in wanted and full not in found and not task.writes and not self._runs(task):
                    asked = self._ask(tracer, loop, task, full)
                    writes = self._look(tracer, asked) if asked is not None and stack.recorder is None else None
                    if asked is not None and writes is not None:
                        found[full] = writes[1]
                        if asked.parent is not None:
                            with tracer.faults.guard("span of a cached node"):
                                _served(tracer, asked, task, *writes)
                    elif asked is not None:
                        self._await(asked, task.writes)
        except Exception as error:
            tracer.faults.add("node cache", error)
        return found

    def _ask(self, tracer: Tracer, loop: Any, task: Any, full: FullKey) -> _Asked | None:
        """What decides the writes of a task; None where that cannot be told."""
        parent = open_runs.span_of(getattr(task.config.get("callbacks"), "parent_run_id", None))
        metadata = task.config.get("metadata") or {}
        step, place = metadata.get("langgraph_step"), metadata.get("langgraph_checkpoint_ns")
        notes = parent.facts.setdefault("node cache", {}) if parent is not None else {}
        try:
            if reason := why_refused(full[1]):
                raise Unkeyable(reason)
            version = self._versions.get(task.name)
            elsewhere = node_code.read_by_routers(task.proc) - set(_channels(loop, task))
            seen = Witness()
            parts = {
                "node": [task.name, *full[0]],
                "input": full[1],
                "code": node_code.code_told(task.proc, version, seen),
                "run": node_code.run_told(task.proc, task.config, version, seen.words),
                "routed by": input_told({name: _value(loop, name) for name in elsewhere}),
            }
            if set_to := settings_of(seen):
                parts["settings"] = set_to
            key = key_of(tracer.gate, "node", NodeExchange(parts), parts, ("", 0))
        except Unkeyable as error:
            notes[place] = {"clew.cache.bypass": str(error)[:500]}
            self._say(tracer, task.name, str(error))
            return None
        notes[place] = {"clew.cache.hit": False, "clew.cache.key": key.digest.hex()}
        age_ns = self._age_ns(tracer, task.cache_key.ttl)
        return _Asked(task.name, step, place, full[0], key, minted(task.input), age_ns, parent, time.time_ns())

    def _age_ns(self, tracer: Tracer, ttl: int | None) -> int | None:
        settings = here(self._policy(tracer).said, asked_for=True)
        limits = [one for one in (ttl, settings.ttl_seconds if settings is not None else None) if one is not None]
        return int(min(limits) * 1e9) if limits else None

    def _look(self, tracer: Tracer, asked: _Asked) -> tuple[Action, list[tuple[str, Any]]] | None:
        """The writes of a task, as they are for the run that asks; None where it is to run."""
        actions = self._policy(tracer).actions
        now = time.time_ns()
        entry = actions.look(asked.key.digest, now)
        if entry is None or is_older(entry, asked.age_ns, now):
            return None
        marks = [actions.read(_cleared(tracer, one)) for one in ((), asked.namespace)]
        if any(mark is not None and mark.when_ns >= entry.when_ns for mark in marks):
            return None
        try:
            return entry, _for_run(unpack(actions.answer(entry)), asked.ids)
        except (Unstorable, ClewError, LookupError):
            return None

    def _await(self, asked: _Asked, writes: Any) -> None:
        """The task will run, and its writes come here in the object that it has for them."""
        number = id(writes)
        self._asked[number] = weakref.ref(writes, lambda _: self._asked.pop(number, None)), asked

    def _runs(self, task: Any) -> bool:
        """Whether it was asked for already: LangGraph asks again, for all, whenever there are more tasks."""
        known = self._asked.get(id(task.writes))
        return known is not None and known[0]() is task.writes

    # -- what is kept

    def _keep(self, tracer: Tracer, asked: _Asked, writes: list[tuple[str, Any]], ttl: int | None) -> None:
        policy = self._policy(tracer)
        try:
            told = _for_all(writes, asked.ids)
            data = pack(told)
            whole = "\0".join(one for _, one in texts(data) if isinstance(one, str))
            if any(len(one) >= SHORTEST_ID and one in whole for one in asked.ids):
                raise Unstorable("it wrote an id of its input elsewhere than into a message")
            if reason := policy.secret(data):
                raise Unstorable(reason)
        except Unstorable as error:
            self._say(tracer, asked.name, str(error))
            return
        trace_id, span_id, run_id = _performed(asked)
        now, age_ns = time.time_ns(), self._age_ns(tracer, ttl)
        entry = Action(
            key=asked.key.digest,
            kind="node",
            operation="node",
            when_ns=now,
            fields=asked.key.fields,
            answer=data,
            trace_id=trace_id,
            span_id=span_id,
            run_id=run_id or tracer.process_id,
            duration_ns=now - asked.when_ns,
            expires_ns=None if age_ns is None else now + age_ns,
        )
        policy.publish([(entry, data)])

    def _policy(self, tracer: Tracer) -> CachePolicy:
        """The store's actions are the cache's, where there is one."""
        cache = stack_of(tracer).cache
        if cache is not None:
            return cache
        if self._own is None or self._own.tracer is not tracer:
            self._own = CachePolicy(tracer, None)
        return self._own

    def _say(self, tracer: Tracer, name: str, reason: str) -> None:
        if (name, reason) not in self._told and len(self._told) < 1000:
            self._told.add((name, reason))
            tracer.faults.tell(f"not cached: node {name}: {reason}")


def _tasks(frame: FrameType | None) -> Any:
    """The loop that asks: the caller of `get` is a method of it."""
    loop = frame.f_locals.get("self") if frame is not None else None
    return loop if hasattr(loop, "tasks") else None


def _channels(loop: Any, task: Any) -> Iterable[str]:
    node = loop.nodes.get(task.name)
    channels = node.channels if node is not None else ()
    return [channels] if isinstance(channels, str) else channels


def _value(loop: Any, name: str) -> Any:
    channel = loop.channels.get(name)
    return channel.get() if channel is not None and channel.is_available() else None


def _cleared(tracer: Tracer, namespace: Namespace) -> bytes:
    """The key of the mark that a namespace was cleared; of the empty one, that all were."""
    return bytes(digest(Domain.ACTION, encode_key(["node cache cleared", *namespace], Batch(tracer.gate))))


def _for_all(writes: list[tuple[str, Any]], ids: list[str]) -> Any:
    """Writes with no id of their run: those of the input by position, those of new messages by number."""
    given = {one: f"{_GIVEN}{position}" for position, one in enumerate(ids)}
    new: dict[str, str] = {}

    def rename(one: str, kind: str) -> str:
        if one in given:
            return given[one]
        return new.setdefault(one, f"{_NEW}{len(new)}") if kind == "message" else one

    return [[channel, renamed(value, rename)] for channel, value in writes]


def _for_run(told: Any, ids: list[str]) -> list[tuple[str, Any]]:
    """Those writes with the ids of the run that asks. LookupError where its input has not that many."""
    new: dict[str, str] = {}

    def rename(one: str, kind: str) -> str:
        if one.startswith(_GIVEN):
            return ids[int(one.removeprefix(_GIVEN))]
        return new.setdefault(one, str(uuid.uuid4())) if one.startswith(_NEW) else one

    return [(channel, renamed(value, rename)) for channel, value in told]


def _performed(asked: _Asked) -> tuple[bytes, bytes, bytes]:
    """The span of the node that ran: trace, span and run."""
    if asked.parent is None:
        return b"", b"", b""
    ran = asked.parent.facts.get("ran", {}).get(asked.step, {})
    _, trace_id, span_id = ran.get(asked.place, ("", b"", b""))
    return trace_id, span_id, asked.parent.run.run_id


def _served(tracer: Tracer, asked: _Asked, task: Any, entry: Action, writes: list[tuple[str, Any]]) -> None:
    """The span of a node that did not run."""
    handlers = getattr(task.config.get("callbacks"), "handlers", ())
    observer = next((one for one in handlers if isinstance(one, LangGraphObserver)), None)
    if observer is None:
        return
    metadata = dict(task.config.get("metadata") or {})
    kind = observer.chain(task.name, task.input, metadata, asked.parent)
    if asked.parent is not None:
        asked.parent.facts["node cache"].pop(asked.place, None)
    run_id = uuid.uuid4()
    open_runs.start(
        tracer, kind.kind, task.name, run_id, asked.parent, task.config.get("tags"), metadata,
        kind.used, kind.attributes, kind.step, fixed=kind.fixed,
    )  # fmt: skip
    span = open_runs.remove(run_id)
    assert span is not None
    span.facts["served"] = True
    span.attributes({"clew.cache.hit": True, "clew.cache.key": asked.key.digest.hex()})
    span.attributes({"clew.cache.saved.duration_ns": entry.duration_ns})
    observer.begun(span, metadata)
    if entry.span_id:
        span.link(entry.trace_id, entry.span_id, "served_from")
    made = _made(writes)
    observer._note_answer(span, None, made)
    span.end(generated=made)


def _made(writes: list[tuple[str, Any]]) -> list[Given]:
    """What a node wrote into channels, as its own span would have it; where it goes next is none of it."""
    made: list[Given] = []
    for channel, value in writes:
        if channel in _WHOLE:
            made += _written(value)
        elif not channel.startswith(("branch:", "join:", "__")):
            made.append((channel, "value", _plain(value)))
    return made
