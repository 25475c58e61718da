"""A piece: text that may stand inside other texts, with the fingerprints by which it is found there."""

from __future__ import annotations

import functools
import heapq
import itertools
import re
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

LITERAL = 0  # rank of template literals and code constants
STRIDE = 3  # the grid of windows in the text that is searched
BLOCK = 3 << 15  # characters whose windows are in memory at once (about 5 MB at STRIDE); a multiple of STRIDE
_SLICES = 1024
_SHORT = 1 << 14

ANY_TELLING = re.compile(r"[^\W_]")


@dataclass(slots=True, eq=False)
class Piece:
    """`key` is the caller's; lower ranks are attributed first; `short_ok`: may match below the minimum, as a whole.

    Pieces are compared by identity. Keep them over many texts: fingerprints are made once (about 30 bytes a character).
    """

    key: Hashable
    text: str
    rank: int = 1
    short_ok: bool = False
    _minimum: int = field(default=0, init=False, repr=False)
    _seeds: tuple[tuple[int, str], ...] = field(default=(), init=False, repr=False)
    _prints: frozenset[str] = field(default=frozenset(), init=False, repr=False)

    def seeds(self, minimum: int) -> tuple[tuple[int, str], ...]:
        """(offset, window) such that every run of `minimum` characters that counts holds one on the text's grid too."""
        if self._minimum != minimum:
            self._seeds = tuple(sorted(_seeds(self.text, minimum)))
            self._prints = frozenset(window for _, window in self._seeds)
            self._minimum = minimum
        return self._seeds

    def prints(self, minimum: int) -> frozenset[str]:
        """The windows of `seeds`."""
        if self._minimum != minimum:
            self.seeds(minimum)
        return self._prints


def window_size(minimum: int) -> int:
    return minimum * 3 // 8


@functools.cache
def telling(minimum: int) -> re.Pattern[str]:
    """Matches at a position from which enough letters and digits follow for a run to count."""
    return re.compile(rf"(?:[\W_]*+[^\W_]){{{2 * _side(minimum)}}}")


