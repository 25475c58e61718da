"""`clew.init`: the tracer of this process, and what starts and stops it."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import importlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from clew.store.digest import storable
from clew.store.errors import AlreadyInitialized, NotInitialized, StoreUnwritable
from clew.store.folder import Folder, writing_to
from clew.store.identifier import uuid7
from clew.store.log import Log
from clew.store.record import Lost
from clew.tracer.fault import Faults, logger
from clew.tracer.foreign import ForeignSpans
from clew.tracer.gate import Gate
from clew.tracer.indexing import BackgroundIndexing
from clew.tracer.process import Reproducibility, process_name
from clew.tracer.redaction import Redactor
from clew.tracer.secret import default_registry
from clew.tracer.span import OpenRun
from clew.version import VERSION

if TYPE_CHECKING:
    from clew.tracer.boundary import Policy
    from clew.tracer.bridge import Bridge
    from clew.tracer.provider import Provider

DEFAULT_STORE = ".clew"
DISABLED = "CLEW_DISABLED"
STORE = "CLEW_STORE"
CACHE = "CLEW_CACHE"
RECORD = "CLEW_RECORD"
REPLAY = "CLEW_REPLAY"  # in a process that replays a recorded one: a file that says what
FLUSH_SECONDS, END_SECONDS = 60.0, 5.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `init` was asked for."""

    project: str
    store: Path
    capture: bool
    cache: Any = None  # what `replay.settings.Cache.of` makes of what was said
    record: bool = False
    code: str | None = None  # in a replay: the digest of the recorded code that runs


