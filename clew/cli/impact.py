"""`clew impact`: what came of a document, dataset, model or file."""

from __future__ import annotations

from typing import Annotated

import typer

from clew.cli.output import AsJson, StorePath, reader, write, write_json


def impact(
    of: Annotated[
        str, typer.Argument(metavar="X", help="A dataset version, row, digest (any unique prefix), ref, run or file.")
    ],
    limit: Annotated[int, typer.Option(min=1, help="At most so many answers, newest first.")] = 1000,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Go on where the page before ended.", show_default=False)
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Leave nothing out of the tree.")] = False,
    as_json: AsJson = False,
    store: StorePath = None,
) -> None:
    """What came of X.

    Forwards: every document, index, model and answer that a dataset version, document, model or file touched.
    """
    with reader(store) as opened:
        try:
            found = opened.impact(of, limit=limit, after=after)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    if as_json:
        write_json(found.to_dict())
        return
    from clew.lineage.story import tree

    write(tree(found, everything=all_))
