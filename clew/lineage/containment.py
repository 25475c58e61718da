"""Containment: which stretches of a text stand verbatim in which pieces.

    >>> chunk = Piece("chunk-1", "The warranty covers battery defects for two years from purchase.")
    >>> found = attribute("Context: The warranty covers battery defects for two years. Answer briefly.", [chunk])
    >>> [(match.start, match.end, match.whole) for match in found.matches]
    [(9, 58, False)]

How it stays linear. A *seed* is a window of 12 characters. The text's windows at every 3rd position meet the piece's
at every 7th: 3 and 7 share no divisor, so along any common run of 32 characters the two grids meet (3 * 7 + 12 - 1 is
32), and only a third and a seventh of all windows are ever made. Where seeds agree, the run is extended both ways by
comparing slices. Then the longest run takes its stretch, runs that it overlaps are clipped to what is free, and so on.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clew.lineage.piece import ANY_TELLING, BLOCK, LITERAL, STRIDE, Piece, telling, window_size, windows

MINIMUM = 32
LITERAL_MINIMUM = 8
OCCURRENCES = 64  # of one seed examined per block: a seed that stands more often is boilerplate or a period
PAIRS = 512  # of repeated seeds and their places extended per piece and block
REPEATED = 16  # of one seed's places in a piece examined per block
ROUNDS = 3  # over what is still free, for pieces that met one of the two limits above

Run = tuple[int, int, int]  # start and end in the text, start in the piece


@dataclass(frozen=True, slots=True)
class Match:
    """A stretch of the text and every piece that explains it equally well: (piece, start, end in the piece)."""

    start: int
    end: int
    candidates: tuple[tuple[Piece, int, int], ...]
    short: bool
    whole: bool  # a candidate stands here from its first character to its last


@dataclass(frozen=True, slots=True)
class Attribution:
    """`matches` in the order of the text, none overlapping; `gaps`: stretches that nothing explains."""

    matches: tuple[Match, ...]
    gaps: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class _Same:
    """Pieces of one rank and one text: matched once, told apart in the end. `found`: where the text stands whole."""

    order: int
    pieces: list[Piece]
    found: list[int]

    @property
    def text(self) -> str:
        return self.pieces[0].text


def attribute(
    text: str, pieces: Sequence[Piece], *, minimum: int = MINIMUM, literal_minimum: int = LITERAL_MINIMUM
) -> Attribution:
    """Attributes each stretch of `text` once: lower ranks first, the longest run first within a rank.

    A run is a common stretch of at least `minimum` (8 or more) characters with a quarter of `minimum` letters or
    digits: a line of dashes, or the indentation before one word, proves nothing. Short pieces come last, in stretches
    still free: template literals of `literal_minimum` characters and more, then pieces that are `short_ok`. Short
    literals wait for the long runs because "Question: " also stands in the middle of chunks, and would cut them to
    pieces under the minimum.

    Pieces with the very same text: if it stands whole in `text` at least as often as there are pieces, each gets a
    stretch of its own in the order given, and further stretches carry all as candidates; if less often, every stretch
    carries all.

    The work is bounded: a partial match may be missed, or come shorter than it could, where all its seeds stand many
    times in `text` (`OCCURRENCES`, `PAIRS`). Whole pieces are always found.
    """
    if minimum < 8:
        raise ValueError(f"minimum is {minimum}: a run under 8 characters proves nothing, pass 8 or more")
    long, literals, shorts = _sorted_out(text, pieces, minimum, literal_minimum)
    stretches = _Stretches(text, minimum)
    if long:
        _attribute_long(stretches, long)
    for same in literals:
        stretches.take_whole(same, bounded=False)
    for same in shorts:
        stretches.take_whole(same, bounded=True)
    return stretches.attribution()


def _sorted_out(
    text: str, pieces: Sequence[Piece], minimum: int, literal_minimum: int
) -> tuple[list[_Same], list[_Same], list[_Same]]:
    """Long pieces, short template literals and pieces allowed to be short; the two last longest first."""
    same: dict[tuple[int, str], _Same] = {}
    for piece in pieces:
        length = len(piece.text)
        if length >= minimum:
            if len(text) < minimum:
                continue
        elif piece.rank == LITERAL:
            if length < literal_minimum or piece.text not in text or not ANY_TELLING.search(piece.text):
                continue
        elif not piece.short_ok or piece.text not in text or not _says_something(piece.text):
            continue
        group = same.get((piece.rank, piece.text))
        if group is None:
            same[piece.rank, piece.text] = _Same(len(same), [piece], [])
        elif all(piece.key != other.key for other in group.pieces):
            group.pieces.append(piece)
    long = [group for group in same.values() if len(group.text) >= minimum]
    short = sorted(
        (group for group in same.values() if len(group.text) < minimum),
        key=lambda group: (group.pieces[0].rank, -len(group.text), group.order),
    )
    literals = [group for group in short if group.pieces[0].rank == LITERAL]
    return long, literals, [group for group in short if group.pieces[0].rank != LITERAL]


def _says_something(text: str) -> bool:
    """Whether a short piece may be evidence: neither blank nor one letter nor a bare number ("2024", "-1.5")."""
    return len(ANY_TELLING.findall(text)) > 1 and not re.fullmatch(r"\s*[+-]?\d[\d.,\s]*", text)


def _attribute_long(stretches: _Stretches, groups: list[_Same]) -> None:
    limited: list[_Same] = []
    by_rank: dict[int, list[tuple[Run, _Same]]] = {}
    for run, same in _runs(stretches.text, groups, stretches.minimum, limited):
        by_rank.setdefault(same.pieces[0].rank, []).append((run, same))
    for rank in sorted(by_rank):
        again = [same for same in limited if same.pieces[0].rank == rank]
        progress = stretches.take(by_rank[rank], again)
        for _ in range(ROUNDS - 1):
            if not (again and progress):
                break
            still: list[_Same] = []
            progress = stretches.take(_runs(stretches.remaining(), again, stretches.minimum, still), again)
            again = still


class _Stretches:
    """What of a text is taken, and by whom."""

    def __init__(self, text: str, minimum: int) -> None:
        self.text = text
        self.minimum = minimum
        self._taken = bytearray(len(text))
        self._matches: list[tuple[int, int, list[tuple[_Same, int]]]] = []

    def take(self, runs: list[tuple[Run, _Same]], limited: list[_Same]) -> bool:
        """Gives stretches to the longest free runs, those of the same stretch together. True if any was given.

        Not all runs of `limited` are known, so these are asked for each stretch whether they say it too.
        """
        heap = [(start - end, start, same.order, at) for (start, end, at), same in runs]
        groups = {same.order: same for _, same in runs}
        heapq.heapify(heap)
        taken, minimum = self._taken, self.minimum
        before = len(self._matches)
        while heap:
            negative, start, order, at = heapq.heappop(heap)
            end = start - negative
            if taken.find(1, start, end) >= 0:
                for free, free_end in self._free(start, end):
                    if free_end - free >= minimum:
                        heapq.heappush(heap, (free - free_end, free, order, at + free - start))
                continue
            equal = {order: at}
            while heap and heap[0][0] == negative and heap[0][1] == start:
                _, _, order, at = heapq.heappop(heap)
                equal.setdefault(order, at)  # once per piece, where the piece says it first
            if not telling(minimum).match(self.text, start, end):
                continue
            stretch = self.text[start:end] if limited else ""
            for same in limited:
                if same.order not in equal and (at := same.text.find(stretch)) >= 0:
                    equal[same.order], groups[same.order] = at, same
            self._give(start, end, [(groups[order], at) for order, at in sorted(equal.items())])
        return len(self._matches) > before

    def take_whole(self, same: _Same, *, bounded: bool) -> None:
        """Gives every free occurrence of the whole text; `bounded`: only between non-word characters."""
        text, needle = self.text, same.text
        start = text.find(needle)
        while start >= 0:
            end = start + len(needle)
            free = self._taken.find(1, start, end) < 0
            if free and not (bounded and (_is_word(text, start - 1) or _is_word(text, end))):
                self._give(start, end, [(same, 0)])
                start = text.find(needle, end)
            else:
                start = text.find(needle, start + 1)

    def remaining(self) -> str:
        """The text with NUL for each character taken, so that offsets stay."""
        parts, end = [], 0
        for start, stop, _ in sorted(self._matches, key=lambda match: match[0]):
            parts += [self.text[end:start], "\0" * (stop - start)]
            end = stop
        return "".join([*parts, self.text[end:]])

    def attribution(self) -> Attribution:
        self._matches.sort(key=lambda match: match[0])
        for same in {id(same): same for _, _, candidates in self._matches for same, _ in candidates}.values():
            same.found.sort()
        matches = tuple(self._match(*match) for match in self._matches)
        gaps = (
            (start, end)
            for start, end in self._free(0, len(self.text))
            if end - start >= self.minimum and ANY_TELLING.search(self.text, start, end)
        )
        return Attribution(matches, tuple(gaps))

    def _match(self, start: int, end: int, equal: list[tuple[_Same, int]]) -> Match:
        candidates = []
        whole = False
        for same, at in equal:
            pieces = same.pieces
            if end - start == len(same.text):
                whole = True
                if 1 < len(pieces) <= len(same.found):
                    number = bisect_right(same.found, start) - 1
                    pieces = pieces[number : number + 1] or pieces
            candidates += [(piece, at, at + end - start) for piece in pieces]
        return Match(start, end, tuple(candidates), end - start < self.minimum, whole)

    def _give(self, start: int, end: int, equal: list[tuple[_Same, int]]) -> None:
        self._taken[start:end] = b"\1" * (end - start)
        self._matches.append((start, end, equal))
        for same, _ in equal:
            if end - start == len(same.text):
                same.found.append(start)

    def _free(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The free stretches of start..end, in order."""
        taken = self._taken
        while (free := taken.find(0, start, end)) >= 0:
            start = taken.find(1, free, end)
            if start < 0:
                start = end
            yield free, start


