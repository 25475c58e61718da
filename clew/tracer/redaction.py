"""The gate that every text passes before it is hashed or stored: credentials become keyed placeholders.

A placeholder is `secret:` and 32 hex digits of the keyed BLAKE3 of what stood there, so equal secrets stay equal
within a store, different ones stay different, and nobody without the store's key can test a guess. Text that was
redacted before passes unchanged. A credential split over the chunks of a stream is in none of them: join first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from threading import RLock
from typing import Any

from blake3 import blake3

from clew.tracer.credential import DEFAULT, SOLID_LENGTH, Pattern, named_span
from clew.tracer.disguise import decoded_runs, forms, may_hide, run_around, views
from clew.tracer.secret import SecretRegistry

_PLACEHOLDER = re.compile("secret:[0-9a-f]{32}")
_MADE_ID = re.compile(r"(?:(?:lc_)?run-{1,2})?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:-\d{1,4})?").fullmatch
"""Ids that frameworks make by the thousand: no pattern finds anything in a bare UUID."""

_RULES = "clew-redaction/2"
"""Changes with the rules that are not patterns: disguises, judgement of values, merging."""

_LISTS = 8  # around what is secret by the name of its place
_DEPTH = 3  # base64 in percent escapes in JSON is real; deeper is a matryoshka
_CONTEXT = 40  # characters before a solid stretch that its patterns may begin in: "Bearer ", "--api-key "
# Leaps over SOLID_LENGTH characters and walks back to the last space among them: a tenth of the cost of a scan.
_LEAP = re.compile(f"(?s)(?:.{{0,{SOLID_LENGTH - 1}}} )*+").match

Found = list[tuple[int, int, str]]
"""Spans to replace, each with the secret as it reads without its escapes."""


class Redactor:
    """Replaces credentials in texts and bytes; safe to share between threads.

    `key` (32 bytes) belongs to one store. `policy` names the rules, not the registered values.
    """

    def __init__(
        self, key: bytes, *, patterns: Iterable[Pattern] = DEFAULT, secrets: SecretRegistry | None = None
    ) -> None:
        if len(key) != 32:
            raise ValueError(f"a redaction key has 32 bytes, this one has {len(key)}; use the store's key file")
        self._key = key
        self._secrets = SecretRegistry() if secrets is None else secrets
        self._lock = RLock()
        self._count = 0
        patterns = tuple(patterns)
        rules = blake3(_RULES.encode())
        for pattern in patterns:
            rules.update(repr((pattern.name, pattern.regex, pattern.anchors, pattern.solid)).encode())
        self._policy = f"{_RULES}:{rules.hexdigest(16)}"
        # What a character's absence rules out at memchr speed is grouped under it: `_`, `-` or `.`; else one test each.
        self._solid: dict[str, list[tuple[str, Pattern]]] = {}
        for pattern in patterns:
            for anchor in pattern.anchors if pattern.solid else ():
                rare = next((char for char in anchor if not char.isalnum() and char != " "), anchor[0])
                self._solid.setdefault(rare, []).append((anchor, pattern))
        self._loose = [
            ([anchor[0] for anchor in pattern.anchors], pattern.compiled.search, pattern)
            for pattern in patterns
            if not pattern.solid
        ]
        self._exact: tuple[int, list[tuple[str, str, bool]], list[tuple[str, str, bool]]] = (0, [], [])

    def after_fork(self) -> None:
        """In a forked child: the threads that held the locks are not there to free them."""
        self._lock = RLock()
        self._secrets.after_fork()

    @property
    def policy(self) -> str:
        """The version of the rules, recorded with what they redacted."""
        return self._policy

    @property
    def count(self) -> int:
        """How many replacements were made so far."""
        return self._count

    @property
    def secrets(self) -> SecretRegistry:
        """The exact values that are redacted beside what the patterns find."""
        return self._secrets

    def text(self, text: str) -> str:
        """`text` without credentials; the same object where there are none."""
        if len(text) < 64 and not self._secrets.version and _MADE_ID(text):
            return text
        return self._redact(text, "utf-8")

    def named(self, name: str, value: Any, depth: int = 0) -> Any:
        """`value` without what is secret by the name of its place: `{"api_key": text}`.

        That is a text, bytes, or those in a list, tuple, set or dict. The same object where nothing is.
        """
        if isinstance(value, str):
            text = str.__str__(value)
            clean = self._named(name, text, "utf-8")
            return value if clean is text else clean
        if isinstance(value, (bytes, bytearray, memoryview)):
            text, encoding = _read(bytes(value))
            clean = self._named(name, text, encoding)
            return value if clean is text else clean.encode(encoding)
        if isinstance(value, (list, tuple)) and depth < _LISTS:
            parts = [self.named(name, part, depth + 1) for part in value]
            if any(part is not one for part, one in zip(parts, value, strict=True)):
                return tuple(parts) if isinstance(value, tuple) else parts
        if isinstance(value, (set, frozenset)):
            members = {self.named(name, part, _LISTS) for part in value}
            if members != value:
                return frozenset(members) if isinstance(value, frozenset) else members
            return value
        if isinstance(value, dict) and depth < _LISTS:
            fields = {key: self.named(name, part, depth + 1) for key, part in value.items()}
            if any(fields[key] is not part for key, part in value.items()):
                return fields
        return value

    def _named(self, name: str, text: str, encoding: str) -> str:
        if (span := named_span(name, text)) is None:
            return self._redact(text, encoding)
        start, end = span
        with self._lock:
            self._count += 1
        return text[:start] + self._placeholder(text[start:end], encoding) + text[end:]

    def data(self, data: bytes) -> bytes:
        """As `text`, for bytes: UTF-8 where they are that, else every byte is read as one character."""
        text, encoding = _read(data)
        redacted = self._redact(text, encoding)
        return data if redacted is text else redacted.encode(encoding)

    def _redact(self, text: str, encoding: str) -> str:
        # Again until nothing is found: what a replacement leaves behind can read as a credential of its own. Each turn
        # leaves less text outside placeholders, so it ends.
        while found := self._find(text, 0):
            if not (spans := _outside_placeholders(text, found)):
                break
            pieces: list[str] = []
            done = 0
            for start, end, secret in spans:
                pieces += text[done:start], self._placeholder(secret, encoding)
                done = end
            pieces.append(text[done:])
            text = "".join(pieces)
            with self._lock:
                self._count += len(spans)
        return text

    def _placeholder(self, secret: str, encoding: str) -> str:
        data = secret.encode(encoding, "surrogatepass")
        return f"secret:{blake3(data, key=self._key).hexdigest(16)}"

    def _find(self, text: str, depth: int) -> Found:
        found: Found = []
        solid = ""
        if stretches := _stretches(text):
            solid = " ".join([text[start:end] for start, end in stretches])
            self._find_solid(text, solid, found)
            if depth < _DEPTH and may_hide(solid):
                for start, end, readings in decoded_runs(text):
                    if any(self._find(reading, depth + 1) for reading in readings):
                        found.append((start, end, text[start:end]))
        for chars, search, pattern in self._loose:
            for char in chars:
                if char in text:
                    if search(text):
                        found += [(start, end, text[start:end]) for start, end in pattern.spans(text)]
                    break
        if self._secrets.version:
            self._find_exact(text, solid, found)
        if depth < _DEPTH and ("%" in text or "\\" in text):
            for view, back in views(text):
                found += [(*back(start, end), secret) for start, end, secret in self._find(view, depth + 1)]
        return found

    def _find_solid(self, text: str, solid: str, found: Found) -> None:
        searched: set[str] = set()
        for rare, group in self._solid.items():
            if rare not in solid:
                continue
            for anchor, pattern in group:
                if anchor in solid and pattern.name not in searched:
                    searched.add(pattern.name)
                    found += [(start, end, text[start:end]) for start, end in pattern.spans(text)]

    def _find_exact(self, text: str, solid: str, found: Found) -> None:
        version, short, long = self._exact
        if version != self._secrets.version:
            version, short, long = self._exact = _spellings(self._secrets.values)
        for spellings, place in ((short, text), (long, solid)):
            for spelling, secret, in_run in spellings:
                if spelling not in place:
                    continue
                start = text.find(spelling)
                while start >= 0:
                    end = start + len(spelling)
                    if in_run:
                        first, end = run_around(text, start, end)
                        found.append((first, end, text[first:end]))
                    else:
                        found.append((start, end, secret))
                    start = text.find(spelling, end)


def _read(data: bytes) -> tuple[str, str]:
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "latin-1"


def _stretches(text: str) -> list[tuple[int, int]]:
    """The spans of at least `SOLID_LENGTH` characters without a space, with what of their context is in no other."""
    spans: list[tuple[int, int]] = []
    at, size = 0, len(text)
    done = 0
    while size - at >= SOLID_LENGTH:
        leap = _LEAP(text, at)
        assert leap is not None  # zero leaps match too
        at = leap.end()
        if size - at < SOLID_LENGTH:
            break
        end = text.find(" ", at)
        if end < 0 or len(spans) == 32:  # so many: the rest as one is cheaper
            end = size
        spans.append((max(done, at - _CONTEXT), end))
        at = done = end + 1
    return spans


def _spellings(values: tuple[str, ...]) -> tuple[int, list[tuple[str, str, bool]], list[tuple[str, str, bool]]]:
    """What to search for, in the whole text and in solid stretches: spelling, secret, whether it is part of a run."""
    short: list[tuple[str, str, bool]] = []
    long: list[tuple[str, str, bool]] = []
    for value in values:
        plain, hidden = forms(value)
        for spelling, in_run in [(form, False) for form in plain] + [(form, True) for form in hidden]:
            (long if len(spelling) >= SOLID_LENGTH and " " not in spelling else short).append((spelling, value, in_run))
    return len(values), short, long


def _outside_placeholders(text: str, found: Found) -> Found:
    """`found` in order, overlapping spans made one, without those that only see an earlier placeholder."""
    merged: Found = []
    for start, end, secret in sorted(found, key=lambda item: (item[0], -item[1])):
        if merged and start < merged[-1][1]:
            first, last, _ = merged[-1]
            if end > last:
                merged[-1] = (first, end, text[first:end])
        else:
            merged.append((start, end, secret))
    placeholders = [match.span() for match in _PLACEHOLDER.finditer(text)]
    if not placeholders:
        return merged
    kept: Found = []
    for start, end, secret in merged:
        covered = [min(end, last) - max(start, first) for first, last in placeholders if first < end and start < last]
        if not covered or end - start - sum(covered) >= 16:
            kept.append((start, end, secret))
    return kept
