"""Running a recorded program again: its code laid out, its command line, and what differs from then."""

from __future__ import annotations

from clew.replay.stage.child import Launch, Unrecorded, entry_file, launch
from clew.replay.stage.difference import Difference, differences
from clew.replay.stage.recorded import Recorded, recorded_process
from clew.replay.stage.tree import Laid, Missing, lay_out
from clew.replay.stage.working import ChangedFile, changed_files, working_tree

__all__ = [
    "ChangedFile",
    "Difference",
    "Laid",
    "Launch",
    "Missing",
    "Recorded",
    "Unrecorded",
    "changed_files",
    "differences",
    "entry_file",
    "launch",
    "lay_out",
    "recorded_process",
    "working_tree",
]
