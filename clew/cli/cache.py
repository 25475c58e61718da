"""`clew cache`: what was answered from the cache and what that saved; why a call was, or was not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clew.cli.output import AsJson, StorePath, reader, write, write_json
from clew.cli.price import prices
from clew.store.errors import NotFound

if TYPE_CHECKING:
    from clew.lineage.reader import Reader
    from clew.replay.account import Account
    from clew.replay.explain import Explanation
    from clew.replay.stats import Reason, Stats

SHOWN = 5  # reasons below the table

app = typer.Typer(help="What was answered from the cache.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _every() -> None:
    pass


@app.command()
def stats(
    price: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=IN,OUT",
            help="Money for a million input and output tokens of a model: gpt-4o=2.5,10. Several may be given.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    store: StorePath = None,
) -> None:
    """Hits and misses by kind and model, and the time, tokens and money that hits saved."""
    from clew.replay import stats as counted

    with reader(store) as opened, opened.connection() as connection:
        found = counted.stats(connection, prices(price))
        count, size = counted.actions(connection)
        reasons = counted.reasons(opened.store, connection)
    if as_json:
        calls = [_plain(one) for one in found]
        write_json({"actions": count, "size_bytes": size, "calls": calls, "reasons": reasons})
        return
    write(f"{count} answers, {size / 1e6:.1f} MB")
    if found:
        write(_table(found), *_told(reasons))
    else:
        write("nothing asked the cache yet; clew.init(cache=True) switches it on")


@app.command()
def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="KEY|SPAN|RUN",
            help="A key of the cache, a span (any unique prefix), or a run, of which all calls are explained.",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
    store: StorePath = None,
) -> None:
    """Why a call was, or was not, answered from the cache: what its key was made of, and what tells it from the nearest.
    Of a run a line for each call that asked."""
    with reader(store) as opened:
        found = _explained(opened, what)
    if as_json:
        write_json(found.to_dict())
    else:
        write(str(found))


def _explained(opened: Reader, what: str) -> Explanation | Account:
    from clew.replay.account import account
    from clew.replay.explain import explain as explained

    try:
        return explained(opened, what)
    except NotFound as error:
        try:
            return account(opened, what)
        except NotFound:
            raise error from None


def _plain(one: Stats) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "model": one.model,
        "hits": one.hits,
        "misses": one.misses,
        "passed": one.passed,
        "hit_rate": round(one.hit_rate, 4),
        "saved_seconds": round(one.saved_seconds, 6),
        "saved_input_tokens": one.saved_input_tokens,
        "saved_output_tokens": one.saved_output_tokens,
        "saved_money": one.saved_money,
    }


def _told(reasons: list[Reason]) -> list[str]:
    """The commonest reasons of calls that passed, below the table."""
    shown = [f"  {one.count} {one.kind}: {one.reason}" for one in reasons[:SHOWN]]
    more = [f"  … {len(reasons) - SHOWN} more (--json)"] if len(reasons) > SHOWN else []
    return ["", "passed, because:", *shown, *more] if reasons else []


def _table(found: list[Stats]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("kind")
    table.add_column("model")
    for column in ("hits", "misses", "rate", "passed", "seconds saved", "tokens saved", "money saved"):
        table.add_column(column, justify="right")
    for one in found:
        tokens = one.saved_input_tokens + one.saved_output_tokens
        money = "" if one.saved_money is None else f"{one.saved_money:.4f}"
        numbers = (one.hits, one.misses, f"{one.hit_rate:.0%}", one.passed, f"{one.saved_seconds:.2f}", tokens, money)
        table.add_row(one.kind, one.model, *map(str, numbers))
    return table
