"""`clew why`: what an answer came of."""

from __future__ import annotations

from typing import Annotated

import typer

from clew.cli.output import AsJson, StorePath, reader, write, write_json


def why(
    of: Annotated[
        str | None,
        typer.Argument(
            metavar="[X]",
            help="A run, span, digest (any unique prefix), ref, row or file; default: the last run.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="CHANNEL", help="Start at what the run last wrote there.", show_default=False)
    ] = None,
    control: Annotated[bool, typer.Option("--control", help="Add which node triggered which.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Leave nothing out of the tree.")] = False,
    as_json: AsJson = False,
    store: StorePath = None,
) -> None:
    """What an answer came of.

    From an answer back to rows, documents, prompts, models, tools, code and environment, with the evidence.
    """
    with reader(store) as opened:
        found = opened.why(of, output=output, control=control)
    if as_json:
        write_json(found.to_dict())
        return
    from clew.lineage.story import tree

    write(tree(found, everything=all_))
    text = found.nodes[found.root].detail.get("note")
    if text and found.question == "why" and not found.edges:
        write(f"({text})")
