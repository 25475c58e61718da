"""Prices on the command line: MODEL=IN,OUT, money for a million input and output tokens."""

from __future__ import annotations

import typer


def prices(texts: list[str] | None) -> dict[str, tuple[float, float]]:
    """The price of each model that is named."""
    return dict(map(_price, texts or []))


def _price(text: str) -> tuple[str, tuple[float, float]]:
    model, _, money = text.rpartition("=")
    parts = money.split(",")
    try:
        asked, answered = (float(part) for part in parts)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no price: MODEL=IN,OUT, such as gpt-4o=2.5,10") from None
    return model, (asked, answered)
