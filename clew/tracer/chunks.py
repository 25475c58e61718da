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


class Along:
    """The texts in structured chunks, each along its field: the chunks of a stream are searched along each of them."""

    def __init__(self) -> None:
        self._texts: dict[tuple[Any, ...], list[str]] = {}

    def add(self, chunk: Any) -> None:
        """One more chunk, as it is now."""
        for path, text in _texts(chunk, ()):
            self._texts.setdefault(path, []).append(text)

    def split(self, cleaner: Cleaner) -> dict[str, str]:
        """The fields whose texts only together hold a credential, each as one clean text."""
        found = {}
        for path, texts in self._texts.items():
            whole = "".join(texts)
            clean = cleaner.text(whole)
            if clean != whole and clean != "".join(map(cleaner.text, texts)):
                found[".".join(map(str, path))] = clean
        return found


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
