"""What stands beside the recorded code and is no part of the record: data that a program finds next to its own files.

It is lent to the stage by links, as it is today. Code is not: a module that is not in the record is found by the import
system, and named then.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from clew.tracer import exclusion
from clew.tracer.code import CODE_SUFFIXES

_LIMIT = 2000  # of what one folder lends
_MODULE = (".py", ".pyc", ".so")
_CODE = (*CODE_SUFFIXES, *_MODULE)


def lend(root: Path, original: str | None, recorded: Collection[str], store: Path) -> list[str]:
    """Link what the original folders hold beside the code into those of the stage, but for what
    the record names, and the store that is read; the paths, of folders with a `/`."""
    lent: list[str] = []
    if original is None or not os.path.isdir(original):
        return lent
    for folder, below, _ in os.walk(root):
        below[:] = [name for name in below if not os.path.islink(os.path.join(folder, name))]
        relative = os.path.relpath(folder, root)
        source = original if relative == "." else os.path.join(original, relative)
        lent += _folder(
            Path(folder), source, "" if relative == "." else f"{relative}/", recorded, os.path.realpath(store)
        )
    return sorted(lent)


def _holds_code(folder: str) -> bool:
    """Whether a folder is a package or an environment, and no place for data."""
    try:
        names = os.listdir(folder)
    except OSError:
        return True
    return exclusion.ENVIRONMENT_MARK in names or any(name.endswith(_MODULE) for name in names)


def _folder(stage: Path, source: str, prefix: str, recorded: Collection[str], store: str) -> list[str]:
    lent = []
    try:
        with os.scandir(source) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)[:_LIMIT]
    except OSError:
        return []
    for entry in entries:
        place = stage / entry.name
        is_folder = entry.is_dir()
        if (
            os.path.lexists(place)
            or f"{prefix}{entry.name}" in recorded
            or exclusion.folder_reason(entry.name) in ("cache", "virtual environment")
            or os.path.realpath(entry.path) == store
        ):
            continue
        if _holds_code(entry.path) if is_folder else entry.name.endswith(_CODE):
            continue
        place.symlink_to(entry.path)
        lent.append(f"{prefix}{entry.name}{'/' if is_folder else ''}")
    return lent
