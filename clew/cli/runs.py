"""`clew runs`: what ran."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clew.cli import when
from clew.cli.output import AsJson, StorePath, console, mistakes, reader, write, write_json

if TYPE_CHECKING:
    from clew.lineage.view import RunView

SHOWN = 50
_COLUMNS = ("run", "started", "took", "status", "name", "session")
_BETWEEN = 2  # cells between two columns
_PREFIX = 16  # hex digits of an id that are always shown: its time, and some of its chance
_LEAST = 8
STATUSES = ("ok", "error", "cancelled", "closed_early", "interrupted", "running", "killed", "unknown")
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
    name: Annotated[str | None, typer.Option(help="Only runs of this name.", show_default=False)] = None,
    status: Annotated[
        str | None,
        typer.Option(help=f"Only runs that ended so: {', '.join(STATUSES)}.", show_default=False),
    ] = None,
    project: Annotated[str | None, typer.Option(help="Only runs of this project.", show_default=False)] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="AGE|TIME",
            help="Only runs that began since then: 2h or 3d ago, or an ISO time (2025-06-01, 2025-06-01T12:30; local "
            "where it names no zone).",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    store: StorePath = None,
) -> None:
    """What ran, newest first."""
    if status is not None and status not in STATUSES:
        raise typer.BadParameter(f"{status!r} is no status of a run; there are {', '.join(STATUSES)}")
    with mistakes():
        since_ns = 0 if since is None else when.since_ns(since)
    of = {"session": session, "name": name, "status": status, "project": project}
    of = {field: wanted for field, wanted in of.items() if wanted is not None}
    with reader(store) as opened:
        found = opened.runs(all=all_, used=used or None)
    found = [
        run
        for run in found
        if run.started_ns >= since_ns and all(getattr(run, field) == wanted for field, wanted in of.items())
    ]
    if as_json:
        write_json([run.to_dict() for run in found[:limit]])
        return
    if not found:
        what = "".join(f" of {field} {wanted!r}" for field, wanted in of.items())
        what += "" if since is None else f" since {when.clock(since_ns)}"
        write(f"no runs{what}{' that used all of these' if used else ''} in {opened.folder.path}")
        return
    shown = found[: limit or SHOWN]
    write(_table(shown, console().width))
    if len(found) > len(shown):
        write(f"… {len(found) - len(shown)} more (--limit {len(found)})")


def _table(found: list[RunView], width: int) -> Any:
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    rows = [_row(run) for run in found]
    names = [name for name in _COLUMNS if name != "session" or any(row[name] for row in rows)]
    widths = {name: max(cell_len(text) for text in (name, *(row[name] for row in rows))) for name in names}
    _fit(widths, width, [run.run_id for run in found])
    table = Table(box=None, pad_edge=False, padding=(0, _BETWEEN, 0, 0))
    for name in names:
        justify: Any = "right" if name == "took" else "left"
        overflow: Any = "crop" if name == "run" else "ellipsis"
        table.add_column(name, no_wrap=True, overflow=overflow, justify=justify, width=widths[name])
    for row in rows:
        style = {"status": STYLE.get(row["status"], "yellow")}
        table.add_row(*(Text(row[name], style=style.get(name, "")) for name in names))
    return table


def _row(run: RunView) -> dict[str, str]:
    name = f"{run.name} (process)" if run.process else run.name
    if run.replay_of is not None and not run.name.startswith("replay of "):
        name += " (replay)"
    return {
        "run": run.run_id,
        "started": when.clock(run.started_ns),
        "took": when.duration(run.duration_ns),
        "status": run.status,
        "name": name,
        "session": run.session or "",
    }


def _fit(widths: dict[str, int], width: int, ids: list[str]) -> None:
    """What a terminal of 80 columns has no room for is taken from ids, whose unique prefixes do as well, and from names;
    not from how a run ended."""
    prefix = next((size for size in range(_PREFIX, 32) if len({one[:size] for one in ids}) == len(ids)), 32)
    beyond = sum(widths.values()) + _BETWEEN * (len(widths) - 1) - width
    for name, least in (("run", prefix), ("session", _LEAST), ("name", _LEAST)):
        less = max(0, min(beyond, widths.get(name, 0) - least))
        if less:
            widths[name] -= less
            beyond -= less
