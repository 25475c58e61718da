"""Aligning two runs' steps: level by level, what was asked first, then where it was asked.

Of the steps in two aligned steps those are paired that are the same with all that is in them; then those that were asked
the same in the same place, then in another place; what is left by its place alone, where several stand in one place the
likest first. So parallel branches meet by what they were asked, in whatever order they ended, and a step more or less
does not shift those after it. At last calls that found none meet across levels: a program may put a step around others.
A model that is called otherwise in the other run (difference/rename.py) counts by the name that it has there.
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator

from clew.lineage.difference.rename import rename
from clew.lineage.difference.step import BOUNDARIES, Step

LIKENESSES = 100_000  # comparisons to find the likest; beyond that, steps of one place are paired in their order
_LAST = 8  # items of a long list that are looked at to tell how alike two are


class Pair:
    """Two steps that are one another's counterpart, or a step of one run alone (`a` or `b` is None)."""

    def __init__(self, a: Step | None, b: Step | None) -> None:
        self.a = a
        self.b = b
        self.parent: Pair | None = None
        self.children: list[Pair] = []
        self.number = 0
        self.elsewhere = False  # the two do not stand in aligned steps
        self.moved = False  # they do, in another order
        self.given = False  # the user compares these two, whatever they are called
        self.state = "equal"
        self.first = False  # no earlier difference explains this one
        self.follows: Pair | None = None  # the difference that comes before
        self.own: list[str] = []  # what differs here and came of no earlier step

    @property
    def step(self) -> Step:
        """The step as the second run has it, else as the first."""
        found = self.b or self.a
        assert found is not None
        return found

    @property
    def start_ns(self) -> int:
        """When it began."""
        return self.step.span.start_ns

    @property
    def one_sided(self) -> bool:
        """Whether only one run has it."""
        return self.a is None or self.b is None

    @property
    def same_request(self) -> bool:
        """Whether both were asked the same, by the same name."""
        a, b = self.a, self.b
        return a is not None and b is not None and a.request == b.request and (self.given or a.name == b.name)

    @property
    def same_answer(self) -> bool:
        """Whether both answered the same, or failed alike."""
        return self.a is not None and self.b is not None and self.a.answer == self.b.answer

    def within(self) -> Iterator[Pair]:
        """It and all pairs in it, in the order they began."""
        todo = [self]
        while todo:
            pair = todo.pop()
            yield pair
            todo.extend(reversed(pair.children))


def align(a: list[Step], b: list[Step]) -> list[Pair]:
    """The pairs of two runs' steps; those of the top level, numbered from 1 in the order of a walk."""
    rename(a, b)
    tops = _level(a, b)
    if len(a) == len(b) == 1:
        tops = [Pair(a[0], b[0])]
        tops[0].given = True
    todo = list(tops)
    while todo:
        pair = todo.pop()
        if pair.a and pair.b and pair.a.served != pair.b.served:
            continue  # what the one did itself, the other was spared
        pair.children = _level(pair.a.children if pair.a else [], pair.b.children if pair.b else [])
        for child in pair.children:
            child.parent = pair
        todo.extend(pair.children)
    _across(tops)
    for number, pair in enumerate((pair for top in tops for pair in top.within()), 1):
        pair.number = number
    return tops


_CONTENT: tuple[Callable[[Step], Hashable], ...] = (
    lambda step: (step.place, step.kind, step.whole),
    lambda step: (step.place, step.kind, step.request, step.answer),
    lambda step: (step.place, step.kind, step.request) if step.used else None,
    lambda step: (step.name, step.kind, _inner(step), step.request, step.answer),
    lambda step: (step.name, step.kind, step.request, step.answer),
    lambda step: (step.name, step.kind, step.request) if step.used else None,
    lambda step: (step.alias, step.kind, step.without_model) if step.without_model else None,
)
_PLACE: tuple[Callable[[Step], Hashable], ...] = (
    lambda step: (step.place, step.kind),
    lambda step: (step.alias, step.kind),
)


def _inner(step: Step) -> tuple[bytes, ...]:
    return tuple(sorted(child.whole for child in step.children))


def _level(a: list[Step], b: list[Step]) -> list[Pair]:
    pairs: list[Pair] = []
    for key in _CONTENT:
        if a and b:
            a, b = _matched(a, b, key, pairs)
    for key in _PLACE:
        if a and b:
            a, b = _likest(a, b, key, pairs)
    if a and b:  # by another name
        a, b = _matched(a, b, lambda step: (step.kind, step.request) if step.used else None, pairs)
    if a and b:  # of another model
        a, b = _matched(a, b, _without_model(a, b), pairs)
    pairs += [Pair(step, None) for step in a] + [Pair(None, step) for step in b]
    _mark_moved(pairs)
    return sorted(pairs, key=_position(pairs))


def _matched(
    a: list[Step], b: list[Step], key: Callable[[Step], Hashable], pairs: list[Pair]
) -> tuple[list[Step], list[Step]]:
    """Pair the steps that have a key in common, the first with the first; what is left. None is no key."""
    waiting: dict[Hashable, deque[Step]] = defaultdict(deque)
    for step in b:
        waiting[key(step)].append(step)
    waiting.pop(None, None)
    left, taken = [], set()
    for step in a:
        if found := waiting.get(key(step)):
            other = found.popleft()
            taken.add(id(other))
            pairs.append(Pair(step, other))
        else:
            left.append(step)
    return left, [step for step in b if id(step) not in taken]