def _is_word(text: str, at: int) -> bool:
    """Letters, digits, underscore and combining marks, which belong to the letter before them."""
    if not 0 <= at < len(text):
        return False
    character = text[at]
    return character == "_" or character.isalnum() or unicodedata.category(character)[0] == "M"


def _runs(text: str, groups: list[_Same], minimum: int, limited: list[_Same]) -> list[tuple[Run, _Same]]:
    """Every maximal common run of `text` and each group; groups that met a limit are added to `limited`."""
    reaches: list[dict[int, int]] = [{} for _ in groups]  # per diagonal (text offset - piece offset): seen up to there
    over: set[int] = set()
    runs: list[tuple[Run, _Same]] = []
    for low in range(0, len(text) - minimum + 1, BLOCK):
        block = _Block(text, low, minimum)
        for number, same in enumerate(groups):
            piece = same.pieces[0]
            if not block.windows.isdisjoint(piece.prints(minimum)):
                found: list[Run] = []
                if not block.meet(piece, reaches[number], found):
                    over.add(number)
                runs += [(run, same) for run in found]
    for number in sorted(over):
        same, reach = groups[number], reaches[number]
        limited.append(same)
        start = text.find(same.text)
        while start >= 0:  # whole occurrences are never missed
            end = start + len(same.text)
            if reach.get(start, 0) < len(same.text):
                runs.append(((start, end, 0), same))
            start = text.find(same.text, end)
    return runs