class Tracer:
    """The tracer of one process. Made by `init`; integrations reach it with `current()`."""

    def __init__(self, settings: Settings) -> None:
        from clew.tracer.bridge import Bridge
        from clew.tracer.provider import Provider

        self.settings = settings
        self.faults = Faults()
        self.policy: Policy | None = None
        self.policies: Any = None  # what it is made of (replay/stack.py)
        self.folder = Folder(settings.store, create=True)
        redactor = Redactor(self.folder.redaction_key(), secrets=default_registry())
        self.faults.redact = redactor.text
        self.process_run = OpenRun(uuid7(), process_name(), None, None, settings.project)
        self.log = Log(self.folder.log, process_id=self.process_run.run_id, version=VERSION, project=settings.project)
        self.gate = Gate(self.log, redactor, self.folder.blob, content=settings.capture)
        self.log.removed = self._log_removed
        self.provider: Provider = Provider(ForeignSpans(self), self.faults.add, version=VERSION)
        self.bridge: Bridge = Bridge(self.provider)
        self.process = Reproducibility(self)
        self.indexing = BackgroundIndexing(self)
        self.undo: list[Callable[[], None]] = []  # what `uninstrument` takes back, newest last
        self.waits: list[Callable[[float], object]] = []  # what a flush and the end wait for, so many seconds at most
        self.closed = False

    def __repr__(self) -> str:
        state = "closed tracer" if self.closed else "tracer"
        return f"<clew {state} of project {self.settings.project!r}, store {self.settings.store}>"

    @property
    def process_id(self) -> bytes:
        """The process run's id."""
        return self.process_run.run_id

    def start(self) -> None:
        """Bridge OpenTelemetry, carry context into threads, and capture what the process run records."""
        with self.faults.guard("OpenTelemetry bridge"):
            self.bridge.install()
        with self.faults.guard("thread context"):
            from clew.tracer.threads import carry_context

            self.undo.append(carry_context())
        with self.faults.guard("process record"):
            self.log.append_record(self.process_run.record(self.process_id))
            self.process.start()
        if self.settings.cache is not None:
            with self.faults.guard("cache"):
                _replay("stack").use_cache(self, self.settings.cache)
        if self.settings.record:
            with self.faults.guard("recorder"):
                _replay("recording.recorder").record(self)
        self.gate.tell(self.indexing.touch)
        writing_to(self.folder.path, self.process.wait)

    def run_ended(self, run: OpenRun) -> None:
        """A run's root span ended; what went wrong so far is written beside it."""
        if self.faults.counts:
            self.write_faults()

    def write_faults(self) -> None:
        """Write the counts of faults to the log; those that cannot be written are kept."""
        counts = self.faults.take()
        if counts:
            try:
                self.log.append_record(Lost(time.time_ns(), counts))
            except (StoreUnwritable, OSError):
                self.faults.put_back(counts)

    def _log_removed(self, stem: Path) -> None:
        """The segment was deleted under us: begin again, so that later records do not lean on what it held."""
        self.gate.forget()
        self.faults.add("log segment deleted while it was written", f"{stem.name} is gone, with what it held")
        with self.faults.guard("process record"):
            record = self.process_run.record(self.process_id)
            self.log.append_record(msgspec.structs.replace(record, facets=dict(self.process.facets)))

    def flush(self) -> None:
        """Until everything this process did is in the catalog. Raises StoreError if the store cannot take it."""
        self.process.wait()
        for wait in self.waits:
            wait(FLUSH_SECONDS)
        self.write_faults()
        self.indexing.run_now()

    def close(self) -> None:
        """End tracing: give OpenTelemetry back, undo instrumentation, seal the log. Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        _stopped(self)
        for undo in reversed(self.undo):
            with self.faults.guard("uninstrument"):
                undo()
        with self.faults.guard("OpenTelemetry bridge"):
            self.bridge.uninstall()
        self.seal()

    def seal(self) -> None:
        """The end of the process: no more background work, the log's segment complete and with the process run's end."""
        self.indexing.stop()
        self.process.wait(2.0)
        for wait in self.waits:
            wait(END_SECONDS)
        self.write_faults()
        with contextlib.suppress(StoreUnwritable):  # it was removed, say
            self.log.append_record(self.process_run.record(self.process_id, time.time_ns()))
        with self.faults.guard("sealing the log"):
            self.log.close()

    def _after_fork(self) -> None:
        """In a forked child: a process run of its own, with the facets of its parent."""
        self.waits = []
        self.faults.after_fork()
        self.gate.cleaner.after_fork()
        facets = self.process.facets
        self.process_run = OpenRun(self.log.process_id, self.process_run.name, None, None, self.settings.project)
        self.gate.forget()
        self.process = Reproducibility(self)
        self.process.facets = facets
        self.indexing = BackgroundIndexing(self)
        self.gate.tell(self.indexing.touch)
        with self.faults.guard("process record"):
            record = self.process_run.record(self.process_id)
            self.log.append_record(msgspec.structs.replace(record, facets=dict(facets)))


_running: Tracer | None = None
_lock = threading.RLock()
_disabled = False


def init(
    project: str | None = None,
    *,
    store: str | os.PathLike[str] | None = None,
    enabled: bool = True,
    capture: bool = True,
    cache: Any = None,
    record: bool | None = None,
) -> Tracer | None:
    """Start tracing in this process.

    `store` is a folder (default: the variable CLEW_STORE, else `./.clew`), made if it is not there. `capture=False`
    keeps digests and structure, and no content; in clear stay names, ids, seeds, numbers and parameters, error types, and
    attributes that the program or another library says under names of its own (docs/design/spans.md has the list).
    `cache` (default: the variable CLEW_CACHE, else nothing) says what is answered from the cache: True, kinds such as
    "llm,embedding", or a `clew.Cache`; it needs content. `record` (default: the variable CLEW_RECORD, else False) keeps
    what each call was answered, so that runs can be replayed; it needs content, too.
    `enabled=False`, or CLEW_DISABLED=1, makes clew do nothing at all. Calling again with equal arguments does nothing;
    with others it is `AlreadyInitialized`. A store that cannot be written does not stop the program: tracing is off and
    the reason is logged.
    """
    global _disabled, _running
    with _lock:
        if not enabled or os.environ.get(DISABLED, "") not in ("", "0"):
            _disabled = True
            return None
        if project is not None and not isinstance(project, str):
            raise TypeError(f"a project is named by a text, not by {type(project).__name__}")
        path = Path(store or os.environ.get(STORE) or DEFAULT_STORE).expanduser().absolute()
        settings = Settings(
            storable(project or Path.cwd().name), path, capture, _cache(cache, capture), _recorded(record, capture)
        )
        replayed = os.environ.get(REPLAY)
        if replayed:
            settings = _replay("playback.child").settings(replayed, settings)
        running = active()
        if running is not None:
            if running.settings == settings:
                return running
            fields = [field.name for field in dataclasses.fields(Settings)]
            before, now = ({name: getattr(one, name) for name in fields} for one in (running.settings, settings))
            others = [f"{name}={before[name]!r}, now {now[name]!r}" for name in fields if before[name] != now[name]]
            raise AlreadyInitialized(
                f"clew.init was called with {'; '.join(others)}; call clew.shutdown() first to change that"
            )
        try:
            tracer = Tracer(settings)
        except (StoreUnwritable, OSError) as error:
            logger.warning(
                "clew: nothing is traced: %s; clew.init(store=...) or CLEW_STORE names another place",
                storable(str(error)),
            )
            _disabled = True
            return None
        _running = tracer
        tracer.start()
        _disabled = False
        if replayed:
            _replay("playback.child").begin(replayed, tracer)
        return tracer


def _cache(said: Any, capture: bool) -> Any:
    """What is cached. ValueError for what makes no sense."""
    if said is None:
        said = os.environ.get(CACHE) or None
    found = _replay("settings").Cache.of(said) if said is not None else None
    if found is not None and not capture:
        raise ValueError("a cache keeps what was answered: cache=... and capture=False do not go together")
    return found


def _recorded(said: bool | None, capture: bool) -> bool:
    """Whether runs are recorded. ValueError where they cannot be."""
    found = os.environ.get(RECORD, "") not in ("", "0") if said is None else bool(said)
    if found and not capture:
        raise ValueError("a recording keeps what was answered: record=True and capture=False do not go together")
    return found


def _replay(module: str) -> Any:
    """A module of the floor above, which is loaded only if somebody asks for what it does."""
    return importlib.import_module(f"clew.replay.{module}")


def active() -> Tracer | None:
    """The running tracer, or None."""
    return _running


def _stopped(tracer: Tracer) -> None:
    global _running
    if _running is tracer:
        _running = None


def current() -> Tracer:
    """The running tracer; NotInitialized without one."""
    tracer = active()
    if tracer is None:
        raise NotInitialized("clew.init() has not been called in this process, or clew was shut down")
    return tracer


def ensure() -> Tracer | None:
    """The running tracer, started with the defaults if there is none; None where clew is switched off."""
    tracer = active()
    return tracer if tracer is not None or _disabled else init()


def flush() -> None:
    """Until everything that this process did is queryable. Does nothing without `init`."""
    tracer = active()
    if tracer is not None:
        tracer.flush()


def shutdown() -> None:
    """Stop tracing, undo every instrumentation and seal the log. `init` may be called again."""
    global _disabled
    with _lock:
        _disabled = False
        tracer = active()
        if tracer is not None:
            tracer.close()


def uninstrument() -> None:
    """Take every wrapper off every framework; spans of `clew.trace` and `clew.callback` go on."""
    tracer = active()
    if tracer is None:
        return
    undo, tracer.undo = tracer.undo, []
    keep = []
    for one in undo:
        if getattr(one, "keep", False):
            keep.append(one)
            continue
        with tracer.faults.guard("uninstrument"):
            one()
    tracer.undo = keep


def _at_exit() -> None:
    tracer = active()
    if tracer is not None:
        try:
            tracer.seal()
        except Exception as error:  # the program is over; its exit status is its own
            tracer.faults.add("end of the process", error)


def _after_fork() -> None:
    tracer = active()
    if tracer is not None:
        tracer._after_fork()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
