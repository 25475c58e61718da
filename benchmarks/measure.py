"""Measuring: children in processes of their own, their clocks, figures and the bars they are held against.

A benchmark is a program that prints one table, or with `--json` one JSON object: its figures, and under "bars" what
each one is held against. Its exit status is 0 where every bar is met, 3 where one is missed, and 1, without any
figure, where a check failed: a number from a wrong answer is worth nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if (ROOT / "clew").is_dir():  # this checkout is what is measured, whatever is installed
    sys.path.insert(0, str(ROOT))
MISSED = 3
CHILD_SECONDS = 900


class CheckFailed(Exception):
    """What was measured is not what was promised: there is no figure."""


def check(holds: bool, otherwise: str) -> None:
    """CheckFailed with `otherwise`, unless it holds."""
    if not holds:
        raise CheckFailed(otherwise)


def cpu_seconds() -> float:
    """CPU of this process so far: every thread of it and the children it waited for, user and system."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


@dataclasses.dataclass
class Spent:
    """What a block took, in seconds."""

    wall: float = 0.0
    cpu: float = 0.0


@contextlib.contextmanager
def spending() -> Iterator[Spent]:
    """Measure a block; read the values after it."""
    spent = Spent()
    wall, cpu = time.perf_counter(), cpu_seconds()
    try:
        yield spent
    finally:
        spent.wall, spent.cpu = time.perf_counter() - wall, cpu_seconds() - cpu


@dataclasses.dataclass
class Bar:
    """What a figure is held against: at most `most`; `aim` is where it should go."""

    most: float
    aim: float | None = None

    def met(self, figure: float) -> bool:
        """Whether the figure is within the bar."""
        return figure <= self.most

    def __str__(self) -> str:
        return f"<= {_number(self.most)}" + (f", aim {_number(self.aim)}" if self.aim is not None else "")


@dataclasses.dataclass
class Result:
    """Figures of one benchmark by field name, and the bars of some of them."""

    figures: dict[str, float | int]
    bars: dict[str, Bar] = dataclasses.field(default_factory=dict)

    @property
    def missed(self) -> list[str]:
        """The fields whose bar is missed."""
        return [name for name, bar in self.bars.items() if not bar.met(self.figures[name])]

    def to_dict(self) -> dict[str, Any]:
        """One JSON object: the figures, and beside them the bars."""
        bars = {
            name: {"at_most": bar.most, "met": bar.met(self.figures[name])}
            | ({"aim": bar.aim} if bar.aim is not None else {})
            for name, bar in self.bars.items()
        }
        return {**self.figures, "bars": bars}


def table(results: dict[str, Result]) -> str:
    """Figures with their bars beside them, one line each."""
    rows = [("benchmark", "figure", "value", "bar", "")]
    for name, result in results.items():
        for field, value in result.figures.items():
            bar = result.bars.get(field)
            verdict = "" if bar is None else "ok" if bar.met(value) else "MISSED"
            rows.append((name, field, _number(value), str(bar) if bar else "", verdict))
            name = ""
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if at == 2 else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _number(value: float) -> str:
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:,.1f}"


def program(description: str | None, *arguments: tuple[str, dict[str, Any]]) -> argparse.ArgumentParser:
    """The command line that every benchmark has."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    for name, options in arguments:
        parser.add_argument(name, **options)
    return parser


def report(name: str, as_json: bool, run: Callable[[], Result]) -> int:
    """Run a benchmark, print what it found and return the exit status."""
    try:
        result = run()
    except CheckFailed as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        return 1
    print(json.dumps(result.to_dict()) if as_json else table({name: result}))
    return MISSED if result.missed else 0


def child(script: str | os.PathLike[str], *arguments: Any, folder: Path | None = None, **environment: str) -> Any:
    """Run a script in a process of its own, in a folder, and return the JSON of its last line. CheckFailed if it fails."""
    done = subprocess.run(
        [sys.executable, os.fspath(script), *map(str, arguments)],
        cwd=folder,
        env=child_environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CHILD_SECONDS,
    )
    if done.returncode not in (0, MISSED):
        words = " ".join(map(str, arguments))
        raise CheckFailed(f"{Path(script).name} {words} ended with {done.returncode}:\n{done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


class Companion:
    """A script in a process of its own that is told, and tells, one line at a time. CheckFailed where it fails."""

    def __init__(
        self,
        script: str | os.PathLike[str],
        *arguments: Any,
        folder: Path | None = None,
        python: str | os.PathLike[str] = sys.executable,
        **environment: str,
    ):
        self._process = subprocess.Popen(
            [os.fspath(python), os.fspath(script), *map(str, arguments)],
            cwd=folder,
            env=child_environment(**environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        check(self.hear() == "ready", f"{self.name} did not start")

    @property
    def name(self) -> str:
        """What was started."""
        return " ".join(map(str, self._process.args[1:]))  # type: ignore[index]

    def say(self, word: str) -> None:
        """Tell it one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.end()
            raise CheckFailed(f"{self.name} ended without a word")
        return line.strip()

    def end(self) -> None:
        """Wait for its end, which must be a good one."""
        _, told = self._process.communicate(timeout=CHILD_SECONDS)
        check(self._process.returncode == 0, f"{self.name} ended with {self._process.returncode}:\n{told[-2000:]}")


def child_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would change clew's behaviour, and with the repository importable."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("CLEW_", "LANGCHAIN_", "LANGSMITH_"))
    }
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore", **more}


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder of its own, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="clew-bench-") as folder:
        yield Path(folder)


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)
