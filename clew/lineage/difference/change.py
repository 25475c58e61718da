"""What differs in a pair of steps, down to the field of a message or document."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from clew.lineage.difference import wording
from clew.lineage.difference.alignment import Pair
from clew.lineage.difference.fingerprint import fingerprint, rounded
from clew.lineage.difference.minted import Minted
from clew.lineage.difference.step import Part, Step
from clew.store.decoding import Opaque, Record, Reference, printed
from clew.store.digest import Digest

MOST = 200  # changes of one step


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


def roles(pair: Pair) -> dict[str, list[str]]:
    """What differs by role, without a look at the content: "request" and "answer"."""
    a, b = pair.a, pair.b
    if a is None or b is None:
        return {}
    found: dict[str, list[str]] = {}
    for side, ones, others in (("request", a.used, b.used), ("answer", a.generated, b.generated)):
        names = dict.fromkeys(part.role for part in (*ones, *others))
        if differing := [name for name in names if _forms(ones, name) != _forms(others, name)]:
            found[side] = differing
    if not pair.given and a.name != b.name:
        found.setdefault("request", []).append("name")
    if a.status != b.status:
        found.setdefault("answer", []).append("status")
    if a.error != b.error:
        found.setdefault("answer", []).append("error")
    return found


def changes(pair: Pair) -> list[Change]:
    """What differs in a pair that both runs have, at most `MOST`."""
    a, b = pair.a, pair.b
    if a is None or b is None:
        return []
    found: list[Change] = []
    differing = roles(pair)
    if "name" in differing.get("request", ()):
        found.append(Change("request", "name", a.name, b.name))
    for side, ones, others in (("request", a.used, b.used), ("answer", a.generated, b.generated)):
        for role in dict.fromkeys(part.role for part in (*ones, *others)):
            if role in differing.get(side, ()):
                found += _of_role(side, role, _Side(a, ones, role), _Side(b, others, role))
    if a.status != b.status:
        found.append(Change("answer", "status", a.status, b.status))
    for number, name in enumerate(("error.type", "exception.message")):
        told = [step.error[number] if step.error else ABSENT for step in (a, b)]
        if told[0] != told[1]:
            found.append(Change("answer", name, *told))
    return found[:MOST]


def compared(side: str, path: str, a: Any, b: Any) -> Iterator[Change]:
    """The differences of two values, field by field, item by item."""
    if type(a) is type(b) and a == b and fingerprint(a) == fingerprint(b):  # 1 is not True
        return
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys((*a, *b)):
            yield from compared(side, f"{path}.{key}" if path else printed(key), a.get(key, ABSENT), b.get(key, ABSENT))
    elif isinstance(a, (list, tuple)) and type(a) is type(b):
        for i, j in _items(a, b):
            place = i if j is None else j
            yield from compared(side, f"{path}[{place}]", ABSENT if i is None else a[i], ABSENT if j is None else b[j])
    elif isinstance(a, Record) and isinstance(b, Record) and a.type == b.type:
        yield from compared(side, path, a.fields, b.fields)
    else:
        yield Change(side, path, a, b)


def _items(
    a: list[Any] | tuple[Any, ...], b: list[Any] | tuple[Any, ...], *, equal: bool = False
) -> Iterator[tuple[int | None, int | None]]:
    """Which items of two lists stand against each other; with `equal` those that do not differ, too."""
    prints = [fingerprint(one) for one in a], [fingerprint(one) for one in b]
    for tag, i, j, k, m in difflib.SequenceMatcher(None, *prints, False).get_opcodes():
        if tag == "equal" and not equal:
            continue
        common = min(j - i, m - k)
        yield from zip(range(i, i + common), range(k, k + common), strict=True)
        yield from ((one, None) for one in range(i + common, j))
        yield from ((None, one) for one in range(k + common, m))


def _forms(parts: list[Part], role: str) -> list[Any]:
    return [(part.print, part.kind, part.called, rounded(part.info)) for part in parts if part.role == role]


class _Side:
    """The parts of one role in one run."""

    def __init__(self, step: Step, parts: list[Part], role: str) -> None:
        self.parts = [part for part in parts if part.role == role]
        self._renaming = step.content.renaming()
        self._content = step.content

    def values(self) -> list[Any]:
        """Their values, read together so that ids have one name in all of them."""
        return [part.read(self._content, self._renaming) for part in self.parts]


def _of_role(side: str, role: str, one: _Side, other: _Side) -> list[Change]:
    a, b = one.values(), other.values()
    found: list[Change] = []
    alone = len(a) <= 1 and len(b) <= 1
    for i, j in [(0, 0)] if len(a) == len(b) == 1 else _items(a, b, equal=True):
        place = role if alone else f"{role}[{i if j is None else j}]"
        found += compared(side, place, ABSENT if i is None else a[i], ABSENT if j is None else b[j])
        if i is not None and j is not None:
            left, right = one.parts[i], other.parts[j]
            if left.called != right.called:
                found.append(Change(side, f"{place} (name)", left.called, right.called))
            found += compared(side, f"{place} (info)", rounded(left.info), rounded(right.info))
    return found
