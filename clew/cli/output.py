"""What every command shares: `--json` and `--store`, and how results are written.

A terminal gets colour and its own width; a pipe gets plain text whose lines are never folded. JSON is the only thing
on stdout when it is asked for.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from clew.store.decoding import legible

if TYPE_CHECKING:
    from rich.console import Console

    from clew.lineage.reader import Reader

SCHEMA = "clew/1"
_PIPE_COLUMNS = 4000

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StorePath = Annotated[
    Path | None,
    typer.Option(
        "--store", help="The store's folder (default: the variable CLEW_STORE, else ./.clew).", show_default=False
    ),
]


def reader(store: Path | None) -> Reader:
    """The store that a command reads."""
    from clew.lineage.reader import open_store

    return open_store(store)


@contextlib.contextmanager
def mistakes() -> Iterator[None]:
    """What makes no sense is the user's mistake, and no traceback."""
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise typer.BadParameter(str(error)) from error


def write_json(value: Any) -> None:
    """Print one JSON document; objects without a schema get ours."""
    if isinstance(value, dict) and "schema" not in value:
        value = {"schema": SCHEMA, **value}
    indent = 2 if sys.stdout.isatty() else None
    text = json.dumps(plain(value), ensure_ascii=False, indent=indent, allow_nan=False)
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")  # a lone surrogate: its JSON escape
    sys.stdout.buffer.flush()


def plain(value: Any) -> Any:
    """A captured value as JSON has it: what JSON lacks becomes an object that names its type."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if isinstance(shown := legible(value), int) else {"int": shown}
        case float():
            return value if math.isfinite(value) else {"float": str(value)}
        case dict():
            if all(isinstance(key, str) for key in value):
                return {key: plain(part) for key, part in value.items()}
            return {"items": [[plain(key), plain(part)] for key, part in value.items()]}
        case list() | tuple():
            return [plain(part) for part in value]
        case set() | frozenset():
            return {"set": sorted((plain(part) for part in value), key=str)}
        case bytes():
            return {"base64": base64.b64encode(value).decode()}
        case msgspec.Struct():
            return {field: plain(getattr(value, field)) for field in value.__struct_fields__}
        case _:
            return str(value)


def console() -> Console:
    """Where text goes."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False, soft_wrap=False)
    return Console(highlight=False, color_system=None, width=_PIPE_COLUMNS, legacy_windows=False)


def write(*things: Any) -> None:
    """Print texts (taken as they are, without markup) and renderables."""
    out = console()
    for thing in things:
        if isinstance(thing, str):
            out.print(thing, markup=False, soft_wrap=True)
        else:
            out.print(thing)


def note(text: str) -> None:
    """Tell the reader something that is no part of the result."""
    sys.stderr.write(f"{text}\n")


def complain(error: Exception) -> None:
    """An error, as one line on stderr."""
    sys.stdout.flush()
    sys.stderr.write(f"clew: {' '.join(str(error).split())}\n")
