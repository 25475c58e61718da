"""Starting a recorded program again: the command line, its environment, and the process.

The program's imports are led to the laid-out tree by `start/sitecustomize.py`, which the child loads first. What the
program does with paths of its own stays as it is: it runs in the recorded working folder and opens its files there.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from clew import version
from clew.replay.stage import start, variable
from clew.replay.stage.command import CommandLine, ignores_environment, options, parsed
from clew.replay.stage.recorded import Recorded
from clew.replay.stage.tree import Laid
from clew.store.errors import NotReplayable, ReplayTimeout
from clew.tracer.entry import Entry

STAGE = "CLEW_STAGE"
GRACE_SECONDS = 5.0  # between asking a program to stop and making it

_START = os.path.dirname(os.path.realpath(start.__file__))
_CLEW = os.path.dirname(os.path.dirname(os.path.realpath(version.__file__)))

_INSTEAD = "Replay it in a process of your own: `with clew.replay(run): ...`"
_KINDS = {
    "stdin": f"its code came from standard input, which is not recorded. {_INSTEAD}",
    "repl": f"it was typed into an interactive session. {_INSTEAD}",
    "notebook": f"it ran in a notebook, whose cells run in an order of their own. {_INSTEAD} in a cell",
    "worker": "it is a worker that multiprocessing started. Replay the run of the process that started it",
    "embedded": f"it ran inside another program, which has no command line of Python's. {_INSTEAD}",
}


@dataclasses.dataclass(frozen=True)
class Unrecorded:
    """A module that was imported from this machine, because the record has no copy of it."""

    module: str
    file: str | None

    def __str__(self) -> str:
        return f"{self.module} is not in the record and came from {self.file or 'a folder'}"


@dataclasses.dataclass(frozen=True)
class Launch:
    """How to start the program. `env` is added to this process's environment, of which `unset` is left out."""

    argv: tuple[str, ...]
    env: dict[str, str]
    unset: tuple[str, ...]
    cwd: str
    notes: Path | None

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """All variables of the child; `base` instead of this process's."""
        kept = dict(os.environ if base is None else base)
        for name in self.unset:
            kept.pop(name, None)
        return kept | self.env

    def run(
        self,
        *,
        timeout_seconds: float | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        base: Mapping[str, str] | None = None,
    ) -> int:
        """Run the program to its end; its exit status, negative for a signal. Its output goes where this process's goes,
        or to the files named; a pipe is refused, as nobody would read it. `base`: see `environment`.

        On an interrupt, or any other exception here, the child and its children end first. ReplayTimeout after
        `timeout_seconds`; NotReplayable if the interpreter cannot be started, or did not take the recorded code.
        """
        if subprocess.PIPE in (stdin, stdout, stderr):
            raise ValueError("run() reads no pipe; name files, or start Popen(launch.argv, ...) yourself")
        try:
            child = subprocess.Popen(
                self.argv,
                cwd=self.cwd,
                env=self.environment(base),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                process_group=0,
            )
        except OSError as error:
            raise NotReplayable(f"cannot start {self.argv[0]} in {self.cwd}: {error.strerror or error}") from error
        try:
            status = child.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            _end(child, signal.SIGTERM)
            raise ReplayTimeout(
                f"the replayed program ran longer than {timeout_seconds:g} seconds, and was ended"
            ) from None
        except BaseException as error:
            _end(child, signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
            raise
        if status == 0 and self.notes is not None and not self.notes.exists():
            raise NotReplayable(
                f"{self.argv[0]} loaded no sitecustomize, so the program ran with this machine's code, not the recorded one"
            )
        return status

    def unrecorded(self) -> list[Unrecorded]:
        """What the program imported beside the record, once each. Empty before it ran."""
        found: dict[Unrecorded, None] = {}
        try:
            lines = self.notes.read_text(encoding="utf-8").splitlines() if self.notes else []
        except FileNotFoundError:
            lines = []
        for line in lines:
            try:
                found[Unrecorded(**json.loads(line))] = None
            except (ValueError, TypeError):  # a line that a killed program left half written
                continue
        return list(found)


def launch(
    recorded: Recorded,
    laid: Laid,
    *,
    env: Mapping[str, str] | None = None,
    arguments: Sequence[str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    python: str | os.PathLike[str] | None = None,
) -> Launch:
    """How to start the recorded program with the code of `laid`.

    `env` is added to the child's environment. `arguments` stand in for the program's recorded ones (where a secret among
    them was redacted), `cwd` for the recorded working folder (where it is gone), `python` for the interpreter that runs
    now. NotReplayable, saying what to do, for what cannot be started again.
    """
    entry = recorded.entry
    if reason := _KINDS.get(entry.kind):
        raise NotReplayable(f"this program cannot be started again: {reason}")
    if entry.flags.get("no_site"):
        raise NotReplayable(f"the program was started with -S, which leaves no way to lead its imports. {_INSTEAD}")
    line = parsed(entry.orig_argv)
    given = list(line.arguments if arguments is None else arguments)
    _check_secrets(given)
    interpreter = os.fspath(python or sys.executable)
    folder = _working_folder(entry, cwd)
    program = _program(recorded, laid, line)
    front, tail = _search_path(recorded, laid, folder)
    stage = {
        "root": recorded.root,
        "tree": str(laid.root),
        "modules": str(laid.modules) if laid.modules else None,
        "front": front,
        "tail": tail,
        "clew": _CLEW,
        "notes": str(laid.notes) if laid.notes else None,
    }
    variables, unset = _variables(recorded)
    before = "" if ignores_environment(entry) else os.environ.get("PYTHONPATH", "")
    variables |= {
        "PYTHONHASHSEED": str(entry.hash_seed or 0),
        "PYTHONPATH": os.pathsep.join(filter(None, (_START, before))),
        STAGE: json.dumps(stage),
    }
    return Launch(
        (interpreter, *options(entry), *program, *given), variables | dict(env or {}), unset, folder, laid.notes
    )


def entry_file(recorded: Recorded, laid: Laid) -> Path | None:
    """The file of `laid` that ran as the recorded `__main__`; None if it is not there."""
    path = recorded.entry.path
    if path is None:
        return None
    forms = [path, os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))]
    forms += [os.path.join(place, os.path.basename(path)) for place in recorded.entry.sys_path[:1]]
    for form in forms:
        relative = recorded.relative(form)
        if relative and (found := laid.root / relative).is_file():
            return found
    outside = laid.modules / os.path.basename(path) if laid.modules else None
    return outside if outside is not None and outside.is_file() else None


