"""The tape of a stream that is being computed: many read it, each from its first chunk, at its own pace.

No reader depends on another: who needs a chunk that is not there yet has it pulled from the source. So a reader may
be slow, pause for ever or go away; only when the last has gone is the source closed. The source runs in the context
of the call that opened it, whoever pulls.

What must be waited for is said as steps, `(what, seconds)`, which `drive` and `drive_async` take: a future (wait for
it so long at most), a function (call it where blocking is allowed), or None (pause so long).
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextvars import Context
from threading import RLock
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Step: TypeAlias = tuple["Future[None] | Callable[[], object] | None", float]
SLICE_SECONDS = 1.0  # after so long a waiter looks whether what it waits for can still come
END = object()


def drive(steps: Generator[Step, None, T]) -> T:
    """Take the steps, blocking the thread; what they return."""
    try:
        while True:
            what, seconds = next(steps)
            if what is None:
                time.sleep(seconds)
            elif isinstance(what, Future):
                try:
                    what.result(seconds)
                except TimeoutError:
                    pass
            else:
                what()
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()  # at once: an error's traceback would keep it


async def drive_async(steps: Generator[Step, None, T]) -> T:
    """Take the steps without blocking the event loop; what they return."""
    try:
        while True:
            what, seconds = next(steps)
            if what is None:
                await asyncio.sleep(seconds)
            elif isinstance(what, Future):
                await _done(what, seconds)
            else:
                await asyncio.to_thread(what)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()


async def _done(future: Future[None], seconds: float) -> None:
    """Wait for it so long at most: a fifth of what `asyncio.wait` of a wrapped future costs, once for each chunk."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def tell(_: Future[None]) -> None:
        if asyncio._get_running_loop() is loop:
            wake()
            return
        try:
            loop.call_soon_threadsafe(wake)
        except RuntimeError:  # it is closed, and nobody waits there
            pass

    future.add_done_callback(tell)
    timer = loop.call_later(seconds, wake)
    try:
        await waiter
    finally:
        timer.cancel()


def signal() -> Future[None]:
    """A future that no waiter can cancel."""
    made: Future[None] = Future()
    made.set_running_or_notify_cancel()
    return made


def _nothing(error: BaseException | None) -> None:
    pass


class _Puller:
    """Lives in the frame of who pulls: an interrupt between any two lines leaves nothing locked."""

    __slots__ = ("__weakref__",)


