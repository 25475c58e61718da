"""Chunks of a stream as they may be stored: a credential that is split over them is in none of them.

So short texts that follow each other are searched joined, and where that finds something, the joined and redacted text
stands in place of the chunks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

REFUSED = "(chunks that could not be searched for credentials)"
SHORT_CHARS = 256  # longer pieces are texts of their own, and are not searched twice


class Cleaner(Protocol):
    """What redacts (redaction.Redactor)."""

    def text(self, text: str) -> str: ...
    def data(self, data: bytes) -> bytes: ...


def joined(values: Iterable[Any], cleaner: Cleaner) -> list[Any]:
    """`values`, with each run of short texts (or bytes) that only together hold a credential made one clean text."""
    items = list(values)
    found: list[Any] = []
    start = 0
    while start < len(items):
        kind = type(items[start])
        end = start
        while end < len(items) and type(items[end]) is kind and kind in (str, bytes) and len(items[end]) < SHORT_CHARS:
            end += 1
        run = items[start:end]
        if len(run) < 2:
            found.append(items[start])
            start += 1
            continue
        whole = kind().join(run)
        clean = cleaner.text(whole) if kind is str else cleaner.data(whole)
        apart = kind().join([cleaner.text(one) if kind is str else cleaner.data(one) for one in run])
        found.extend(run if apart == clean else [clean])
        start = end
    return found


def safe(chunks: list[Any], cleaner: Cleaner) -> Any:
    """What a stream yielded, as it may be stored. Structured chunks are searched along each of their fields."""
    along: dict[tuple[Any, ...], list[str]] = {}
    for chunk in chunks:
        for path, text in _texts(chunk, ()):
            along.setdefault(path, []).append(text)
    split = {}
    for path, texts in along.items():
        whole = "".join(texts)
        clean = cleaner.text(whole)
        if path and clean != whole and clean != "".join(map(cleaner.text, texts)):
            split[".".join(map(str, path))] = clean
    return {"chunks": len(chunks), "joined": split} if split else chunks


def _texts(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    if type(value) is str:
        yield path, value
    elif len(path) < 4:
        if isinstance(value, dict):
            parts: Iterable[tuple[Any, Any]] = list(value.items())
        elif isinstance(value, (list, tuple)):
            parts = enumerate(value)
        else:
            parts = list(getattr(value, "__dict__", {}).items())
        for key, part in parts:
            yield from _texts(part, (*path, key))
