"""The replaying process: the recorded program runs in it, and whatever it asks is answered from the recording.

`clew.init` comes here where CLEW_REPLAY is set. What the program asked of `init` is put aside: the replay is written to
the store of the recording, and begins with the first `init`; a later one, after a `shutdown`, goes on with it.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clew.lineage.reader import Reader
from clew.replay.playback.descendant import Processes, reports_of
from clew.replay.playback.outcome import compare, counted, outcome_of
from clew.replay.playback.replay import installed
from clew.replay.playback.replayer import Replayer
from clew.replay.playback.surroundings import Surroundings
from clew.replay.playback.terms import Terms
from clew.replay.playback.told import Told, read
from clew.replay.recording.recording import load
from clew.store.errors import Unpatchable
from clew.tracer.init import Settings, Tracer


def settings(path: str, asked: Settings) -> Settings:
    """The settings of a replaying process, whatever its program asked for."""
    told = read(path)
    return dataclasses.replace(asked, store=Path(told.store), capture=True, record=True, code=told.code_digest)


def begin(path: str, tracer: Tracer) -> None:
    """Replay, from here to the end of the process. Raises ClewError where that cannot be."""
    global _session
    if _session is None or _session.pid != os.getpid():
        _session = _Session(read(path), tracer)
        atexit.register(_session.end)
    _session.attach(tracer)


def _told(before: Callable[..., object], kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    """What ended the program, as the interpreter shows it; but a patch that does not fit is no fault of the program's, and
    stands on the certificate."""
    if not isinstance(error, Unpatchable):
        before(kind, error, traceback)


class _Session:
    """One replay of a process."""

    def __init__(self, told: Told, tracer: Tracer) -> None:
        self.pid = os.getpid()
        self.told = told
        self.reader = Reader(tracer.folder.path)
        self.recording = load(self.reader, told.run_id, whole=True)
        terms = Terms(
            **{**told.terms, "allow": None if told.terms["allow"] is None else frozenset(told.terms["allow"])}
        )
        self.replayer = Replayer(tracer, self.recording, self.reader.store, terms, None)
        self.replayer.processes = Processes.of_program(reports_of(Path(told.certificate)))
        self.around = Surroundings(self.replayer, self.reader, travel=told.travel, hosts=tuple(told.hosts))
        self.exit = contextlib.ExitStack()
        sys.excepthook = functools.partial(_told, sys.excepthook)
        self._of: Tracer | None = None

    def attach(self, tracer: Tracer) -> None:
        """Stand in the seam of a tracer."""
        if self._of is tracer:
            return
        first = self._of is None
        self._of = self.replayer.tracer = tracer
        tracer.process_run.replay_of = bytes.fromhex(self.recording.process_id)
        tracer.log.append_record(tracer.process_run.record(tracer.process_id))  # a killed one writes no other
        self.exit.enter_context(installed(tracer, self.replayer))
        if first:
            for one in self.told.patches:
                patch = importlib.import_module("clew.replay.playback.patches").from_dict(one)
                self.exit.enter_context(patch.applied(tracer, self.replayer))
            self.exit.enter_context(self.around.entered())

    def end(self) -> None:
        """Say how it came out."""
        if self.pid != os.getpid():
            return
        if self.replayer.processes.is_child:  # the certificate is its parent's
            self.exit.close()
            return
        replayer, lane = self.replayer, self.recording.lane
        self.exit.close()
        replayer.open = False
        certificate = counted(replayer, self.around)
        certificate.code = self.told.code
        certificate.differences = self.told.differences
        raised = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None) or replayer.failed
        if raised is not None:
            told = replayer.tracer.gate.cleaner.text(str(raised))
            certificate.error = f"{type(raised).__name__}: {told}"
        run = replayer.run_of(lane)
        replayer.tracer.flush()
        if run is not None:
            certificate.replay_id = run.run_id.hex()
            compare(
                certificate,
                outcome_of(self.reader, self.recording.run_id),
                outcome_of(self.reader, certificate.replay_id),
            )
        elif certificate.error is None:
            certificate.notes.append("the program did not come to this run, or it asked nothing")
        Path(self.told.certificate).write_bytes(certificate.to_json())


_session: _Session | None = None
