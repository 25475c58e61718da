"""Where two runs part: the first differences, each of which no earlier one explains, and what follows from them.

A step was *answered otherwise* if it was asked the same and the answer differs: chance, the world, or code between what
was recorded. It was *asked otherwise* if its request differs. The request of a step comes of what the steps around it
were asked and what earlier steps answered; if nothing of that differs, its own difference is a first one: the program,
its prompt, model or data changed. Parallel branches do not explain each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from clew.lineage.difference.alignment import Pair, ended_before
from clew.lineage.difference.step import Part, Step
from clew.store.digest import CHAIN

STATES = ("equal", "asked otherwise", "answered otherwise", "added", "removed", "within")
_FIXED = frozenset(("model", "tools", "tool", "template", "index", "splitter"))  # roles that no earlier step fills
_TOLD = 12  # characters from which a text in another is no chance


def judge(tops: list[Pair]) -> list[Pair]:
    """Give each pair its state; the pairs that differ first, in the order they began."""
    pairs = [pair for top in tops for pair in top.within()]
    causing = _causing(pairs)
    upstream = _Upstream()
    todo: list[tuple[list[Pair], Pair | None]] = [(tops, None)]
    while todo:
        level, around = todo.pop()
        causes = upstream.causes[id(level[0].parent) if level else 0] = [one for one in level if id(one) in causing]
        for pair in level:
            because = around or next((one for one in causes if _before(one, pair)), None)
            if pair.state in ("asked otherwise", "added", "removed"):
                pair.first, pair.follows = because is None, because
                if because is not None and pair.state == "asked otherwise":
                    pair.own = upstream.own(pair)
            elif pair.state == "answered otherwise":
                pair.first = True
            if pair.children:
                asked = pair.one_sided or pair.state == "asked otherwise"
                todo.append((pair.children, because or (pair if asked else None)))
    return [pair for pair in pairs if pair.first]


def _causing(order: list[Pair]) -> set[int]:
    """Which pairs can make later steps differ; states are given on the way, from the inside out."""
    causing: set[int] = set()
    for pair in reversed(order):
        inner = any(id(child) in causing for child in pair.children)
        silent = pair.a is not None and pair.b is not None and not pair.a.generated and not pair.b.generated
        if not pair.same_answer or (silent and inner):
            causing.add(id(pair))
        pair.state = _state(pair, inner)
    return causing


def _state(pair: Pair, inner: bool) -> str:
    if pair.a is None:
        return "added"
    if pair.b is None:
        return "removed"
    if not pair.same_request:
        return "asked otherwise"
    if not pair.same_answer and not inner:
        return "answered otherwise"
    if inner or any(child.state != "equal" for child in pair.children):
        return "within"
    return "equal"


def _before(one: Pair, other: Pair) -> bool:
    """Whether a pair came before another of its level in every run that has both, and in one at least."""
    runs = [(a, b) for a, b in ((one.a, other.a), (one.b, other.b)) if a is not None and b is not None]
    return bool(runs) and all(ended_before(a, b) for a, b in runs)


class _Upstream:
    """What can explain the request of a step: what the steps around it were asked, and what those before it answered."""

    def __init__(self) -> None:
        self.causes: dict[int, list[Pair]] = {}  # by level
        self._texts: dict[tuple[int, str], list[str]] = {}

    def own(self, pair: Pair) -> list[str]:
        """What differs in a request and came of no earlier step: model, tools, template, a system message."""
        assert pair.a is not None
        assert pair.b is not None
        found = []
        for role in dict.fromkeys(part.role for part in (*pair.a.used, *pair.b.used)):
            if role in _FIXED and _prints(pair.a.used, role) != _prints(pair.b.used, role):
                found.append(role)
        before, after = _instructions(pair.a), _instructions(pair.b)
        if before != after and not any(text in one for one in (*before, *after) for text in self._given(pair)):
            found.append("system message")
        return found

    def _given(self, pair: Pair | None) -> Iterator[str]:
        """Texts that differ upstream of a step."""
        while pair is not None:
            for cause in self.causes.get(id(pair.parent), ()):
                if _before(cause, pair):
                    yield from self._of(cause, "generated")
            pair = pair.parent
            if pair is not None and pair.state == "asked otherwise":
                yield from self._of(pair, "used")

    def _of(self, pair: Pair, side: str) -> list[str]:
        key = (id(pair), side)
        if key not in self._texts:
            steps = [step for step in (pair.a, pair.b) if step is not None]
            self._texts[key] = [text for step in steps for text in _texts(step, getattr(step, side))]
        return self._texts[key]


def _prints(parts: Iterable[Part], role: str) -> list[bytes]:
    return [part.print for part in parts if part.role == role]


def _instructions(step: Step) -> list[str]:
    """The texts of the system messages that a model's messages begin with."""
    found: list[str] = []
    for part in step.used if step.kind == "llm" else ():
        for link in step.content.links(part.digest) if part.domain == CHAIN else ():
            message = step.content.value(link.domain, link.item)
            if not isinstance(message, dict) or message.get("role") != "system":
                break
            found.append(str(message.get("content")))
    return found


def _texts(step: Step, parts: Iterable[Part]) -> list[str]:
    """The texts in these parts that are long enough to be known again."""
    found: list[str] = []
    todo = [part.read(step.content, step.content.renaming()) for part in parts]
    while todo:
        match todo.pop():
            case str() as text if len(text) >= _TOLD:
                found.append(text)
            case dict() as fields:
                todo.extend(fields.values())
            case list() | tuple() as several:
                todo.extend(several)
    return found