def _side(minimum: int) -> int:
    return max(2, minimum // 8)


@functools.cache
def _slices(size: int, stride: int) -> tuple[slice, ...]:
    return tuple(slice(start, start + size) for start in range(0, _SLICES * stride, stride))


def windows(text: str, size: int, stride: int, low: int, high: int) -> list[str]:
    """The windows of `size` characters that start at low, low + stride, ... below `high` (all must fit in the text)."""
    slices = _slices(size, stride)  # made once: a slice made in the loop costs as much as the window
    found: list[str] = []
    for start in range(low, high, _SLICES * stride):
        count = min(_SLICES, -(-(high - start) // stride))
        part = text[start : start + count * stride + size]
        found += map(part.__getitem__, slices[:count])
    return found


def _prints_of(text: str, size: int, low: int, high: int) -> frozenset[int]:
    return frozenset(map(hash, windows(text, size, 1, low, high)))


@functools.lru_cache(maxsize=4)
def _prints(text: str, size: int) -> frozenset[int]:
    """Hashes of all windows of a text; one text is searched for the pieces of many runs."""
    return _prints_of(text, size, 0, len(text) - size + 1)


def _seeds(text: str, minimum: int) -> Iterator[tuple[int, str]]:
    size = window_size(minimum)
    step = (minimum - size + 1) // STRIDE
    if step % STRIDE == 0:
        step -= 1  # no common divisor with STRIDE
    found = windows(text, size, step, 0, len(text) - size + 1)
    told = [(number * step, window) for number, window in enumerate(found) if ANY_TELLING.search(window)]
    yield from told
    if len(told) < len(found):
        yield from _beside_blanks(text, size, _side(minimum), shifts=STRIDE)


def _grid(text: str, size: int, side: int) -> list[str]:
    """The windows one after the other, each with a letter or digit."""
    found = windows(text, size, size, 0, len(text) - size + 1)
    told = list(filter(ANY_TELLING.search, found))
    if len(told) < len(found):
        told += [window for _, window in _beside_blanks(text, size, side, shifts=1)]
    return told


def _beside_blanks(text: str, size: int, side: int, *, shifts: int) -> Iterator[tuple[int, str]]:
    """(offset, window) beside what holds a whole window of blanks.

    A window of blanks stands everywhere in indented code. A run that counts and holds one also goes on past one end of
    the blanks by `side` letters or digits: windows there stand for it, `shifts` of them to meet a grid of that stride.
    """
    for stretch in re.finditer(rf"[\W_]{{{size},}}", text):
        start, end = stretch.span()
        for shift in range(shifts):
            for at in (start - side + shift, end + side - shift - size):
                if 0 <= at <= len(text) - size:
                    yield at, text[at : at + size]


class PieceIndex:
    """Finds among many thousand pieces the few that a text may hold, so that `attribute` need only see those.

    Keeps a hash of every `minimum`-th window of each piece: about 2.5 bytes per character of piece text.
    """

    def __init__(self, *, minimum: int = 32) -> None:
        self._minimum = minimum
        self._pieces: list[Piece] = []
        self._places: dict[int, int | list[int]] = {}  # hash of a window -> number of its piece, or of its pieces

    def __len__(self) -> int:
        return len(self._pieces)

    def add(self, piece: Piece) -> None:
        """Pieces shorter than `minimum` are never candidates."""
        number = len(self._pieces)
        self._pieces.append(piece)
        places = self._places
        prints = set(map(hash, _grid(piece.text, self._minimum, _side(self._minimum))))
        shared = places.keys() & prints
        for print_ in shared:
            before = places[print_]
            if isinstance(before, list):
                before.append(number)
            else:
                places[print_] = [before, number]
        places.update(dict.fromkeys(prints - shared, number))

    def candidates(self, text: str) -> list[Piece]:
        """In the order added: surely each piece that stands whole in `text` or shares 2 * `minimum` - 1 characters.

        Of shorter shared runs some are found. A candidate may share nothing after all (hashes collide, rarely).
        """
        minimum, numbers = self._minimum, set[int]()
        high = len(text) - minimum + 1
        for low in range(0, high, BLOCK):
            prints = _prints_of(text, minimum, low, min(low + BLOCK, high))
            for print_ in self._places.keys() & prints:
                found = self._places[print_]
                if isinstance(found, list):
                    numbers.update(found)
                else:
                    numbers.add(found)
        return [self._pieces[number] for number in sorted(numbers)]


class Near(NamedTuple):
    """Pieces that may stand in a text, in the order added. `all`: there are no others."""

    pieces: list[Piece]
    all: bool


class Pieces:
    """Pieces that grow in number while texts are searched for them: of many, only those that a text may hold are seen.

    Those that share a run of `minimum` characters with a text, and every shorter piece that stands in it whole. Where a
    crowd of pieces shares the very same stretch, those of it that share most with the text are taken for all.
    """

    FEW = 16  # as many are searched directly: an index would cost more
    CROWD = 1024  # of the pieces that share one window the first and the latest are remembered
    TAKEN = 8  # and so many of them are taken for each window, beside those that stand in the text whole

    def __init__(self, *, minimum: int = 32) -> None:
        self._minimum = minimum
        self._window = minimum // 2  # on a grid as wide: any run of 2 * window - 1 characters holds one of them
        self._all: list[Piece] = []
        self._keys: dict[Hashable, list[Piece]] = {}
        self._texts: dict[str, list[Hashable]] = {}
        self._indexed = 0
        self._places: dict[int, list[int]] = {}  # hash of a window -> numbers of pieces
        self._short: dict[str, list[int]] = {}
        self._prints: list[int] = []  # by number: how many windows of the piece are indexed

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def add(self, piece: Piece) -> None:
        """Add a piece."""
        self._all.append(piece)
        self._keys.setdefault(piece.key, []).append(piece)
        self._texts.setdefault(piece.text, []).append(piece.key)

    def keys(self, text: str) -> list[Hashable]:
        """The keys of the pieces that are this very text. Not to be changed."""
        return self._texts.get(text, [])

    def of(self, key: Hashable) -> list[Piece]:
        """The pieces with this key. Not to be changed."""
        return self._keys.get(key, [])

    def near(self, text: str) -> Near:
        """The pieces that may stand in `text`."""
        if len(self._all) <= self.FEW:
            return Near(self._all, True)
        for number in range(self._indexed, len(self._all)):
            self._index(number, self._all[number].text)
        self._indexed = len(self._all)
        crowds: list[list[int]] = [those for short, those in self._short.items() if short in text]
        size = self._window
        high = len(text) - size + 1
        for low in range(0, high, BLOCK):
            prints = _prints(text, size) if high <= _SHORT else _prints_of(text, size, low, min(low + BLOCK, high))
            crowds += [self._places[print_] for print_ in self._places.keys() & prints]
        hits = Counter(itertools.chain.from_iterable(crowds))
        if all(len(crowd) <= self.TAKEN for crowd in crowds):
            return Near([self._all[number] for number in sorted(hits)], True)
        taken = {number for number, times in hits.items() if times == self._prints[number]}  # they stand there whole
        for crowd in crowds:
            taken.update(heapq.nsmallest(self.TAKEN, crowd, key=lambda number: (-hits[number], number)))
        return Near([self._all[number] for number in sorted(taken)], len(taken) == len(hits))

    def _index(self, number: int, text: str) -> None:
        if len(text) < self._minimum:
            self._crowd(self._short.setdefault(text, []), number)
            self._prints.append(1)
            return
        size = self._window
        grid = _grid(text, size, _side(self._minimum))
        prints = {hash(window) for window in (*grid, text[-size:])}  # the end too: many texts differ only there
        for print_ in prints:
            self._crowd(self._places.setdefault(print_, []), number)
        self._prints.append(len(prints))

    def _crowd(self, crowd: list[int], number: int) -> None:
        crowd.append(number)
        if len(crowd) > self.CROWD:
            del crowd[self.CROWD // 2]
