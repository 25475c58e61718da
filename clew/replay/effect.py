"""Effects: what calling a tool or function does to the world, which says whether its answer may be used again.

* `pure`: nothing; the answer depends on the arguments alone
* `read`: nothing, but the world it reads may change: an answer is good for `ttl_seconds`
* `write`: something; done once for each idempotency key
* `never`: no answer is ever used again

A tool that says nothing is not cached.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

F = TypeVar("F")
Class = Literal["pure", "read", "write", "never"]
_CLASSES = ("pure", "read", "write", "never")
_MARK = "__clew_effect__"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Effect(NamedTuple):
    """What a call does. `idempotency_key(arguments)` of a write tells which calls are one and the same."""

    name: Class
    ttl_seconds: float | None = None
    idempotency_key: Callable[[dict[str, Any]], Any] | None = None
    version: str | None = None


def effect(
    name: Class,
    *,
    ttl: str | float | None = None,
    idempotency_key: Callable[[dict[str, Any]], Any] | None = None,
    version: str | None = None,
) -> Callable[[F], F]:
    """Say of a tool what calling it does: `@clew.effect("read", ttl="1d")`. A ttl is a number of seconds, or a text such
    as "90s", "10m", "12h", "7d". `version` stands for its code, such as of one that holds a client. ValueError for what
    makes no sense together."""
    found = declared(name, ttl=ttl, idempotency_key=idempotency_key)._replace(version=version)

    def mark(subject: F) -> F:
        function: Any = getattr(subject, "func", None) or getattr(subject, "coroutine", None) or subject
        setattr(function, _MARK, found)
        return subject

    return mark


def declared(
    name: str, *, ttl: str | float | None = None, idempotency_key: Callable[[dict[str, Any]], Any] | None = None
) -> Effect:
    """An effect from how it is said."""
    if name not in _CLASSES:
        raise ValueError(f"an effect is one of {', '.join(_CLASSES)}, not {name!r}")
    if ttl is not None and name != "read":
        raise ValueError(f"a ttl says how long what was read is good for: it goes with 'read', not with {name!r}")
    if name == "write" and idempotency_key is None:
        raise ValueError(
            "a 'write' needs an idempotency_key: a function of the dict of arguments that tells what is the same, such as "
            "idempotency_key=lambda arguments: arguments['order_id']"
        )
    if name != "write" and idempotency_key is not None:
        raise ValueError(f"an idempotency_key goes with 'write', not with {name!r}")
    return Effect(name, None if ttl is None else seconds(ttl), idempotency_key)  # type: ignore[arg-type]


def effect_of(subject: Any) -> Effect | None:
    """What was said of a tool (by its function) or of a function; None where nothing was."""
    for one in (subject, getattr(subject, "func", None), getattr(subject, "coroutine", None), type(subject)):
        found = getattr(one, _MARK, None)
        if isinstance(found, Effect):
            return found
    return None


def seconds(text: str | float) -> float:
    """A duration in seconds: a number, or a number with one of s, m, h, d, w.

    >>> seconds("90s"), seconds("1d"), seconds(5)
    (90.0, 86400.0, 5.0)
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        number, unit = float(text), "s"
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw]?)\s*", str(text))
        if match is None:
            raise ValueError(
                f"a duration is a number of seconds or a text such as '90s', '10m', '12h', '7d'; not {text!r}"
            )
        number, unit = float(match[1]), match[2] or "s"
    if not number > 0:
        raise ValueError(f"a duration is positive, not {text!r}")
    return number * _UNITS[unit]
