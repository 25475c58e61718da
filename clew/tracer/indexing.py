"""Indexing in the background of a writing process: its own log only, and only while the program is quiet.

Indexing competes with the program for the interpreter, so it waits until nothing was written for `QUIET_SECONDS`, but
no longer than `LAG_SECONDS`. Whoever queries catches up first, so nothing is missed meanwhile.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clew.tracer.init import Tracer

QUIET_SECONDS = 0.5
LAG_SECONDS = 20.0


# A fork waits for an import in another thread: Python's lock on the module would stay held in the child.
_importing = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_importing.acquire, after_in_parent=_importing.release, after_in_child=_importing.release
    )


class BackgroundIndexing:
    """The indexing thread of one tracer; it starts with the first record."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.RLock()

    def touch(self) -> None:
        """Something was written, for the first time since all was indexed."""
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._work, name="clew-index", daemon=True)
                self._thread.start()
        self._wake.set()

    def _work(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wait_until_quiet()
            self._wake.clear()
            self._tracer.gate.rested = True
            if not self._stop.is_set():
                with self._tracer.faults.guard("background indexing"):
                    self.run_now(wait=False)

    def _wait_until_quiet(self) -> None:
        until = time.monotonic() + LAG_SECONDS
        log, before = self._tracer.log, None
        while before != log.written and time.monotonic() < until and not self._stop.is_set():
            before = log.written
            self._stop.wait(QUIET_SECONDS)

    def run_now(self, *, wait: bool = True) -> None:
        """Index now. `wait=False` leaves it to whoever is indexing the store already."""
        with _importing:
            from clew.lineage.index import index_store

        tracer = self._tracer
        stopped = (lambda: False) if wait else self._stop.is_set
        index_store(tracer.folder, only=None if wait else tracer.log, wait=wait, stopped=stopped)

    def stop(self) -> None:
        """No more background work; what is not indexed yet is left to the next query."""
        self._stop.set()
        self._wake.set()
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)
