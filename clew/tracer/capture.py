"""Capture: how content becomes artifacts. It is redacted, then digested, then stored.

A `Batch` collects what one event brings (texts, values, links of lists, and the event's own record) and the gate writes
it with one append.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from clew.store import blob, chain, decoding, encoding
from clew.store.digest import CHAIN, TEXT, VALUE, Digest, Domain, raw_digest, storable, text_bytes
from clew.store.log import blob_frame, framed
from clew.store.record import Artifact, Slot
from clew.store.sink import Packed
from clew.store.vocabulary import is_content
from clew.tracer import chunks
from clew.tracer.constant import Constant, Fixed
from clew.tracer.gate import REMEMBERED, Clean, Gate, News
from clew.tracer.memo import Look

Given = tuple[Any, ...]  # (role, kind, value[, name[, info]])

_LISTS = 4
_CONTENT = (TEXT, VALUE, Domain.BYTES, Domain.TENSOR)


class Batch:
    """What one event brings. It is the `encoding.Sink` of the event's values. For one thread."""

    depth = 0  # lists around the list that is being captured
    _asked: Any = None  # a value of which the gate does not know this very object
    _seen: Any = None  # nor any like it
    _look: Look | None = None  # at the last one of which it knows no like

    def __init__(self, gate: Gate) -> None:
        if gate.version != gate.secrets.version:
            gate.refresh()
        self.gate = gate
        self.version = gate.version
        self.content = gate.content  # False: digests of what comes next, and not the content itself
        self.frames: list[bytes] = []
        self.news: News | None = None  # most bring none
        self.complete = True  # nothing of it was captured as an opaque marker

    @property
    def current(self) -> bool:
        """Whether no secret became known since it was begun, so that what it found clean is."""
        return self.version == self.gate.version == self.gate.secrets.version

    def renewed(self) -> Batch:
        """This batch, or where a secret became known since it was begun, another one, after this one is written."""
        if self.current:
            return self
        self.commit()
        made = type(self)(self.gate)
        made.content, made.complete = self.content, self.complete
        return made

    # -- encoding.Sink

    @property
    def clean(self) -> dict[str, str]:
        return self.gate.inlines

    @property
    def innocent(self) -> set[str]:
        return self.gate.innocent

    def text(self, text: str) -> bytes:
        known = self.gate.texts.get(text)
        if known is not None:
            return known
        clean = self.gate.cleaner.text(text)
        data = text_bytes(clean)
        name = raw_digest(TEXT, data)
        self.put(TEXT, name, data)
        if self.content is self.gate.content:
            self._news().texts.append((text, name))
        return name

    def inline(self, text: str) -> str:
        memo = self.gate.inlines
        if text in memo:
            return memo[text]
        clean = self.gate.cleaner.text(text)
        if len(text) < encoding.REFERENCE_CHARS:
            if len(memo) >= REMEMBERED:
                memo = self.gate.inlines = {}  # not cleared: others are looking there
            memo[text] = clean
        return clean

    def named(self, name: str, value: Any) -> Any:
        return value if name in self.gate.innocent else self.gate.named(name, value)

    def bare(self, data: bytes) -> bytes:
        return self.gate.cleaner.data(data)

    def data(self, domain: Domain, data: bytes) -> bytes:
        if domain is Domain.BYTES:
            data = self.gate.cleaner.data(data)
        name = raw_digest(domain, data)
        self.put(domain, name, data)
        return name

    def item(self, kind: str, value: Any, encoded: bytes, complete: bool) -> bytes:
        look, self._look = self._look, None
        own = complete and look is not None and look() is value and self.content is self.gate.content
        look = look if own and look is not None and self.gate.items.same(look) else None
        name = raw_digest(VALUE, encoded)
        self.put(VALUE, name, encoded)
        if look is not None:
            self._news().items.append((look, name))
        if not self.content and kind == "document":
            self._skeleton(value, name)
        return name

    def seen(self, value: Any) -> bytes | None:
        if value is self._seen:  # just now; it is about to be encoded
            self._seen = None
            return None
        items = self.gate.items
        known = items.of(value) if value is not self._asked else None
        if known is None:
            look = items.look(value)
            known = items.alike(look) if look is not None else None
            self._look = look if known is None else None
        return known

    def packed(self, content: bytes) -> Packed | None:
        return self.gate.packed.get(content)

    def keep_packed(self, content: bytes, packed: Packed) -> None:
        if not self.current:
            return
        if len(self.gate.packed) >= REMEMBERED:
            self.gate.packed = {}
        self.gate.packed[content] = packed

    def _skeleton(self, value: Any, name: bytes) -> None:
        """Without content, the join of a document to its text still needs both digests."""
        decoded = encoding.item_fields(value)
        text, own_id = str(decoded.get("text", "")), str(decoded.get("id") or "")
        facts = {"text": self.text(text), "id": self.inline(own_id)}
        self.record(Artifact("document", VALUE, name, b"", None, facts))

    def learn(self, news: News | None) -> None:
        """Take over what another batch brings, save what is to be written."""
        if news is not None:
            own = self.news or self._news()
            own.texts += news.texts
            own.items += news.items
            own.links |= news.links

    def _news(self) -> News:
        if self.news is None:
            self.news = News()
        return self.news

    def put(self, domain: Domain, name: bytes, data: bytes) -> None:
        """Content that is to be written, if it is not yet."""
        if name in self.gate.known:
            return
        news = self.news or self._news()
        if name in news.fresh:
            return
        if not self.content and domain in _CONTENT:
            return
        news.fresh.add(name)
        if len(data) > blob.FILE_BYTES:
            self._look = None  # other threads run while a file is written: what is being read may change, and back
            blob.write_file(self.gate.blob_folder, domain, Digest(name), data)
        else:
            self.frames.append(blob_frame(domain, name, data))

    # -- values and slots

    def part(self, value: Any) -> tuple[Domain, Digest]:
        """The domain and digest of any value: texts, items, lists and everything else."""
        domain, name = self._part(value)
        return domain, Digest(name)

    def _part(self, value: Any) -> tuple[Domain, bytes]:
        cls = type(value)  # not __class__, which may be anything
        if cls is str:
            return TEXT, self.gate.texts.get(value) or self.text(value)
        if cls is list and self.depth < _LISTS:  # further down, and in a list that holds itself, a list is a value
            return CHAIN, self.chain(value)
        if cls is tuple and _named(value):
            return value[0], value[1]
        items = self.gate.items
        if value is not self._asked:
            if (known := items.of(value)) is not None:
                return VALUE, known
            self._asked = value
        if cls in items.classes:
            if (known := self.seen(value)) is not None:
                return VALUE, known
            self._seen = value
        encoded, complete = encoding.encode_capture(value, self)
        if not complete:
            self.complete = False
        if len(encoded) == _ITEM_BYTES and encoded.startswith(_ITEM_HEAD):
            return VALUE, encoded[3:]  # the value is an item: its own digest is its identity
        return VALUE, self.data(VALUE, encoded)

    def chain(self, values: Iterable[Any]) -> bytes:
        """The digest of a list, each item captured on its own."""
        if type(values) is not list:
            values = list(values)
        if _TEXTS.issuperset(map(type, values)):
            return self._texts(values)
        gate = self.gate
        parts, content = values, None
        if len(values) > 1:
            if len(values) <= _FEW_ITEMS and (content := gate.lists.content_of(values)) is not None:
                if (known := gate.lists.of(content)) is not None:
                    return known
            elif not _JOINABLE.isdisjoint(map(type, values)):
                parts = chunks.joined(values, gate.cleaner)
        seen, written = gate.items.of, gate.links
        current = _EMPTY
        for value in parts:
            if (known := seen(value)) is not None:
                domain, item = VALUE, known
            else:
                self._asked = value
                domain, item = self._item(value)
                content = None
            step = current + item
            if step in written:
                current = written[step]
            else:
                current = self._link(current, domain, item)
                content = None  # it is remembered when all of it is in the log
        if content is not None and self.current:
            gate.lists.keep(content, values, current)
        return current

    def _texts(self, texts: list[str]) -> bytes:
        """The digest of a list of texts. States hold the same lists again and again: short ones are remembered whole."""
        if not texts:
            return _EMPTY
        gate = self.gate
        key = tuple(texts)
        if (known := gate.text_lists.get(key)) is not None:
            return known
        parts = chunks.joined(texts, gate.cleaner) if len(texts) > 1 else texts
        current, lasting = _EMPTY, len(parts) == len(texts)
        for text in parts:
            name = gate.texts.get(text)
            lasting = lasting and name is not None and current + name in gate.links  # all of it is in the log
            current = self._link(current, TEXT, name or self.text(text))
        if lasting and self.current and sum(map(len, texts)) <= _LIST_CHARS:
            if len(gate.text_lists) >= _LISTS_REMEMBERED:
                gate.text_lists = {}
            gate.text_lists[key] = current
        return current

    def _item(self, value: Any) -> tuple[Domain, bytes]:
        """The digest of what stands in a list."""
        self.depth += 1
        try:
            return self._part(value)
        finally:
            self.depth -= 1

    def _link(self, before: bytes, domain: Domain, item: bytes) -> bytes:
        """The digest of a list and one more item."""
        step = before + item
        if (known := self.gate.links.get(step)) is not None:
            return known
        links = (self.news or self._news()).links
        if step in links:
            return links[step]
        data = chain.link_bytes(before, domain, item)
        name = links[step] = raw_digest(CHAIN, data)
        self.put(CHAIN, name, data)
        return name

    def slot(self, given: Given) -> Slot:
        """A slot of a span from (role, kind, value[, name[, info]])."""
        role, kind, value = given if len(given) == 3 else given[:3]
        gate = self.gate
        cls = type(value)
        if cls is tuple and _named(value):
            domain, name = value
        else:
            if role not in gate.innocent:
                value = gate.named(role, value)
                cls = type(value)
            if cls is str:
                domain, name = TEXT, gate.texts.get(value) or self.text(value)
            elif cls is list:
                domain, name = CHAIN, self.chain(value)
            else:
                domain, name = self._part(value)
        if len(given) == 3:
            return Slot(role, kind, _NUMBER[domain], name)
        label = gate.name(given[3]) if given[3] else None
        info = given[4] if len(given) > 4 else None
        if info:
            info = self.fixed(info) if type(info) is Fixed else self.plain(info)
        return Slot(role, kind, _NUMBER[domain], name, label, info)

    def slots(self, given: Iterable[Given]) -> list[Slot]:
        """Slots of a span."""
        gate = self.gate
        known, innocent = gate.slots, gate.innocent
        found: list[Slot] = []
        for one in given:
            cls = type(one[2])
            if cls is list and len(one) == 3:
                role, kind, value = one
                if role in innocent:
                    found.append(Slot(role, kind, _CHAIN_NUMBER, self.chain(value) if value else _EMPTY))
                    continue
            elif (cls is str or cls is Constant) and len(one) < 5:
                found.append(known.get(one) or self._new_slot(one))
                continue
            found.append(self.slot(one))
        return found

    def _new_slot(self, given: Given) -> Slot:
        """The slot of a text or constant that is not remembered; it is from now on, if it is whole and in the log."""
        gate = self.gate
        around, self.complete = self.complete, True
        slot = self.slot(given)
        complete, self.complete = self.complete, self.complete and around
        in_log = slot.digest in gate.known and (type(given[2]) is Constant or given[2] in gate.texts)
        if complete and in_log and self.current:
            gate.keep(given, slot)
        return slot

    def attributes(self, values: dict[str, Any]) -> dict[str, Any]:
        """Attributes as they may be stored: texts redacted, anything but plain values as text."""
        gate = self.gate
        memo, keys = gate.names, gate.keys if self.content is gate.content else {}
        clean: dict[str, Any] = {}
        for key, value in values.items():
            if value is None:
                continue
            if (name := keys.get(key)) is None:
                name, value = self._attribute(key, value)
            cls = type(value)
            if cls is str and value in memo:
                clean[name] = memo[value]
            elif cls is int and -_INT64 <= value < _INT64:
                clean[name] = value
            elif cls is Clean:
                clean[name] = str.__str__(value)
            else:
                clean[name] = self.plain(value)
        return clean

    def fixed(self, values: Fixed) -> dict[str, Any]:
        """As `attributes`. Whoever gets it changes nothing in it."""
        gate = self.gate
        if (known := gate.fixed.get(id(values))) is not None:
            return known[1]
        clean = self.attributes(values)
        if self.content is gate.content and self.current:
            if len(gate.fixed) >= REMEMBERED:
                gate.fixed = {}
            gate.fixed[id(values)] = values, clean
        return clean

    def _attribute(self, key: Any, value: Any) -> tuple[str, Any]:
        """An attribute that is met for the first time, or whose key says that it is secret or content: name and value."""
        gate = self.gate
        if type(key) is not str:  # somebody else's: OpenTelemetry checks them only where somebody exports
            key = str(key)
        if key not in gate.innocent:
            value = gate.named(key, value)
        name = gate.name(key)
        if not self.content and is_content(key):
            return name, str(self.part(value)[1])
        if key in gate.innocent and self.content is gate.content:
            gate.keys[key] = name
        return name, value

    def plain(self, value: Any, depth: int = 0) -> Any:
        """One attribute value as it may be stored. Digests stay as they are; bytes that are none become a text."""
        cls = type(value)
        if cls is str:
            return self.gate.name(value) if len(value) < 256 else storable(self.gate.cleaner.text(value))
        if cls is int:
            return value if -_INT64 <= value < _INT64 else hex(value)
        if cls is Clean:
            return str.__str__(value)
        if cls in _PLAIN:
            return value
        if cls is bytes:
            return storable(self.gate.cleaner.data(value).decode("utf-8", "backslashreplace"))
        try:
            if cls is dict and len(value) <= _FEW and _PLAIN_NUMBERS.issuperset(map(type, value.values())):
                memo = self.gate.names  # such as a rank and a score
                return {memo[key] if key in memo else self.gate.name(str(key)): one for key, one in value.items()}
            if depth < 8 and isinstance(value, (list, tuple)):
                return [self.plain(one, depth + 1) for one in value]
            if depth < 8 and isinstance(value, dict):
                gate, innocent = self.gate, self.gate.innocent
                return {
                    gate.name(str(key)): self.plain(
                        one if key in innocent or type(key) is not str else gate.named(key, one), depth + 1
                    )
                    for key, one in value.items()
                }
            return self.plain(str(value), depth)
        except Exception:  # an object of the program's that cannot be read as text
            self.complete = False
            return encoding.qualified_name(type(value))

    def record(self, entry: msgspec.Struct) -> None:
        """Add the event's own record; it stands after the content it names."""
        self.frames.append(framed(entry))

    def commit(self) -> None:
        """Write everything (see `Gate.commit`)."""
        self.gate.commit(self)


_NUMBER = {domain: int(domain) for domain in Domain}
_CHAIN_NUMBER = int(CHAIN)
_ITEM_HEAD = bytes((0xC7, 32, int(decoding.Code.ITEM)))
_ITEM_BYTES = 35
_EMPTY = bytes(chain.EMPTY)
_INT64 = 1 << 63
_LISTS_REMEMBERED = 256
_LIST_CHARS = 1 << 14  # of one of them
_FEW = 8
_FEW_ITEMS = 16  # in a list that is remembered whole
_PLAIN = frozenset((float, bool, type(None), Digest))
_PLAIN_NUMBERS = frozenset((float, bool, type(None)))
_TEXTS = frozenset((str,))
_JOINABLE = frozenset((str, bytes))  # of which several together may hold a credential that none holds alone


def _named(value: tuple[Any, ...]) -> bool:
    """Whether a given value is already (domain, digest)."""
    return len(value) == 2 and type(value[0]) is Domain
