"""The `clew` program: its commands, and how it ends when something is wrong."""

from __future__ import annotations

import os
import sys
from typing import Annotated, TextIO

import typer

from clew.cli import cache, diff, doctor, gc, impact, refs, replay, runs, show, why
from clew.cli.output import complain
from clew.store.errors import ClewError
from clew.version import VERSION

app = typer.Typer(
    name="clew",
    help="Follow the thread from an agent's answer back to the data, code, prompt, model and environment it came of.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _every(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


for command in (why.why, impact.impact, diff.diff, runs.runs, show.show, replay.replay, refs.refs, gc.gc):
    app.command()(command)


app.add_typer(cache.app, name="cache")
app.add_typer(doctor.app, name="doctor")


@app.command()
def version() -> None:
    """Print the version."""
    sys.stdout.write(f"clew {VERSION}\n")


def run() -> None:
    """Run the program and exit. An error is one line on stderr; a reader that went away is none of our errors."""
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()  # None where the shell closed them
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        try:
            app(prog_name="clew")
        except SystemExit:
            sys.stdout.flush()
            raise
        except BrokenPipeError:
            raise
        except (ClewError, OSError) as error:
            complain(error)
            sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        sys.exit(1)


def _nowhere() -> TextIO:
    return open(os.devnull, "w")
