"""String constants of a program's code, found in texts without parsing the code.

A stretch of a text that stands in a source file between quotes (or the braces of an f-string) is a constant of the
program: boilerplate that a prompt and a document share makes no edge to the document. Sources are looked up by
fingerprint, so a file that shares nothing costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from clew.lineage.containment import Attribution, Match, attribute
from clew.lineage.piece import ANY_TELLING, Piece, PieceIndex
from clew.store.digest import Digest, Domain
from clew.store.errors import ClewError
from clew.store.store import Store

CONSTANT = "code constant"  # the key of pieces that are source files
_CODE_BYTES = 2 << 20  # of one program's sources that are looked into, shortest paths first
_LOOSE_CHARS = 4  # of a stretch that need not stand in the sources: what joins two constants
_BETWEEN_CHARS = 40  # between two lines of one constant: quotes, the line's end, indentation
_NEAR_CHARS = 256  # of a source file beside a constant, in which a part that is too short to be found goes on
_SAME_CONSTANTS = 8  # places of one constant in a source file that are looked at
_SURE = 16  # twice as many shared characters, less one, are surely found
_ASKED = 1024  # texts that are remembered with what was found of them,
_ASKED_CHARS = 8192  # if they are no longer
_AROUND = frozenset("\"'{}\\\n")
_GLUE = re.compile(r"""(?:"{1,3}|'{1,3})[\s\\+]*[rfbu]{0,2}(?:"{1,3}|'{1,3})""", re.IGNORECASE)  # two constants are one
_ESCAPE = re.compile(r"\\(?:[ntr]|(.))", re.DOTALL)


class Constants:
    """The sources of each program that the indexer meets, by the digest of its code tree."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._indexes: dict[bytes, PieceIndex] = {}
        self._asked: dict[tuple[bytes, str], Attribution] = {}  # servers ask the same things again and again

    def attributed(self, code: bytes, text: str) -> Attribution:
        """What of `text` stands in the program's source files."""
        index = self._indexes.get(code)
        if index is None:
            if len(self._indexes) > 8:
                self._indexes.clear()
            index = self._indexes[code] = self._read(code)
        key = (code, text)
        found = self._asked.get(key)
        if found is None:
            found = attribute(text, index.candidates(text))
            if len(text) <= _ASKED_CHARS:
                if len(self._asked) >= _ASKED:
                    self._asked.clear()
                self._asked[key] = found
        return found

    def _read(self, code: bytes) -> PieceIndex:
        index, size = PieceIndex(minimum=_SURE), 0
        try:
            files = self._store.value(int(Domain.VALUE), code)["files"]
            python = [one for one in files if str(one["path"]).endswith(".py") and one.get("digest")]
            for file in sorted(python, key=lambda one: (str(one["path"]).count("/"), one["path"])):
                size += int(file["size_bytes"])
                if size > _CODE_BYTES:
                    break
                data = self._store.blob(Digest.parse(file["digest"]))[1]
                index.add(Piece(CONSTANT, data.decode("utf-8", "replace")))
        except (ClewError, KeyError, TypeError, ValueError):  # code captured without content
            pass
        return index


def is_constant(stretch: str, found: Attribution) -> bool:
    """Whether a stretch of a text is one whole constant of the program, or several put together; `found`: in its sources.

    All of it but a few characters stands in the sources, and it begins and ends where a constant does: a document that
    shares it has more text on one of its sides, and a document that itself is a constant, cut short, ends elsewhere.
    """
    matches = found.matches
    if not matches:
        return False
    within = matches[-1].end - matches[0].start - sum(match.end - match.start for match in matches)
    return (
        within <= _LOOSE_CHARS
        and any(_begins(piece.text, start, stretch[: matches[0].start]) for piece, start, _ in matches[0].candidates)
        and any(_ends(piece.text, end, stretch[matches[-1].end :]) for piece, _, end in matches[-1].candidates)
    )


def _begins(source: str, start: int, head: str) -> bool:
    """Whether a constant begins where `head`, too short to be found by itself, stands just before `start`."""
    for cut in range(min(len(head), _LOOSE_CHARS) + 1):
        rest = head[cut:]
        at = source.rfind(rest, max(0, start - len(rest) - _BETWEEN_CHARS), start) if rest else start
        if at >= 0 and _edge(source, at - 1):
            return True
    return False


def _ends(source: str, end: int, tail: str) -> bool:
    """Whether a constant ends where `tail`, too short to be found by itself, stands just after `end`."""
    for cut in range(min(len(tail), _LOOSE_CHARS) + 1):
        rest = tail[: len(tail) - cut]
        at = source.find(rest, end, end + len(rest) + _BETWEEN_CHARS) if rest else end
        if at >= 0 and _edge(source, at + len(rest)):
            return True
    return False


def _edge(source: str, at: int) -> bool:
    return not 0 <= at < len(source) or source[at] in _AROUND


def is_written(stretch: str, found: Attribution) -> bool:
    """Whether a stretch of a text is constants of the program and nothing else; `found`: in its sources.

    A part too short to be found belongs to a constant beside it that goes on, in the next line of code or behind an
    escape. Any other may have been put in, such as a name, a number or a label, though the program knows it too.
    """
    matches = found.matches
    if not matches or found.gaps:
        return False
    ends = [0, *(match.end for match in matches)]
    starts = [*(match.start for match in matches), len(stretch)]
    around = (None, *matches, None)
    for before, start, end, after in zip(around, ends, starts, around[1:], strict=False):
        part = stretch[start:end]
        if ANY_TELLING.search(part) and not _goes_on(before, _plain(part, escapes=False), after):
            return False
    return True


def _goes_on(before: Match | None, part: str, after: Match | None) -> bool:
    """Whether the constant `before` a part goes on with it, or that `after` it begins with it."""
    starts = list(_places(after))
    for source, _, end in _places(before):
        following = _plain(source[end : end + _NEAR_CHARS])
        if following.startswith(part) and _edge(following, len(part)):
            return True
        for other, start, _ in starts:
            if other is source and end <= start <= end + _NEAR_CHARS and _plain(source[end:start]) == part:
                return True
    for source, start, _ in starts:
        leading = _plain(source[max(0, start - _NEAR_CHARS) : start])
        if leading.endswith(part) and _edge(leading, len(leading) - len(part) - 1):
            return True
    return False


def _places(match: Match | None) -> Iterator[tuple[str, int, int]]:
    """Where a constant stands in the sources: source, start, end; of one that stands there often, the first few."""
    for piece, start, end in match.candidates if match else ():
        constant, found = piece.text[start:end], start
        for _ in range(_SAME_CONSTANTS):
            yield piece.text, found, found + len(constant)
            found = piece.text.find(constant, found + 1)
            if found < 0:
                break


def _plain(text: str, *, escapes: bool = True) -> str:
    """A text without blanks; of source code without `escapes` and what joins two constants."""
    if escapes:
        text = _ESCAPE.sub(r"\1", _GLUE.sub("", text)).removesuffix("\\")
    return "".join(text.split())
