"""On what terms a run is replayed."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args

Mode = Literal["strict", "hybrid", "plan"]
MODES: tuple[str, ...] = get_args(Mode)
KINDS = ("llm", "tool", "retriever", "embedding", "chain")
Prices = Mapping[str, tuple[float, float]]  # model -> money for a million input and output tokens


@dataclasses.dataclass(frozen=True)
class Terms:
    """How misses are met, and what may go live.

    `strict`: nothing goes live. `hybrid`: what the recording does not know does, as far as `allow` and the budget go.
    `plan`: nothing does, and what would is listed. `allow` holds kinds of calls ("llm", "retriever", ...) and names of
    tools; a tool that is said to write goes live only by its name. `budget` is money, by `prices`; `max_calls` a number of live
    calls. `pace` 1.0 gives the chunks of streams in recorded time, 0 at once. `ordered` has parallel calls end in the
    recorded order.
    """

    mode: Mode = "strict"
    allow: frozenset[str] | None = None
    budget: float | None = None
    max_calls: int | None = None
    prices: Prices = dataclasses.field(default_factory=dict)
    pace: float = 0.0
    ordered: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"a replay is {', '.join(MODES[:-1])} or {MODES[-1]}, not {self.mode!r}")
        if self.mode != "hybrid" and (self.allow is not None or self.budget is not None or self.max_calls is not None):
            raise ValueError(f"allow, budget and max_calls say what may go live; in a {self.mode} replay nothing does")
        for name, one in (("budget", self.budget), ("max_calls", self.max_calls), ("pace", self.pace)):
            if one is not None and not one >= 0:  # NaN neither: nothing is above it, so it would bound nothing
                raise ValueError(f"{name} is not negative, and not {one}")
        for model, price in self.prices.items():
            if not all(one >= 0 for one in price):
                raise ValueError(f"a price is not negative, and that of {model} is {price[0]}, {price[1]}")
        if self.budget is not None and not self.prices:
            raise ValueError(
                "a budget is money: it needs prices for a million input and output tokens, such as "
                "{'gpt-4o': (2.5, 10)} (on the command line --price gpt-4o=2.5,10)"
            )

    def cost(self, model: str, input_tokens: int, output_tokens: int) -> float | None:
        """Money for these tokens; None of a model without a price."""
        price = self.prices.get(model)
        return None if price is None else (price[0] * input_tokens + price[1] * output_tokens) / 1e6


def terms(mode: str, allow: Collection[str] | None, prices: Prices | None, **more: Any) -> Terms:
    """Terms as a user says them. ValueError for what makes no sense."""
    if isinstance(allow, str):
        raise ValueError(f"allow is a list of kinds of calls and names of tools, such as ['llm'], not {allow!r}")
    return Terms(
        mode=mode,  # type: ignore[arg-type]
        allow=None if allow is None else frozenset(allow),
        prices=dict(prices or {}),
        **more,
    )
