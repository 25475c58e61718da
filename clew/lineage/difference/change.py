"""One difference of two values, how two values are walked to all of them, and how one is told on a line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

from clew.lineage.difference import wording
from clew.lineage.difference.fingerprint import fingerprint
from clew.lineage.difference.minted import Minted
from clew.store.decoding import Opaque, Record, Reference, printed
from clew.store.digest import Digest


class Absent:
    """What one side lacks."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


class Change:
    """One difference. `side` is "request", "answer" or a facet's name; `path` leads to it: `messages[2].content`."""

    def __init__(self, side: str, path: str, a: Any, b: Any) -> None:
        self.side = side
        self.path = path
        self.a = a
        self.b = b

    def __repr__(self) -> str:
        return f"<{self.side} {self.path}: {self.a!r} -> {self.b!r}>"

    def __str__(self) -> str:
        """On one line, shortened to where the two differ: `messages[2].content: “hello” → “goodbye”`."""
        a, b = self.told()
        path = wording.on_a_line(self.path)
        return f"{path}: {a} → {b}" if path else f"{a} → {b}"

    def told(self) -> tuple[str, str]:
        """Both values on a line each, texts quoted, shortened to where they differ; they never read alike."""
        values = self.a, self.b
        a, b = map(quoted, values, wording.stretch(*(wording.on_a_line(said(value)) for value in values)))
        if wording.looks(a) == wording.looks(b):  # spaces, how Unicode writes a letter, types that JSON lacks
            a, b = map(quoted, values, wording.stretch(*(ascii(printed(value))[1:-1] for value in values)))
        return a, b

    def to_dict(self) -> dict[str, Any]:
        """`side`, `path`, `a` and `b` (each left out where that run lacks it); of two texts also `diff`, unified."""
        found: dict[str, Any] = {"side": self.side, "path": self.path}
        for name, value in (("a", self.a), ("b", self.b)):
            if value is not ABSENT:
                found[name] = shown(value)
        if isinstance(self.a, str) and isinstance(self.b, str):
            found["diff"] = wording.lines(self.a, self.b)
        return found


def shown(value: Any) -> Any:
    """A value as JSON may hold it: ids by their number, what has no content by its digest."""
    match value:
        case Minted():
            return str(value)
        case Reference(digest=digest):
            return {"digest": str(digest)}
        case Digest():
            return {"digest": str(value)}
        case Record(type=kind, fields=fields):
            return {"type": kind, "fields": shown(fields)}
        case Opaque(type=kind):
            return {"opaque": kind}
        case dict():
            return {key if isinstance(key, str) else printed(key): shown(part) for key, part in value.items()}
        case list() | tuple():
            return [shown(part) for part in value]
        case _:
            return value


def said(value: Any) -> str:
    """A value as a person reads it, in full: texts as they are, the rest as JSON."""
    if isinstance(value, str):
        return value
    if value is ABSENT:
        return "nothing"
    try:
        return json.dumps(shown(value), ensure_ascii=False, default=_plain)
    except ValueError:  # a number with more digits than Python prints
        return printed(value)


def quoted(value: Any, told: str) -> str:
    """What is told of a value, in quotes if it is a text: “1” is not 1."""
    return f"“{told}”" if isinstance(value, str) else told


def _plain(value: Any) -> Any:
    return sorted(map(shown, value), key=str) if isinstance(value, (set, frozenset)) else printed(value)


def compared(side: str, path: str, a: Any, b: Any) -> Iterator[Change]:
    """The differences of two values, field by field, item by item."""
    if fingerprint(a) == fingerprint(b):  # not ==: 1 is not True, and not a number is what it is
        return
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys((*a, *b)):
            yield from compared(side, f"{path}.{key}" if path else printed(key), a.get(key, ABSENT), b.get(key, ABSENT))
    elif isinstance(a, (list, tuple)) and type(a) is type(b):
        for i, j in counterparts(a, b):
            place = i if j is None else j
            yield from compared(side, f"{path}[{place}]", ABSENT if i is None else a[i], ABSENT if j is None else b[j])
    elif isinstance(a, Record) and isinstance(b, Record) and a.type == b.type:
        yield from compared(side, path, a.fields, b.fields)
    else:
        yield Change(side, path, a, b)


def counterparts(
    a: list[Any] | tuple[Any, ...], b: list[Any] | tuple[Any, ...], *, equal: bool = False
) -> Iterator[tuple[int | None, int | None]]:
    """Which items of two lists stand against each other; with `equal` those that do not differ, too."""
    ones, others = [fingerprint(one) for one in a], [fingerprint(one) for one in b]
    front, end = wording.ends(ones, others)  # which cost the matcher much where items are repeated
    if equal:
        yield from zip(range(front), range(front), strict=True)
    middle = ones[front : len(ones) - end], others[front : len(others) - end]
    for tag, *bounds in difflib.SequenceMatcher(None, *middle, False).get_opcodes():
        if tag == "equal" and not equal:
            continue
        i, j, k, m = (front + bound for bound in bounds)
        common = min(j - i, m - k)
        yield from zip(range(i, i + common), range(k, k + common), strict=True)
        yield from ((one, None) for one in range(i + common, j))
        yield from ((None, one) for one in range(k + common, m))
    if equal:
        yield from zip(range(len(ones) - end, len(ones)), range(len(others) - end, len(others)), strict=True)
