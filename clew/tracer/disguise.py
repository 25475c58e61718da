"""The disguises a credential can wear: base64, hex, percent and JSON escapes, and how to see through them.

Base64 and hex hide in *runs* of their alphabet; a run is worth decoding only where it can hold 20 ASCII characters in
a row, which one regex decides for every alignment and both alphabets at once. Escapes leave the rest of the text
readable, so a text with escapes is read through a *view*: the unescaped text and the way back to its offsets.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64encode
from bisect import bisect_left
from collections.abc import Callable, Iterator
from json import dumps
from urllib.parse import quote, quote_plus

from clew.tracer.credential import SOLID_LENGTH

_RUN = re.compile(r"[A-Za-z0-9+/_-]+(?:(?:\\{1,7}r)?(?:\\{1,7}n|\r?\n)[A-Za-z0-9+/_-]+)*={0,2}")
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-"
_ELSE_SPACE = bytes(char if char in _ALPHABET else 32 for char in range(256))
_PRINTABLE = bytes(32 <= char < 127 for char in range(256))
# Four characters of base64 over three printable ASCII bytes are thrice less free than base64 at large; five such in a
# row stand in 1 of 600,000 random places, and in each run over 20 such bytes, wherever the run was entered.
_ASCII_IN_BASE64 = re.compile(b"(?:[I-Za-f][C-HS-Xi-ny-z0-3][ABEFIJMNQRUVYZcdghklopstwx014589][A-Za-z0-9+/_-]){5}")
_HEX_RUN = re.compile("[0-9a-fA-F]{40,}")
_ASCII_IN_HEX = re.compile(b"(?:[2-7][0-9a-fA-F]){20}")
_HIGH_DIGITS = re.compile(b"[2-7]{5}")  # every eighth digit of such; reading only those costs a tenth
_READABLE = re.compile(rb"[\t\n\r -~]{8,}")
_LEAP = re.compile(b"(?s)(?:.{0,%d} )*+" % (SOLID_LENGTH - 1)).match
_URLSAFE = bytes.maketrans(b"-_", b"+/")


def may_hide(text: str) -> bool:
    """Whether a run in `text` is long enough and built so that it could hide 20 ASCII characters; seldom wrong."""
    runs = _unwrapped(text).encode("ascii", "replace").translate(_ELSE_SPACE)
    at, size = 0, len(runs)
    while size - at >= SOLID_LENGTH:
        leap = _LEAP(runs, at)
        assert leap is not None  # zero leaps match too
        at = leap.end()
        if size - at < SOLID_LENGTH:
            break
        end = runs.find(b" ", at)
        if end < 0:
            end = size
        if _holds_ascii(runs[at:end]):
            return True
        at = end + 1
    return False


def _unwrapped(text: str) -> str:
    if "\\n" in text:
        while "\\\\" in text:  # escaped more than once
            text = text.replace("\\\\", "\\")
        text = text.replace("\\r\\n", "").replace("\\n", "")
    return text.replace("\r\n", "").replace("\n", "") if "\n" in text else text


def _holds_ascii(run: bytes) -> bool:
    sampled = len(run) >= 40 and (_HIGH_DIGITS.search(run[::8]) or _HIGH_DIGITS.search(run[1::8]))
    if sampled and _ASCII_IN_HEX.search(run):
        return True
    if len(run) < 512:
        return _ASCII_IN_BASE64.search(run) is not None
    # An image: four decodings cost half of the regex.
    return any(b"\1" * 16 in _from_base64(run[offset:]).translate(_PRINTABLE) for offset in range(4))


def decoded_runs(text: str) -> Iterator[tuple[int, int, list[str]]]:
    """Each run of `text` that may hide ASCII text: its span and its readings, one per alignment."""
    for match in _RUN.finditer(text):
        if match.end() - match.start() < SOLID_LENGTH:
            continue
        run = _unwrapped(match[0]).rstrip("=").encode()
        if not _holds_ascii(run):
            continue
        for part in _HEX_RUN.finditer(text, *match.span()):
            yield *part.span(), [_readable(_from_hex(part[0][offset:])) for offset in (0, 1)]
        yield *match.span(), [_readable(_from_base64(run[offset:])) for offset in range(4)]


def _readable(data: bytes) -> str:
    return "\0".join(part.decode("ascii") for part in _READABLE.findall(data))


def _from_hex(run: str) -> bytes:
    return bytes.fromhex(run[: len(run) // 2 * 2])


def _from_base64(run: bytes) -> bytes:
    if len(run) % 4 == 1:  # no encoder ends so: the run was cut, or goes on into something else
        run = run[:-1]
    if b"-" in run or b"_" in run:
        run = run.translate(_URLSAFE)
    return binascii.a2b_base64(run + b"=" * (-len(run) % 4))


_PERCENT = re.compile("%[0-9A-Fa-f]{2}")
_JSON = re.compile(r"\\(?:u00[0-7][0-9A-Fa-f]|/)")


def views(text: str) -> Iterator[tuple[str, Callable[[int, int], tuple[int, int]]]]:
    """`text` without its percent escapes (as Latin-1) and without its JSON escapes of ASCII, each where it has any.

    With each comes the function that leads a span of the view back to the span of `text` it was read from.
    """
    if "%" in text and _PERCENT.search(text):
        yield _unescape(text, _PERCENT)
    if "\\" in text and _JSON.search(text):
        yield _unescape(text, _JSON)


def _unescape(text: str, escape: re.Pattern[str]) -> tuple[str, Callable[[int, int], tuple[int, int]]]:
    pieces: list[str] = []
    places: list[int] = []  # where in the view each unescaped character stands
    removed = [0]  # characters that fell away before the n-th of them
    done = 0
    for match in escape.finditer(text):
        start, end = match.span()
        pieces += text[done:start], _character(match[0])
        places.append(start - removed[-1])
        removed.append(removed[-1] + end - start - 1)
        done = end
    pieces.append(text[done:])

    def back(start: int, end: int) -> tuple[int, int]:
        return start + removed[bisect_left(places, start)], end + removed[bisect_left(places, end)]

    return "".join(pieces), back


def _character(escape: str) -> str:
    return "/" if escape == "\\/" else chr(int(escape[-2:], 16))


def forms(value: str) -> tuple[list[str], list[str]]:
    """The spellings of one exact value to search a text for: as it stands, and inside runs of base64 or hex.

    Values of 20 printable ASCII characters and more need no second list: `decoded_runs` reads them.
    """
    data = value.encode("utf-8", "surrogatepass")
    escaped = dumps(value)[1:-1]
    plain = [value, escaped, dumps(value, ensure_ascii=False)[1:-1], dumps(escaped)[1:-1], data.decode("latin-1")]
    if not value.isascii() or " " in value:
        plain += quote(data, safe=""), quote(data), quote_plus(data), quote(data, safe="").replace("%20", "+").lower()
    if len(value) >= 20 and value.isascii() and value.isprintable():
        return list(dict.fromkeys(plain)), []
    hidden = [data.hex(), data.hex().upper()]
    for offset, first in enumerate((0, 2, 3)):
        whole = b64encode(b"\0" * offset + data).decode()[first : (offset + len(data)) * 8 // 6]
        hidden += whole, whole.replace("+", "-").replace("/", "_")
    return list(dict.fromkeys(plain)), list(dict.fromkeys(hidden))


_IN_RUN = frozenset(_ALPHABET.decode())


def run_around(text: str, start: int, end: int) -> tuple[int, int]:
    """The whole run of the base64 alphabet around a span, its padding included."""
    while start > 0 and text[start - 1] in _IN_RUN:
        start -= 1
    while end < len(text) and text[end] in _IN_RUN:
        end += 1
    for _ in range(2):
        end += text[end : end + 1] == "="
    return start, end
