"""`clew diff`: what two runs did differently, and where they parted."""

from __future__ import annotations

from typing import Annotated

import typer

from clew.cli.output import AsJson, StorePath, complain, reader, write, write_json
from clew.store.errors import ClewError


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A run: its id (any unique prefix) or name.")],
    b: Annotated[
        str | None,
        typer.Argument(
            metavar="[B]",
            help="The run to compare it with. Default: A is a replay, and is compared with the run it replays.",
            show_default=False,
        ),
    ] = None,
    content: Annotated[
        bool, typer.Option("--content", help="What differs in every step and file, in full; implies --all.")
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="Equal steps too; leave nothing out of the tree.")] = False,
    as_json: AsJson = False,
    store: StorePath = None,
) -> None:
    """What differs between two runs.

    Steps are aligned by what they were asked and by their node, not by time. First come the steps where the two part:
    asked otherwise although nothing before them differs, or asked the same and answered otherwise.

    As diff(1) does, it ends with status 0 if the runs did the same, 1 if they differ, and 2 where it could not compare.
    """
    try:
        with reader(store) as opened:
            found = opened.diff(a, b)
            if as_json:
                write_json(found.to_dict(content=content))
            else:
                from clew.lineage.difference.telling import told

                write(told(found, everything=all_, content=content))
    except ClewError as error:
        complain(error)
        raise typer.Exit(2) from None
    if not found.equal:
        raise typer.Exit(1)
