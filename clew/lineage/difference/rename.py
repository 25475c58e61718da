"""Models that are called by another name in the other run, such as one that a replay put in the place of another.

A call is named by its model, and so would have no counterpart. It is aligned as if it were called as there, where that
is beyond doubt: the one name stands in the first run alone, the other in the second, and somewhere in the same step both
were asked the very same, and no third.
"""

from __future__ import annotations

from collections import defaultdict

from clew.lineage.difference.step import Step

_Asked = tuple[str, str, bytes]


def rename(a: list[Step], b: list[Step]) -> None:
    """Give the first run's calls the names (`alias`) by which the second calls the same models."""
    ones, others = _asked(a), _asked(b)
    known_a, known_b = ({name for names in asked.values() for name in names} for asked in (ones, others))
    there: dict[str, set[str]] = defaultdict(set)
    here: dict[str, set[str]] = defaultdict(set)
    for asked in ones.keys() & others.keys():
        for name in ones[asked] - known_b:
            for other in others[asked] - known_a:
                there[name].add(other)
                here[other].add(name)
    for step in _calls(a):
        found = there.get(step.name, set())
        if len(found) == 1 and len(here[alias := next(iter(found))]) == 1:
            step.alias = alias


def _asked(tops: list[Step]) -> dict[_Asked, set[str]]:
    """What was asked, and in which step -> the names of the models that were."""
    found: dict[_Asked, set[str]] = defaultdict(set)
    for step in _calls(tops):
        assert step.without_model is not None
        found[step.kind, _where(step), step.without_model].add(step.name)
    return found


def _where(step: Step) -> str:
    """The path of the step around it, below the root, which a replay calls otherwise."""
    places = []
    above = step.parent
    while above is not None and above.parent is not None:
        places.append(above.place)
        above = above.parent
    return "/".join(reversed(places))


def _calls(tops: list[Step]) -> list[Step]:
    return [step for top in tops for step in top.within() if step.without_model is not None]
