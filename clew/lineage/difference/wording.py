"""What differs between two texts: by words where they are short, by lines where they are long."""

from __future__ import annotations

import difflib
import re

_WORD = re.compile(r"\s+|\w+|[^\w\s]")
_LINES = 8  # from which a text is told line by line
_WORDS = 2000  # and from which words
_AROUND = 8  # words of what is equal that stand beside a difference


def words(a: str, b: str) -> list[tuple[str, str]]:
    """`a` and `b` in one: pieces of (" ", "-" or "+", text), what is equal in both shortened to what stands around."""
    ones, others = _WORD.findall(a), _WORD.findall(b)
    front = _common(ones, others)
    end = _common(ones[front:][::-1], others[front:][::-1])
    matcher = difflib.SequenceMatcher(None, ones[front : len(ones) - end], others[front : len(others) - end], False)
    pieces = [(" ", "".join(ones[:front]))]
    for tag, i, j, k, m in matcher.get_opcodes():
        gone, new = "".join(ones[front + i : front + j]), "".join(others[front + k : front + m])
        if tag == "equal" and (len(pieces) == 1 or gone.strip() or "\n" in gone):
            pieces.append((" ", gone))
        elif len(pieces) > 1 and pieces[-1][0] == "+":  # only a space stands between: one difference, not two
            pieces[-2:] = [("-", pieces[-2][1] + gone), ("+", pieces[-1][1] + new)]
        else:
            pieces += [("-", gone), ("+", new)]
    pieces.append((" ", "".join(ones[len(ones) - end :])))
    pieces = [piece for piece in pieces if piece[1]]
    return [
        (sign, _shortened(text, number > 0, number < len(pieces) - 1) if sign == " " else text)
        for number, (sign, text) in enumerate(pieces)
    ]


def is_long(a: str, b: str) -> bool:
    """Whether two texts are better told line by line."""
    if max(a.count("\n"), b.count("\n")) >= _LINES:
        return True
    return max(len(a), len(b)) > 100_000 or max(len(_WORD.findall(a)), len(_WORD.findall(b))) > _WORDS


def lines(a: str, b: str, *, around: int = 2) -> list[str]:
    """The unified diff of two texts, without file names."""
    found = difflib.unified_diff(a.splitlines(), b.splitlines(), n=around, lineterm="")
    return [line for line in found if not line.startswith(("--- ", "+++ "))] or _endings(a, b)


def marked(a: str, b: str) -> str:
    """The word diff as plain text: `[-gone-]{+new+}`."""
    marks = {" ": "{}", "-": "[-{}-]", "+": "{{+{}+}}"}
    return "".join(marks[sign].format(text) for sign, text in words(a, b))


def _endings(a: str, b: str) -> list[str]:
    """Two texts whose lines are equal differ in how these end."""
    return [f"-{a!r}", f"+{b!r}"] if a != b else []


def _common(a: list[str], b: list[str]) -> int:
    count = 0
    for one, other in zip(a, b, strict=False):
        if one != other:
            break
        count += 1
    return count


def _shortened(text: str, before: bool, after: bool) -> str:
    """An equal stretch: its end if a difference comes after it, its beginning if one came before."""
    found = _WORD.findall(text)
    room = 2 * _AROUND  # a word and the space beside it
    if len(found) <= room * (before + after):
        return text
    return ("".join(found[:room]) if before else "") + "…" + ("".join(found[-room:]) if after else "")
