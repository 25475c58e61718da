"""Today's code in place of the recorded one, and what was changed in it since."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal

from clew.lineage.reader import Reader
from clew.replay.stage.original import Originals
from clew.replay.stage.recorded import Recorded, recorded_process
from clew.replay.stage.tree import Laid
from clew.tracer import code


@dataclasses.dataclass(frozen=True)
class ChangedFile:
    """A file that is not what was recorded: "changed", "deleted", or "added" where the record has none."""

    path: str
    change: Literal["changed", "deleted", "added"]

    def __str__(self) -> str:
        return f"{self.path} was {self.change} since"

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        return dataclasses.asdict(self)


def working_tree(recorded: Recorded, path: str | os.PathLike[str] = ".") -> Laid:
    """The code at `path`, to run instead of the recorded. Of `path` and the folders above it the root is the nearest that
    holds what the program was started with; ValueError if none does, or `path` is no folder."""
    start = Path(path).expanduser().resolve()
    if not start.is_dir():
        raise ValueError(f"{start} is no folder with code")
    entry = recorded.entry
    relative = recorded.relative(entry.path) if entry.path else None
    if relative:
        for folder in (start, *start.parents):
            if (folder / relative).is_file():
                return Laid(folder)
        raise ValueError(f"neither {start} nor a folder above it has {relative}, which the program was started with")
    if recorded.root is not None and recorded.relative(str(start)) is not None:
        return Laid(Path(recorded.root))  # `-c`, or an installed program: a folder inside names the whole
    return Laid(start)


def changed_files(
    reader: Reader, process: Recorded | str | bytes, path: str | os.PathLike[str] | None = None
) -> list[ChangedFile]:
    """Files of the working tree at `path` (by default where it was recorded) that are not the recorded ones, by path.

    Files that were recorded from outside the root are not compared: where they stood is not recorded.
    """
    recorded = process if isinstance(process, Recorded) else recorded_process(reader, process)
    if path is not None:
        root = working_tree(recorded, path).root
    elif recorded.root is not None and os.path.isdir(recorded.root):
        root = Path(recorded.root)
    else:
        return []
    originals = Originals(reader)
    outside = f"{recorded.code.modules_folder}/"
    found: list[ChangedFile] = []
    for file in recorded.code.files:
        place = str(root / file.path)
        if file.path.startswith(outside) or originals.is_same(file, place):
            continue
        found.append(ChangedFile(file.path, "changed" if os.path.lexists(place) else "deleted"))
    return sorted([*found, *_added(recorded, root)], key=lambda one: one.path)


def _added(recorded: Recorded, root: Path) -> list[ChangedFile]:
    if recorded.code.source == "imports":
        return []  # only what was imported was recorded; what else lies there is no project's
    relative = recorded.relative(recorded.entry.path) if recorded.entry.path else None
    entry = root / relative if relative else None
    today = code.capture(entry if entry is not None and entry.is_file() else None, cwd=root, modules={})
    known = {file.path for file in recorded.code.files} | {one.path for one in recorded.code.omissions}
    above = os.path.relpath(root, today.root)  # a repository that was made around it since
    prefix = "" if above == "." else above.replace(os.sep, "/") + "/"
    paths = (file.path.removeprefix(prefix) for file in today.files if file.path.startswith(prefix))
    return [ChangedFile(one, "added") for one in paths if one not in known]