class _Block:
    """The windows of one block of a text, and where they stand."""

    def __init__(self, text: str, low: int, minimum: int) -> None:
        self._text = text
        self._low = low
        self._minimum = minimum
        self._size = window_size(minimum)
        self._listed = windows(text, self._size, STRIDE, low, min(low + BLOCK, len(text) - self._size + 1))
        self.windows = set(self._listed)
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._repeated: dict[str, list[int]] = {}

    def _locate(self) -> None:
        """Made only for a block that shares a window with some piece."""
        places = range(self._low, self._low + STRIDE * len(self._listed), STRIDE)
        self._first = self._last = dict(zip(self._listed, places, strict=True))
        if len(self._last) < len(self._listed):
            self._first = dict(zip(reversed(self._listed), reversed(places), strict=True))

    def _places(self, window: str) -> list[int]:
        """Where a repeated window stands on the grid: the first `OCCURRENCES` places."""
        places = self._repeated.get(window)
        if places is None:
            place = self._first[window]
            end = self._last[window] + self._size
            places = self._repeated[window] = []
            while place >= 0 and len(places) < OCCURRENCES:
                if (place - self._low) % STRIDE == 0:
                    places.append(place)
                place = self._text.find(window, place + 1, end)
        return places

    def meet(self, piece: Piece, reach: dict[int, int], found: list[Run]) -> bool:
        """Adds the maximal runs that `piece` has with the text through this block; False if a limit cut the search."""
        if not self._last:
            self._locate()
        text, other, size, minimum, shared = self._text, piece.text, self._size, self._minimum, self.windows
        rest = (minimum - size + 1) // 2  # a run goes on that far to one side of its seed at least
        pairs = 0
        complete = True
        met: dict[str, int] = {}
        for at, window in piece.seeds(minimum):
            if window not in shared:
                continue
            met[window] = times = met.get(window, 0) + 1
            if times > REPEATED:  # the piece says the same again and again
                complete = False
                continue
            place, last = self._first[window], self._last[window]
            if place == last:
                if reach.get(place - at, -1) <= at:
                    _extend(text, place, other, at, minimum, reach, found)
                continue
            if pairs >= PAIRS:
                complete = False
                continue
            places = self._places(window)
            complete = complete and len(places) < OCCURRENCES
            here, before = other[at + size : at + size + rest], other[max(0, at - rest) : at]
            for place in places:
                if reach.get(place - at, -1) > at:
                    continue
                after = place + size
                if (len(here) == rest and text[after : after + rest] == here) or (
                    len(before) == rest <= place and text[place - rest : place] == before
                ):
                    pairs += 1
                    _extend(text, place, other, at, minimum, reach, found)
        return complete


