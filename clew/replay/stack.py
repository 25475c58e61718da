"""What stands in the boundary seam: the recorder outermost, then replays, then the cache; each asks the next one."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from clew.tracer.boundary import Call, Policy
from clew.tracer.init import Tracer

if TYPE_CHECKING:
    from clew.replay.cache import CachePolicy
    from clew.replay.recording.recorder import Recorder
    from clew.replay.settings import Cache


class Stack:
    """The policies of one tracer, as one policy."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.recorder: Recorder | None = None
        self.replayers: list[Policy] = []  # one that ended stays away from calls of others
        self.cache: CachePolicy | None = None
        self._layers: list[Policy] = []

    def arrange(self) -> None:
        """Put what is there in order; with nothing there, calls pass the seam as without a policy."""
        found = [self.recorder, *self.replayers, self.cache]
        self._layers = [one for one in reversed(found) if one is not None]
        self.tracer.policy = self if self._layers else None

    def call(self, call: Call, perform: Callable[[], Any]) -> Any:
        for layer in self._layers:
            perform = functools.partial(layer.call, call, perform)
        return perform()

    async def call_async(self, call: Call, perform: Callable[[], Awaitable[Any]]) -> Any:
        for layer in self._layers:
            perform = functools.partial(layer.call_async, call, perform)
        return await perform()

    def stream(self, call: Call, perform: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        for layer in self._layers:
            perform = functools.partial(layer.stream, call, perform)
        return perform()

    def stream_async(self, call: Call, perform: Callable[[], AsyncIterator[Any]]) -> AsyncIterator[Any]:
        for layer in self._layers:
            perform = functools.partial(layer.stream_async, call, perform)
        return perform()


def stack_of(tracer: Tracer) -> Stack:
    """The stack of a tracer; an empty one is not in the seam."""
    if not isinstance(tracer.policies, Stack):
        tracer.policies = Stack(tracer)
    return tracer.policies


def use_cache(tracer: Tracer, said: Cache | None) -> None:
    """Have calls answered from the store's actions, as far as `said` or the program says so."""
    stack = stack_of(tracer)
    if stack.cache is None:
        from clew.replay.cache import CachePolicy  # with the catalog, which a recorder does without

        stack.cache = CachePolicy(tracer, said)
        stack.arrange()
