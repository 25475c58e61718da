"""Which distributions brought an installed module, by its top name.

`importlib.metadata.packages_distributions` says so too, but takes a third of a second for a hundred distributions, and
before Python 3.12 it names none for what is compiled.
"""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Iterator, Mapping
from functools import cache


@cache
def owners(top: str) -> frozenset[str]:
    """The names of the distributions that have something of module `top`, as they were when this was first asked."""
    return frozenset(one.metadata["Name"] for one in _by_top().get(top, ()))


@cache
def _by_top() -> Mapping[str, list[importlib.metadata.Distribution]]:
    found: dict[str, list[importlib.metadata.Distribution]] = {}
    for one in importlib.metadata.distributions():
        for top in (one.read_text("top_level.txt") or "").split() or {*_tops(one)}:
            found.setdefault(top, []).append(one)
    return found


def _tops(distribution: importlib.metadata.Distribution) -> Iterator[str]:
    record = distribution.read_text("RECORD")
    for line in map(str, distribution.files or ()) if record is None else record.splitlines():
        top, inside, _ = line.removeprefix('"').partition("/")
        if not inside:
            top = inspect.getmodulename(line.partition(",")[0]) or "."
        if top and "." not in top:  # nor is a folder that no name leads to, or a place outside
            yield top
