"""Recording small programs in processes of their own, and running them again from the stage."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import clew
from clew.lineage.reader import Reader
from clew.replay.stage import Laid, Launch, Recorded, launch, lay_out, recorded_process

CLEW = Path(__file__).parents[2]


def put(folder: Path, path: str, content: str | bytes = "") -> Path:
    """Write a file, with the folders above it."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


class Bench:
    """A project folder and a store beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = folder / "project"
        self.project.mkdir()
        self.store = folder / "store"
        self.python = sys.executable
        self._stages = 0

    def variables(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {**kept, "PYTHONPATH": str(CLEW), "CLEW_STORE": str(self.store), **more}

    def record(self, *arguments: str, cwd: Path | None = None, stdin: str | None = None, **variables: str) -> str:
        """Run Python with these arguments; what it printed."""
        done = subprocess.run(
            [self.python, *arguments],
            cwd=cwd or self.project,
            env=self.variables(**variables),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def reading(self) -> Iterator[tuple[Reader, Recorded]]:
        """The store, and what it has of the newest process."""
        with clew.open(self.store) as reader:
            newest = next(run for run in reader.runs(all=True) if run.process)
            yield reader, recorded_process(reader, newest.run_id)

    def stage(self) -> Path:
        """A folder that is not there yet."""
        self._stages += 1
        return self.folder / f"stage {self._stages}"

    def laid(self) -> tuple[Recorded, Laid]:
        """The newest process, with its code laid out."""
        with self.reading() as (reader, recorded):
            return recorded, lay_out(reader, recorded, self.stage())

    def replay(self, *, arguments: Sequence[str] | None = None, cwd: Path | None = None) -> str:
        """Run the newest process again from its recorded code; what it printed."""
        recorded, laid = self.laid()
        return self.output(launch(recorded, laid, arguments=arguments, cwd=cwd, python=self.python))

    def output(self, launched: Launch) -> str:
        """Run what was launched, in the variables of this bench; what it printed."""
        printed = self.folder / "printed"
        with printed.open("w") as out, (self.folder / "complaints").open("w") as err:
            status = launched.run(stdout=out, stderr=err, base=self.variables())
        assert status == 0, (self.folder / "complaints").read_text()
        return printed.read_text()
