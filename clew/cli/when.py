"""Times, durations and sizes as a person reads them, and ages as a person writes them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

_LONGEST_S = 50 * 365.25 * 86400  # nothing here is older
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def clock(when_ns: int) -> str:
    """Local date and time, to the second."""
    return datetime.fromtimestamp(when_ns / 1e9, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(duration_ns: int | None) -> str:
    """A duration in its own unit; "-" where there is none.

    >>> duration(1_234_000), duration(75_000_000_000)
    ('1.23 ms', '1 min 15 s')
    """
    if duration_ns is None:
        return "-"
    if duration_ns >= 60_000_000_000:
        minutes, seconds = divmod(round(duration_ns / 1e9), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
    for unit, scale in (("s", 1e9), ("ms", 1e6)):
        if duration_ns >= scale:
            return f"{duration_ns / scale:.3g} {unit}"
    return f"{duration_ns / 1e3:.0f} µs"


def size(size_bytes: int) -> str:
    """A size in its own unit.

    >>> size(512), size(1_500_000)
    ('512 B', '1.5 MB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes} B"


def age_seconds(text: str) -> float:
    """The age written as `30d`, `12h`, `45m`, `2w`. ValueError for anything else.

    >>> age_seconds("30d")
    2592000.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no age: write a number and s, m, h, d or w, such as 30d")
    return min(float(found[1]) * _UNIT_S[found[2]], _LONGEST_S)


def since_ns(text: str) -> int:
    """The moment that is written as an age before now (`2h`, `3d`) or as an ISO date or time, in nanoseconds; a time
    without a zone is local. ValueError for anything else.

    >>> since_ns("1970-01-01T00:01+00:00")
    60000000000
    """
    try:
        return time.time_ns() - int(age_seconds(text) * 1e9)
    except ValueError:
        pass
    try:
        since = datetime.fromisoformat(text.strip()).astimezone(UTC) - datetime.fromtimestamp(0, UTC)
        return since // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"{text!r} is no age (2h, 3d, 1w) and no ISO time (2025-06-01, 2025-06-01T12:30, 2025-06-01T12:30Z)"
        ) from None
