"""What differs in a pair of steps, role by role, down to the field of a message or document."""

from __future__ import annotations

from typing import Any

from clew.lineage.difference.alignment import Pair
from clew.lineage.difference.change import ABSENT, Change, compared, counterparts
from clew.lineage.difference.fingerprint import rounded
from clew.lineage.difference.step import Part, Step

MOST = 200  # changes of one step


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
    if not pair.given and a.name != b.name and not _called_by_model(a, b):
        found.setdefault("request", []).append("name")
    if a.status != b.status:
        found.setdefault("answer", []).append("status")
    if a.error != b.error:
        found.setdefault("answer", []).append("error")
    return found


def _called_by_model(a: Step, b: Step) -> bool:
    """Whether their names say no more than their models' do."""
    return all(any(part.role == "model" and part.called == step.name for part in step.used) for step in (a, b))


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
    for i, j in [(0, 0)] if len(a) == len(b) == 1 else counterparts(a, b, equal=True):
        place = role if alone else f"{role}[{i if j is None else j}]"
        found += compared(side, place, ABSENT if i is None else a[i], ABSENT if j is None else b[j])
        if i is not None and j is not None:
            left, right = one.parts[i], other.parts[j]
            if left.called != right.called:
                found.append(Change(side, f"{place} (name)", left.called, right.called))
            found += compared(side, f"{place} (info)", rounded(left.info), rounded(right.info))
    return found
