"""What differs between two texts: by words where they are short, by lines where they are long, or on one line."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence

MARKS = {" ": "{}", "-": "[-{}-]", "+": "{{+{}+}}"}  # of `words` as plain text
ROOM = 160  # characters of what is told on one line
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # Chinese and Japanese: each sign is a word
_WORD = re.compile(rf"\s{{1,40}}|(?:[^\W{_UNSPACED}][\u0300-\u036f]*){{1,40}}|[^\s]")  # of what has no end a piece
_LINES = 8  # from which a text is told line by line
_WORDS = 2000  # and from which words
_AROUND = 8  # words of what is equal that stand beside a difference
_LINE_CHARS = 100  # a longer line is compared sentence by sentence, where that is asked for
_SENTENCE = re.compile(r"(?<=[.!?;:]) +")
_ESCAPED = ("Cc", "Cs")  # controls and lone surrogates, which would not be printed


def words(a: str, b: str) -> list[tuple[str, str]]:
    """`a` and `b` in one: pieces of (" ", "-" or "+", text), what is equal in both shortened to what stands around."""
    ones, others = _WORD.findall(a), _WORD.findall(b)
    front, end = ends(ones, others)
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


def lines(a: str, b: str, *, sentences: bool = False) -> list[str]:
    """The unified diff of two texts, without file names; with `sentences` long lines are split, for a person."""
    split = _sentences if sentences else str.splitlines
    return _unified(split(a), split(b)) or _unified(*(list(map(repr, one.splitlines(keepends=True))) for one in (a, b)))


def stretch(a: str, b: str) -> tuple[str, str]:
    """Two texts of one line, shortened to where they differ, with some words around."""
    ones, others = _WORD.findall(a), _WORD.findall(b)
    front, end = ends(ones, others)
    before = _shortened("".join(ones[:front]), False, True)
    if len(before) > ROOM // 2:
        before = "…" + before[-ROOM // 2 :]
    after = _shortened("".join(ones[len(ones) - end :]), True, False)
    one, other = (before + "".join(some[front : len(some) - end]) + after for some in (ones, others))
    return _cut(one), _cut(other)


def on_a_line(text: str) -> str:
    """A text without line breaks and what a terminal would not print."""
    return "".join(
        one.encode("unicode_escape").decode() if unicodedata.category(one) in _ESCAPED else one
        for one in " ".join(text.split())
    )


def looks(text: str) -> str:
    """What a reader sees of a text: it is equal of two that cannot be told apart by eye."""
    return unicodedata.normalize("NFC", "".join(one for one in text if unicodedata.category(one) != "Cf"))


def ends(a: Sequence[object], b: Sequence[object]) -> tuple[int, int]:
    """How many items two lists have in common at their beginnings, and at the ends of what is left."""
    front = _common(a, b)
    return front, _common(a[front:][::-1], b[front:][::-1])


def _common(a: Sequence[object], b: Sequence[object]) -> int:
    pairs = enumerate(zip(a, b, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(a), len(b)))


def _unified(a: list[str], b: list[str]) -> list[str]:
    return list(difflib.unified_diff(a, b, n=2, lineterm=""))[2:]  # without the names of files


def _sentences(text: str) -> list[str]:
    split = ([line] if len(line) <= _LINE_CHARS else _SENTENCE.split(line) for line in text.splitlines())
    return [one for some in split for one in some]


def _cut(text: str) -> str:
    return text if len(text) <= ROOM else text[: ROOM - 1] + "…"


def _shortened(text: str, before: bool, after: bool) -> str:
    """An equal stretch: its end if a difference comes after it, its beginning if one came before."""
    found = _WORD.findall(text)
    room = 2 * _AROUND  # a word and the space beside it
    if len(found) <= room * (before + after):
        return text
    return ("".join(found[:room]) if before else "") + "…" + ("".join(found[-room:]) if after else "")
