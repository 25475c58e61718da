"""`clew gc`: make room, and say what goes and why the rest stays."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clew.cli import when
from clew.cli.output import AsJson, StorePath, write, write_json

if TYPE_CHECKING:
    from clew.store.gc import Collection


def gc(
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than", metavar="AGE", help="Only what ended longer ago: 30d, 12h, 2w.", show_default=False
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and why the rest stays.")] = False,
    as_json: AsJson = False,
    store: StorePath = None,
) -> None:
    """Remove old segments that nothing kept needs.

    All segments of a process go together, when it is over and no ref and no younger run leads to anything of it.
    """
    try:
        age = when.age_seconds(older_than)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--older-than") from error
    from clew.lineage import index
    from clew.lineage.reader import default_folder
    from clew.store import segment
    from clew.store.gc import collect

    folder = default_folder(store)
    opened, indexer = index.shared(folder)
    try:
        before_ns = time.time_ns() - int(age * 1e9)
        found = collect(
            opened, before_ns, catch_up=lambda: indexer.catch_up(segment.stems(folder.log)), dry_run=dry_run
        )
    finally:
        index.forget(folder)
    if as_json:
        write_json(found.to_dict())
    else:
        write(*_lines(found, folder.path))


def _lines(found: Collection, path: Path) -> list[Any]:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("process", "last record", "runs", "size", "what"):
        table.add_column(column, no_wrap=column != "what")
    goes = "would go" if found.dry_run else "removed"
    for one in found.processes:
        what = goes if one.reason is None else f"kept: {one.reason}"
        table.add_row(one.process_id, when.clock(one.last_ns), str(one.runs), when.size(one.size_bytes), what)
    going = [one for one in found.processes if one.reason is None]
    runs, files = sum(one.runs for one in going), len(found.files)
    last = (
        f"{goes}: {len(going)} of {len(found.processes)} processes, {runs} runs, {files} large blobs, "
        f"{when.size(found.freed_bytes)}; limit {when.clock(found.before_ns)}; {path}"
    )
    return [table, last]
