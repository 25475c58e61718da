"""Whose draw it is: the program's own, an installed distribution's, or one that has to stay truly random.

A framework mints ids for its own bookkeeping in the span in which the program draws. Each gets streams of its own, so
that a framework that draws once more does not shift what the program draws.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import FrameType

from clew.tracer import branch
from clew.tracer.imported import is_project_file

PROJECT = ""
_LIBRARY = "python"
_CLEW = "clew"
_TELEMETRY = "opentelemetry"
# These call what the program gave them: default factories, what a thread is to run.
_PLUMBING = {_LIBRARY, "attr", "clew branch", "opentelemetry instrumentation", "pydantic", "time_machine"}
_CARRIERS = {*_PLUMBING, _CLEW, _TELEMETRY}
# Names of temporary files, and the trace ids of a program's own OpenTelemetry: equal ones would collide.
_TRUE = {"python tempfile", "opentelemetry sdk"}

_PARTS = {"sdk", "instrumentation"}  # of OpenTelemetry

_CLEW_FOLDER = os.path.abspath(Path(__file__).parents[2]) + os.sep
_INSTALLED = re.compile(r".*[/\\](?:site|dist)-packages[/\\](.+)")
_known: dict[str, str] = {}


def owner_of(frame: FrameType | None) -> str | None:
    """Who draws in `frame`: PROJECT, the import name of what is installed, or None for draws that stay truly random.

    What only stands between is looked through: the standard library, what runs default factories, clew and
    OpenTelemetry.
    """
    while frame is not None:
        whose = _whose(frame)
        if whose in _TRUE:
            return None
        if whose not in _CARRIERS:
            return whose
        frame = frame.f_back
    return PROJECT


def asker_of(frame: FrameType | None) -> str | None:
    """The same without looking through clew and OpenTelemetry: None for what they draw themselves."""
    while frame is not None:
        whose = _whose(frame)
        if whose in _TRUE or whose in (_CLEW, _TELEMETRY):
            return None
        if whose not in _PLUMBING:
            return whose
        frame = frame.f_back
    return PROJECT


def _whose(frame: FrameType) -> str:
    file = frame.f_code.co_filename
    if file.startswith("<"):  # made by `exec`, such as the `__init__` of a dataclass
        if file.startswith("<frozen"):
            return _LIBRARY
        of_module = frame.f_globals.get("__file__")
        if not isinstance(of_module, str):
            return PROJECT
        file = of_module
    known = _known.get(file)
    if known is None:
        known = _known[file] = _of_file(os.path.abspath(file))
    return known


def _of_file(file: str) -> str:
    if file.startswith(_CLEW_FOLDER):
        return "clew branch" if file == os.path.abspath(branch.__file__) else _CLEW
    if is_project_file(Path(file)):
        return PROJECT
    installed = _INSTALLED.fullmatch(file)
    if installed is None:
        name = Path(file).stem
        return f"{_LIBRARY} {name}" if f"{_LIBRARY} {name}" in _TRUE else _LIBRARY
    first, *rest = Path(installed[1]).with_suffix("").parts
    return " ".join([first, *rest[:1]]) if first == _TELEMETRY and rest and rest[0] in _PARTS else first