def _extend(text: str, place: int, other: str, at: int, minimum: int, reach: dict[int, int], found: list[Run]) -> None:
    """The maximal run through text[place] and other[at]: noted in `reach`, and in `found` if it is long enough."""
    ahead = _ahead(text, place, other, at)
    back = _back(text, place, other, at)
    reach[place - at] = at + ahead
    if ahead + back >= minimum:
        found.append((place - back, place + ahead, at - back))


def _ahead(text: str, place: int, other: str, at: int) -> int:
    """How many characters from text[place:] and other[at:] on are equal, by slices that double and then halve."""
    limit = min(len(text) - place, len(other) - at)
    low, high = 0, min(32, limit)
    while text[place + low : place + high] == other[at + low : at + high]:
        if high == limit:
            return limit
        low, high = high, min(2 * high, limit)
    while high - low > 1:
        middle = (low + high) // 2
        if text[place + low : place + middle] == other[at + low : at + middle]:
            low = middle
        else:
            high = middle
    return low


def _back(text: str, place: int, other: str, at: int) -> int:
    """How many characters before text[place] and other[at] are equal."""
    limit = min(place, at)
    low, high = 0, min(8, limit)
    while text[place - high : place - low] == other[at - high : at - low]:
        if high == limit:
            return limit
        low, high = high, min(2 * high, limit)
    while high - low > 1:
        middle = (low + high) // 2
        if text[place - middle : place - low] == other[at - middle : at - low]:
            low = middle
        else:
            high = middle
    return low