class Tape:
    """What came so far, from a source that any thread may pull. `ended` is told the error, None for a whole stream.

    It is opened with one reader; every other one must `join`, and each must `leave`.
    """

    def __init__(self, source: Iterator[Any], context: Context, ended: Callable[[BaseException | None], None]) -> None:
        self._source = source
        self._context = context
        self._told = ended
        self.chunks: list[Any] = []
        self.ended = False
        self.error: BaseException | None = None
        self._readers = 1
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: threads that held a lock or pulled are not there."""
        self._lock = RLock()
        self._puller: weakref.ref[_Puller] | None = None
        self._changed: Future[None] | None = None

    @classmethod
    def of(cls, chunks: Iterable[Any]) -> Tape:
        """A tape that has all its chunks."""
        made = cls(iter(()), Context(), _nothing)
        made.chunks, made.ended = list(chunks), True
        return made

    def join(self) -> bool:
        """Whether there is one reader more; not where the last one has just left."""
        with self._lock:
            if self._readers or self.ended:
                self._readers += 1
                return True
            return False

    def leave(self) -> asyncio.Task[None] | None:
        """A reader goes. The last one closes the source; what it gives is to be awaited, if it can be."""
        with self._lock:
            self._readers -= 1
            if self._readers or self.ended:
                return None
        return self.close()

    def read(self, at: int) -> Generator[Step, None, Any]:
        """Chunk number `at`, or END: then `error` says whether that is the stream's own end."""
        while True:
            with self._lock:
                if at < len(self.chunks):
                    return self.chunks[at]
                if self.ended:
                    return END
                if self._changed is None:
                    self._changed = signal()
                step = self._more(at, self._changed)
            yield step
            self._check()

    def _more(self, at: int, changed: Future[None]) -> Step:
        """The step that brings chunk `at` nearer."""
        return (changed if self._is_pulled else lambda: self._pull(at)), SLICE_SECONDS

    def _check(self) -> None:
        """End it, where nobody can pull any more."""

    @property
    def _is_pulled(self) -> bool:
        return self._puller is not None and self._puller() is not None

    def _claim(self, puller: _Puller) -> bool:
        with self._lock:
            if self._is_pulled:
                return False
            self._puller = weakref.ref(puller)
            return True

    def _pull(self, at: int) -> None:
        puller = _Puller()
        if not self._claim(puller):
            return
        try:
            if self.ended or at < len(self.chunks):
                return
            try:
                chunk = self._context.run(next, self._source, END)
                if chunk is END:
                    self._end(None)
                else:
                    self.chunks.append(chunk)  # in here: an interrupt before it would lose a chunk for all others
            except BaseException as error:
                self._end(error)
                if not isinstance(error, Exception):
                    raise
        finally:
            self._puller = None
            self._notify()
            if not self._readers and not self.ended:  # the last one left meanwhile
                self.close()

    def close(self) -> asyncio.Task[None] | None:
        """Close the source, where nobody reads any more. Also for who cannot join: the last one may not have come to it."""
        puller = _Puller()
        if self._readers or self.ended or not self._claim(puller):
            return None  # who pulls will do it
        try:
            if hasattr(self._source, "close"):
                self._context.run(self._source.close)
        finally:
            self._puller = None
            self._end(GeneratorExit())
        return None

    def _end(self, error: BaseException | None) -> None:
        with self._lock:
            if self.ended:
                return
            self.ended, self.error = True, error
            told, self._told = self._told, _nothing
        self._context, self._source = Context(), iter(())  # they lead back here, and chunks should not wait for the gc
        try:
            told(error)
        finally:
            self._notify()

    def _notify(self) -> None:
        with self._lock:
            changed, self._changed = self._changed, None
        if changed is not None:
            changed.set_result(None)


class PumpedTape(Tape):
    """A tape whose source belongs to an event loop: one task there pulls it, as far as readers ask for.

    One task, because a source may hold what only the task that entered it can leave (a timeout, a task group).
    """

    def __init__(
        self, source: AsyncIterator[Any], context: Context, ended: Callable[[BaseException | None], None]
    ) -> None:
        super().__init__(iter(()), context, ended)
        self._loop = asyncio.get_running_loop()
        self._asked = -1
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = self._loop.create_task(self._pump(source), context=context)
        self._task.add_done_callback(self._done)

    def _more(self, at: int, changed: Future[None]) -> Step:
        if at > self._asked:
            self._asked = at
            self._tell(self._wanted.set)
        return changed, SLICE_SECONDS

    def _check(self) -> None:
        if not self._loop.is_running():
            self._end(asyncio.CancelledError())

    def _tell(self, what: Callable[[], object]) -> None:
        if asyncio._get_running_loop() is self._loop:
            what()
            return
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # it is closed
            self._end(asyncio.CancelledError())

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None  # its context leads back here
        self._end(asyncio.CancelledError())  # where it was cancelled before it began

    def close(self) -> asyncio.Task[None] | None:
        task = self._task
        if task is not None:
            self._tell(task.cancel)
        self._end(GeneratorExit())
        return task if asyncio._get_running_loop() is self._loop else None

    async def _pump(self, source: AsyncIterator[Any]) -> None:
        error: BaseException | None = asyncio.CancelledError()
        try:
            while not self.ended:
                while self._asked < len(self.chunks) and not self.ended:
                    self._wanted.clear()
                    await self._wanted.wait()
                chunk = await anext(source, END)
                if chunk is END:
                    error = None
                    break
                self.chunks.append(chunk)
                self._notify()
        except (Exception, asyncio.CancelledError) as raised:
            error = raised
        finally:
            try:
                if error is not None and hasattr(source, "aclose"):
                    await source.aclose()
            except Exception as raised:
                error = error or raised
            finally:
                self._end(error)