def _without_model(a: list[Step], b: list[Step]) -> Callable[[Step], Hashable]:
    """What models were asked, where of the steps that are left in a run only those of one name were asked so."""
    names: dict[bytes | None, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for side, steps in enumerate((a, b)):
        for step in steps:
            names[step.without_model][side].add(step.name)
    alone = {asked for asked, (ones, others) in names.items() if asked and len(ones) == len(others) == 1}
    return lambda step: step.without_model if step.without_model in alone else None


def _likest(
    a: list[Step], b: list[Step], key: Callable[[Step], Hashable], pairs: list[Pair]
) -> tuple[list[Step], list[Step]]:
    """Pair steps of one key, the likest first; what is left."""
    groups: dict[Hashable, tuple[list[Step], list[Step]]] = defaultdict(lambda: ([], []))
    for side, steps in enumerate((a, b)):
        for step in steps:
            groups[key(step)][side].append(step)
    taken: set[int] = set()
    for ones, others in groups.values():
        for one, other in _best(ones, others):
            taken.update((id(one), id(other)))
            pairs.append(Pair(one, other))
    return [step for step in a if id(step) not in taken], [step for step in b if id(step) not in taken]


def _best(a: list[Step], b: list[Step]) -> Iterator[tuple[Step, Step]]:
    if len(a) * len(b) > LIKENESSES:
        yield from _in_order(a, b)
        return
    traits_a, traits_b = [_traits(step) for step in a], [_traits(step) for step in b]
    ranked = sorted(
        (
            -_likeness(traits_a[i], traits_b[j]),
            min(abs(i - j), abs((len(a) - i) - (len(b) - j))),  # counted from the front or from the end
            i,
            j,
        )
        for i in range(len(a))
        for j in range(len(b))
    )
    taken_a: set[int] = set()
    taken_b: set[int] = set()
    for _, _, i, j in ranked:
        if i not in taken_a and j not in taken_b:
            taken_a.add(i)
            taken_b.add(j)
            yield a[i], b[j]


def _in_order(a: list[Step], b: list[Step]) -> Iterator[tuple[Step, Step]]:
    """Steps of one place, of which there are many: by the end of what they were asked, and by their order."""
    ones, others = ([tuple(_ends(step, 1)) for step in steps] for steps in (a, b))
    for _, i, j, k, m in difflib.SequenceMatcher(None, ones, others, False).get_opcodes():
        yield from zip(a[i:j], b[k:m], strict=False)


def _ends(step: Step, count: int) -> Iterator[Hashable]:
    """The last items of each thing that a step was asked."""
    for part in step.used:
        items = step.content.items(part.domain, part.digest, count) if part.domain else [part.print]
        yield from ((part.role, item) for item in items)


def _traits(step: Step) -> Counter[Hashable]:
    """What two steps can have in common, item by item of what they were asked."""
    traits: Counter[Hashable] = Counter(_ends(step, _LAST))
    traits.update(("answer", part.print) for part in step.generated)
    traits.update((child.place, child.request) for child in step.children)
    return traits


def _likeness(a: Counter[Hashable], b: Counter[Hashable]) -> float:
    common = (a & b).total()
    return common / ((a.total() + b.total() - common) or 1)


def _across(tops: list[Pair]) -> None:
    """Pair calls that stand alone with the same call elsewhere in the other run."""
    alone = [pair for top in tops for pair in top.within() if pair.one_sided]
    keys: tuple[Callable[[Step], Hashable], ...] = (
        lambda step: (step.kind, step.name, step.request, step.answer),
        lambda step: (step.kind, step.name, step.request),
    )
    for key in keys:
        waiting: dict[Hashable, deque[Pair]] = defaultdict(deque)
        for pair in alone:
            if pair.b is None and pair.a is not None and _is_call(pair.a):
                waiting[key(pair.a)].append(pair)
        for pair in alone:
            if pair.a is None and pair.b is not None and _is_call(pair.b) and (found := waiting.get(key(pair.b))):
                other = found.popleft()
                pair.a, pair.elsewhere = other.a, True
                if other.parent is not None:
                    other.parent.children.remove(other)
                else:
                    tops.remove(other)
        alone = [pair for top in tops for pair in top.within() if pair.one_sided]


def _is_call(step: Step) -> bool:
    return step.kind in BOUNDARIES and bool(step.used) and not step.children


def _mark_moved(pairs: list[Pair]) -> None:
    """Mark equals that changed places with another: of steps after one another, not of those that ran side by side."""
    both = sorted((pair for pair in pairs if not pair.one_sided), key=lambda pair: pair.start_ns)
    latest: Pair | None = None
    for pair in both:
        assert pair.a is not None
        if latest is not None and latest.a is not None:
            pair.moved = ended_before(pair.a, latest.a) and ended_before(latest.step, pair.step)
        if latest is None or latest.a is None or pair.a.span.start_ns > latest.a.span.start_ns:
            latest = pair


def ended_before(one: Step, other: Step) -> bool:
    """Whether a step ended before another of its level began, and not by chance: nodes of one superstep run in parallel."""
    if one.span.end_ns is None or one.span.end_ns > other.span.start_ns:
        return False
    return one.superstep is None or one.superstep != other.superstep


def _position(pairs: list[Pair]) -> Callable[[Pair], tuple[int, int]]:
    """The order of a level: as the second run has it; a step of the first alone stands after the one before it."""
    places: dict[int, int] = {}
    last = -1
    for pair in sorted((pair for pair in pairs if pair.a is not None), key=lambda pair: pair.a.span.start_ns):  # type: ignore[union-attr]
        last = last if pair.b is None else max(last, pair.b.span.start_ns)
        places[id(pair)] = last
    return lambda pair: (pair.b.span.start_ns, 0) if pair.b is not None else (places[id(pair)], 1)
