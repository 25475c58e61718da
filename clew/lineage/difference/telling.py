"""The difference of two runs as a person reads it: the verdict, where they parted, what they were made with, the steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from clew.lineage.difference import wording
from clew.lineage.difference.alignment import Pair
from clew.lineage.difference.change import ABSENT, Change, quoted, said
from clew.lineage.difference.facet import Facet
from clew.lineage.difference.result import Difference, tokens
from clew.lineage.difference.role import changes, roles

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from clew.lineage.view import RunView

SHOWN = 8
LINES = 40  # of one text's difference
_SIGN = {
    "equal": ("=", "dim"),
    "within": ("·", ""),
    "asked otherwise": ("~", "yellow"),
    "answered otherwise": ("~", "yellow"),
    "added": ("+", "green"),
    "removed": ("-", "red"),
}
_COLOUR = {" ": "dim", "-": "red", "+": "green"}


def told(difference: Difference, *, everything: bool = False, content: bool = False) -> Any:
    """A `rich` renderable. `everything` shows equal steps and what is shortened otherwise; `content` what differs in
    every step, in full."""
    from rich.console import Group

    return Group(*_Telling(difference, everything, content).parts())


def text(difference: Difference, *, everything: bool = False) -> str:
    """The same as plain text, 120 columns wide."""
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    Console(file=out, width=120, color_system=None).print(told(difference, everything=everything))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


class _Telling:
    def __init__(self, difference: Difference, everything: bool, content: bool) -> None:
        self.difference = difference
        self.everything = everything or content
        self.content = content

    def parts(self) -> Iterator[Any]:
        """What is printed, one thing under the other."""
        difference = self.difference
        yield self._verdict()
        yield self._run("a", difference.a)
        yield self._run("b", difference.b)
        yield from difference.notes
        if difference.divergences:
            yield self._divergences()
        if difference.answer.equal is False:
            yield self._answer()
        facets = [facet for facet in difference.facets if not facet.equal]
        if facets:
            yield self._facets(facets)
        if not difference.equal or self.everything:
            yield self._steps()

    def _verdict(self) -> Text:
        from rich.text import Text

        difference = self.difference
        pairs = difference.pairs()
        if difference.equal:
            told = f"{len(pairs)} steps asked and answered the same"
            if any(pair.moved or pair.elsewhere for pair in pairs):
                told += ", some in another order"
            if difference.a.run_id == difference.b.run_id:
                told += " (it is the same run)"
            return Text.assemble(("equal", "bold green"), f"  {told}")
        same = sum(pair.state == "equal" for pair in pairs)
        answer = {True: "the answers are equal", False: "the answers differ", None: "neither has an answer"}
        parted = _counted(len(difference.divergences), "step")
        told = f"they part at {parted}; {same} of {len(pairs)} steps are equal; {answer[difference.answer.equal]}"
        return Text.assemble(("different", "bold red"), f"  {told}")

    def _run(self, name: str, run: RunView) -> Text:
        from rich.text import Text

        line = Text.assemble((f"{name}  ", "cyan"), (run.name, "bold"), f"  {run.status}")
        facts = [f"run {run.run_id}", _seconds(run.duration_ns)]
        if counted := tokens(self.difference.sides(name)):
            facts.append(f"{counted[0]} → {counted[1]} tokens")
        return line.append("  " + "  ".join(facts), style="dim")

    def _divergences(self) -> Tree:
        tree = _tree("where they part")
        pairs = self.difference.divergences
        limit = len(pairs) if self.everything else SHOWN
        for pair in pairs[:limit]:
            branch = tree.add(self._line(pair, path=True))
            self._changes(branch, changes(pair))
        _more(tree, len(pairs) - limit)
        return tree

    def _answer(self) -> Tree:
        tree = _tree("answer")
        self._changes(tree, self.difference.answer.changes)
        return tree

    def _facets(self, facets: list[Facet]) -> Tree:
        tree = _tree("made with")
        for facet in facets:
            branch = tree.add(f"{facet.name}{f': {facet.note}' if facet.note else ''}")
            if facet.name == "code" and not self.content:
                limit = len(facet.changes) if self.everything else SHOWN
                for change in facet.changes[:limit]:
                    branch.add(_file(change))
                _more(branch, len(facet.changes) - limit)
            else:
                self._changes(branch, facet.changes)
        return tree

    def _steps(self) -> Tree:
        tree = _tree("steps")
        todo: list[tuple[Tree, list[Pair]]] = [(tree, self.difference.steps)]
        while todo:
            branch, pairs = todo.pop()
            equal = 0
            for pair in pairs:
                if pair.state == "equal" and not pair.moved and not self.everything:
                    equal += sum(1 for _ in pair.within())
                    continue
                equal = _folded(branch, equal)
                twig = branch.add(self._line(pair))
                if self.content and pair.state != "equal":
                    self._changes(twig, changes(pair))
                inner = [] if pair.one_sided and not self.everything else pair.children
                if inner:
                    todo.append((twig, inner))
                elif pair.children:
                    _folded(twig, sum(1 for _ in pair.within()) - 1, "more inside")
            _folded(branch, equal)
        return tree

    def _line(self, pair: Pair, *, path: bool = False) -> Text:
        from rich.text import Text

        step = pair.step
        sign, style = _SIGN[pair.state]
        line = Text.assemble((f"{sign} ", style), (step.kind, "cyan"), " ", step.span.path if path else step.place)
        if pair.one_sided:
            line.append("  only in b" if pair.a is None else "  only in a", style=style)
        if pair.follows is not None:
            line.append(f"  follows from {pair.follows.step.kind} {pair.follows.step.place}", style=style)
        elif pair.state in ("asked otherwise", "answered otherwise"):
            line.append(f"  {pair.state}", style=style)
        if differing := roles(pair):
            told = [f"{side}: {', '.join(names)}" for side, names in differing.items()]
            line.append(f"  {'; '.join(told)}", style="dim")
        if pair.state == "asked otherwise" and pair.same_answer:
            line.append("  answered the same", style="green")
        if pair.own:
            line.append(f"  of itself: {', '.join(pair.own)}", style="yellow")
        if pair.moved or pair.elsewhere:
            line.append("  moved", style="yellow")
        if pair.first and not path:
            line.append("  ← here", style="bold")
        return line

    def _changes(self, branch: Tree, found: list[Change]) -> None:
        limit = len(found) if self.everything else SHOWN
        for change in found[:limit]:
            branch.add(self._change(change))
        _more(branch, len(found) - limit)

    def _change(self, change: Change) -> Text:
        from rich.text import Text

        line = Text.assemble((f"{change.path}: ", "cyan"))
        a, b = change.a, change.b
        if isinstance(a, str) and isinstance(b, str):
            if not wording.is_long(a, b):
                for sign, text in wording.words(a, b):
                    line.append(wording.MARKS[sign].format(text), style=_COLOUR[sign])
                return line
            found = wording.lines(a, b)
            limit = len(found) if self.content else LINES
            for one in found[:limit]:
                line.append(f"\n{one}", style=_COLOUR.get(one[:1], "dim"))
            if len(found) > limit:
                line.append(f"\n… {len(found) - limit} more lines (--content)", style="dim")
            return line
        told = (quoted(a, said(a)), quoted(b, said(b))) if self.content else change.told()
        for sign, value, text in (("-", a, told[0]), ("+", b, told[1])):
            if value is not ABSENT:
                line.append(wording.MARKS[sign].format(text), style=_COLOUR[sign])
        return line


def _tree(title: str) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    return Tree(Text(title, style="bold"))


def _more(branch: Tree, count: int) -> None:
    if count > 0:
        branch.add(f"… {count} more (--all)")


def _folded(branch: Tree, count: int, what: str = "equal") -> int:
    """One line for steps that are not shown; 0, the count of the next ones."""
    if count:
        branch.add(
            f"… {_counted(count, 'step') if what != 'equal' else _counted(count, 'equal step')}"
            f"{'' if what == 'equal' else f' {what}'}"
        )
    return 0


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _file(change: Change) -> Text:
    from rich.text import Text

    if change.path.startswith("git."):
        return Text(str(change))
    if change.a is ABSENT:
        return Text(f"+ {change.path}", style="green")
    if change.b is ABSENT:
        return Text(f"- {change.path}", style="red")
    if isinstance(change.a, str) and isinstance(change.b, str):
        found = [line[:1] for line in wording.lines(change.a, change.b)]
        return Text(f"~ {change.path}  +{found.count('+')} -{found.count('-')} lines (--content shows them)")
    return Text(f"~ {change.path}")


def _seconds(duration_ns: int | None) -> str:
    return "not ended" if duration_ns is None else f"{duration_ns / 1e9:.3g} s"
