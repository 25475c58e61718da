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
        str | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            help="Collect processes that ended longer ago: 30d, 12h, 2w.",
            show_default=False,
        ),
    ] = None,
    expired: Annotated[
        bool, typer.Option("--expired", help="Evict cached answers that are too old to be served.")
    ] = False,
    cache_bytes: Annotated[
        str | None,
        typer.Option(
            "--cache-bytes",
            metavar="SIZE",
            help="Evict cached answers until the rest has this size, 500MB or 2GB: first what saves least for its bytes.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and why the rest stays.")] = False,
    as_json: AsJson = False,
    store: StorePath = None,
) -> None:
    """Remove old traces and cached answers.

    What goes is segments that nothing kept needs, and cached answers that are not worth their room.
    All segments of a process go together, when it is over and no ref and no younger run leads to anything of it; answers
    of it that were asked for since the limit stay in the cache. An evicted answer is only forgotten by the cache: its
    record goes with its process.
    """
    if older_than is None and cache_bytes is None and not expired:
        raise typer.BadParameter("say what may go: --older-than AGE, --expired or --cache-bytes SIZE")
    before_ns = time.time_ns() - int(_age(older_than) * 1e9) if older_than is not None else None
    max_bytes = _size(cache_bytes) if cache_bytes is not None else None
    from clew.lineage import index
    from clew.lineage.reader import default_folder
    from clew.store import segment
    from clew.store.gc import collect

    folder = default_folder(store)
    opened, indexer = index.shared(folder)
    try:
        found = collect(
            opened,
            before_ns,
            catch_up=lambda: indexer.catch_up(segment.stems(folder.log)),
            dry_run=dry_run,
            expired=expired,
            max_bytes=max_bytes,
        )
    finally:
        index.forget(folder)
    if as_json:
        write_json(found.to_dict())
    else:
        write(*_lines(found, folder.path))


def _age(text: str) -> float:
    try:
        return when.age_seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--older-than") from error


def _size(text: str) -> int:
    from clew.replay.settings import size_bytes

    try:
        return size_bytes(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--cache-bytes") from error


def _lines(found: Collection, path: Path) -> list[Any]:
    lines: list[Any] = []
    goes = "would go" if found.dry_run else "removed"
    if found.before_ns is not None:
        going = [one for one in found.processes if one.reason is None]
        runs, files = sum(one.runs for one in going), len(found.files)
        lines += [
            _processes(found, goes),
            f"{goes}: {len(going)} of {len(found.processes)} processes, {runs} runs, {files} large blobs, "
            f"{when.size(found.freed_bytes)}; limit {when.clock(found.before_ns)}; {path}",
        ]
    if found.forgotten:
        lines.append(_answers(found, goes))
    count, size = sum(one.count for one in found.forgotten), sum(one.size_bytes for one in found.forgotten)
    kept = (
        f", {found.carried} of them of processes that {'would go' if found.dry_run else 'went'}"
        if found.carried
        else ""
    )
    lines.append(
        f"{goes}: {count} cached answers, {when.size(size)}; left {found.actions}, {when.size(found.actions_bytes)}{kept}"
    )
    return lines


def _processes(found: Collection, goes: str) -> Any:
    table = _table("process", "last record", "runs", "size", "what")
    for one in found.processes:
        what = goes if one.reason is None else f"kept: {one.reason}"
        table.add_row(one.process_id, when.clock(one.last_ns), str(one.runs), when.size(one.size_bytes), what)
    return table


def _answers(found: Collection, goes: str) -> Any:
    why = {"collected": "with its process", "expired": "expired", "evicted": "saves least for its bytes"}
    table = _table("kind", "model", "answers", "size", "took", "what")
    for one in found.forgotten:
        took = when.duration(int(one.seconds * 1e9))
        table.add_row(
            one.kind, one.model, str(one.count), when.size(one.size_bytes), took, f"{goes}: {why[one.reason]}"
        )
    return table


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column != "what")
    return table