def _program(recorded: Recorded, laid: Laid, line: CommandLine) -> list[str]:
    entry = recorded.entry
    match entry.kind:
        case "command":
            if line.program is None:
                raise NotReplayable(f"the code after -c is not recorded. {_INSTEAD}")
            _check_secrets([line.program], what="the code after -c")
            return ["-c", line.program]
        case "module":
            assert entry.module is not None
            inside = entry.path is not None and recorded.relative(entry.path)
            if inside and entry_file(recorded, laid) is None:
                raise _not_there(recorded, laid)
            return ["-m", entry.module]
    file = entry_file(recorded, laid)
    if file is None:
        return [_installed(recorded, laid)]
    if file.name == "__main__.py" and os.path.basename(line.program or "") != "__main__.py":
        file = file.parent  # it was started as a folder
    return [str(file)]


def _installed(recorded: Recorded, laid: Laid) -> str:
    """The script of an installed program, which is no part of the recorded code: as it is here."""
    path = recorded.entry.path
    if path is None or recorded.relative(path) is not None:
        raise _not_there(recorded, laid)
    for place in (path, os.path.join(sysconfig.get_path("scripts"), os.path.basename(path))):
        if os.path.isfile(place):
            return place
    raise _not_there(recorded, laid)


def _not_there(recorded: Recorded, laid: Laid) -> NotReplayable:
    path = recorded.entry.path
    relative = (recorded.relative(path) if path else None) or path or "the script"
    reasons = [one.reason for one in (*laid.missing, *laid.omitted) if one.path == relative]
    why = f" ({reasons[0]})" if reasons else ""
    where = "the record" if laid.recorded else str(laid.root)
    return NotReplayable(f"{relative}, which the program was started with, is not in {where}{why}. {_INSTEAD}")


def _check_secrets(arguments: Sequence[str], *, what: str = "") -> None:
    for position, argument in enumerate(arguments, start=1):
        if variable.is_redacted(argument):
            raise NotReplayable(
                f"{what or f'argument {position} of the program'} held a secret, which was not recorded. "
                + (_INSTEAD if what else "Give all its arguments anew: arguments=[...]")
            )


def _working_folder(entry: Entry, cwd: str | os.PathLike[str] | None) -> str:
    if cwd is not None:
        if not os.path.isdir(cwd):
            raise ValueError(f"{os.fspath(cwd)} is no folder to run the program in")
        return os.path.abspath(cwd)
    if entry.cwd is None or not os.path.isdir(entry.cwd):
        raise NotReplayable(
            f"the folder that the program ran in is gone ({entry.cwd or 'it was deleted before it was recorded'}): "
            "make it again, or name another with cwd=..."
        )
    return entry.cwd


def _search_path(recorded: Recorded, laid: Laid, cwd: str) -> tuple[list[str], list[str]]:
    """Entries of the recorded `sys.path` that are no installation's: before the standard library, and behind it."""
    entry = recorded.entry
    libraries = tuple(
        os.path.join(prefix, library, "python")
        for prefix in (entry.base_prefix, entry.prefix)
        for library in ("lib", "lib64")
    )
    front: list[str] = [str(laid.modules)] if laid.modules else []
    tail: list[str] = []
    current = front
    for place in entry.sys_path:
        place = os.path.join(entry.cwd or cwd, place)  # an empty one is the working folder
        if place.startswith(libraries) or _is_packages(place):
            current = tail
            continue
        relative = recorded.relative(place)
        if relative is None or place.startswith(f"{laid.root}{os.sep}"):
            found = place
        elif (laid.root / relative).is_dir():
            found = str(laid.root / relative)
        else:
            continue
        if found not in current and os.path.exists(found):
            current.append(found)
    return front, tail


def _is_packages(place: str) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(place.split(os.sep))


def _variables(recorded: Recorded) -> tuple[dict[str, str], tuple[str, ...]]:
    """Variables to set as they were recorded, and the names of those to leave out because they were not set then."""
    if ignores_environment(recorded.entry):
        return {}, tuple(filter(variable.is_pythons, os.environ))
    then = recorded.environment
    if then is None:
        return {}, tuple(variable.SAID & os.environ.keys())
    absent = (name for name in os.environ if variable.is_carried(name) and name not in then.variables)
    return variable.carried(then), (*absent, *(variable.SAID & os.environ.keys()))


def _end(child: subprocess.Popen[Any], first: int) -> None:
    """Ask the child's group to stop, then make it."""
    for number, seconds in ((first, GRACE_SECONDS), (signal.SIGKILL, None)):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:  # macOS says so of a group of which only the dead are left
            pass
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        if number == signal.SIGKILL:
            return
