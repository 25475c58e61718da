"""`clew refs`: names of artifacts, and what each named before."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from clew.cli import when
from clew.cli.output import AsJson, StorePath, reader, write, write_json


def refs(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Show this ref's history, oldest first: dataset/handbook, or handbook.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    store: StorePath = None,
) -> None:
    """Names of artifacts, and their history."""
    from clew.store import ref

    with reader(store) as opened:
        with opened.connection():
            pass  # caught up: refs of processes that died are in
        found = ref.listing(opened.store) if name is None else ref.history_of(opened.store, _full(opened.store, name))
    if as_json:
        write_json(found)
    elif not found:
        write(f"no refs in {opened.folder.path}; clew.dataset(name, rows) makes one")
    else:
        write(_table(found))


def _full(store: Any, name: str) -> str:
    """The ref that `name` means: itself, without its version, or with its kind left out where that is unique."""
    from clew.store import ref

    names = [one["name"] for one in ref.listing(store)]
    base = name.partition("@")[0]
    for candidate in (name, base):
        if candidate in names:
            return candidate
    ends = [one for one in names if one.partition("/")[2] in (name, base)]
    return ends[0] if len(ends) == 1 else name


def _table(found: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("ref", "kind", "digest", "when", "who"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for one in found:
        table.add_row(
            f"{one['name']}@{one['version']}", one["kind"], one["digest"], when.clock(one["when_ns"]), one["who"]
        )
    return table
