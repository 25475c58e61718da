"""The child processes of a replaying process: their calls are no part of the recording, and are told to its certificate.

While it was recorded, each child process had a process run of its own, with answers of its own. A replay has those of one
process. So what a child asks is a miss, but for what its parent asked just so.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

import msgspec

from clew.replay.playback.certificate import Certificate, Live
from clew.tracer import entry

OWNER = "CLEW_REPLAY_PROCESS"  # the process that replays: what it starts inherits the variable, and has another number
NOT_COVERED = "it was asked in a child process, and a replay has the calls of the run's own process alone"


class Processes:
    """The process that replays, and how one tells that it is a child of it. `reports` is the file in which children say
    what they asked; None where nobody reads it."""

    def __init__(self, reports: Path | None = None) -> None:
        self._replays = os.getpid()
        self._is_started = False
        self.reports = reports

    @classmethod
    def of_program(cls, reports: Path, variables: MutableMapping[str, str] = os.environ) -> Processes:
        """Of a program that replays from its beginning to its end, and all that it starts."""
        found = cls(reports)
        owner = variables[OWNER] = variables.get(OWNER) or str(os.getpid())
        found._is_started = owner != str(os.getpid()) or entry.capture().kind == "worker"
        return found

    @property
    def is_child(self) -> bool:
        """Whether this process is known to be a child of the one that replays."""
        return self._is_started or os.getpid() != self._replays

    def told(self, why: str) -> str:
        """Why a call missed; of a child, with what a replay has of it."""
        return f"{why}; {NOT_COVERED}" if self.is_child else why

    def report(self, live: Live) -> None:
        """Say what a child asked that the recording does not know, for the certificate."""
        if self.reports is not None and self.is_child:
            with self.reports.open("ab", buffering=0) as file:
                file.write(msgspec.json.encode(live) + b"\n")


def reports_of(certificate: Path) -> Path:
    """The file in which children say what they asked, beside the certificate."""
    return certificate.with_suffix(".children")


def add_reports(certificate: Certificate, reports: Path) -> None:
    """Put on the certificate what child processes asked and the recording does not know."""
    if not reports.exists():
        return
    found = []
    for line in reports.read_bytes().splitlines():
        try:
            found.append(msgspec.json.decode(line, type=Live))
        except msgspec.MsgspecError:  # a child was killed while it wrote
            continue
    certificate.live += found
    certificate.notes.append(
        f"{len(found)} call{'s' if len(found) != 1 else ''} of child processes were not in the recording: a replay has those "
        "of the run's own process, and each child counts its own live calls and money"
    )
