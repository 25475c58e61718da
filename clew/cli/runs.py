"""`clew runs`: what ran."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clew.cli import when
from clew.cli.output import AsJson, StorePath, reader, write, write_json

if TYPE_CHECKING:
    from clew.lineage.view import RunView

SHOWN = 50
STYLE = {"ok": "green", "error": "red", "killed": "red", "running": "yellow"}


def runs(
    used: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X", help="Only runs whose answer came of X; given again, of all of them.", show_default=False
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Runs inside runs, and process runs, too.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"At most so many (default: {SHOWN}; with --json all).", show_default=False),
    ] = None,
    session: Annotated[str | None, typer.Option(help="Only runs of this session.", show_default=False)] = None,
    as_json: AsJson = False,
    store: StorePath = None,
) -> None:
    """What ran, newest first."""
    with reader(store) as opened:
        found = opened.runs(all=all_, used=used or None)
    if session is not None:
        found = [run for run in found if run.session == session]
    if as_json:
        write_json([run.to_dict() for run in found[:limit]])
        return
    if not found:
        what = " of this session" if session is not None else " that used all of these" if used else ""
        write(f"no runs{what} in {opened.folder.path}")
        return
    shown = found[: limit or SHOWN]
    write(_table(shown))
    if len(found) > len(shown):
        write(f"… {len(found) - len(shown)} more (--limit {len(found)})")


def _table(found: list[RunView]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, width in (("run", 32), ("started", 19), ("took", 4), ("status", 6), ("name", 4), ("session", 7)):
        justify: Any = "right" if name == "took" else "left"
        table.add_column(name, no_wrap=True, overflow="ellipsis", justify=justify, min_width=width)
    for run in found:
        name = f"{run.name} (process)" if run.process else run.name
        if run.replay_of is not None and not run.name.startswith("replay of "):
            name += " (replay)"
        table.add_row(
            run.run_id,
            when.clock(run.started_ns),
            when.duration(run.duration_ns),
            Text(run.status, style=STYLE.get(run.status, "yellow")),
            Text(name),
            Text(run.session or ""),
        )
    return table
