"""Runs around what is asked."""

from __future__ import annotations

from clew.tracer.span import OpenRun


def is_within(run: OpenRun | None, root: OpenRun) -> bool:
    """Whether a run is `root`, or is in it."""
    while run is not None and run is not root:
        run = run.parent
    return run is not None


def outermost(run: OpenRun, root: OpenRun | None, process: OpenRun) -> OpenRun:
    """The run around `run` that stands in no other but `process`; `root` where that is met before."""
    while run is not root and run.parent is not None and run.parent is not process:
        run = run.parent
    return run
