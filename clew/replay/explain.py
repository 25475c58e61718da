"""`clew.replay.explain`: why a call was answered from the cache, or was not.

A key is compared with the nearest one that is stored: of the same kind and operation, and the same model where there is
one, the one that most fields are equal of; of several, one from before it, the newest.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage.reader import Reader
from clew.lineage.view import SpanView, span_views
from clew.replay.difference import Difference, differences
from clew.replay.key import request_of
from clew.store import catalog, record, segment
from clew.store.action import Actions
from clew.store.errors import Ambiguous, NotFound
from clew.store.record import Action, RecordType
from clew.store.store import Store

_FEWEST_DIGITS = 4
_FEW = 8  # that are named
_KEYS = 20  # of a batch that are listed


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where in its run a call was asked: the span path, and how many that asked the same there came before it."""

    path: str | None  # None where the span that asked was collected
    occurrence: int

    def __str__(self) -> str:
        return f"{self.path or 'a span that was collected'}, number {self.occurrence + 1}"


class Nearest(msgspec.Struct, frozen=True, kw_only=True):
    """The stored action that is most like this one. `places` are this one's and the other's, where they tell them
    apart."""

    key: str
    span_id: str
    when_ns: int
    model: str
    equal: list[str]
    differs: list[Difference]
    places: tuple[Place, Place] | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What the cache did, and why. `outcome`: of a span "hit", "miss", "refused" (its answer), "bypass" or "batch"; of a
    key "stored", "expired" or "gone"."""

    outcome: str
    reason: str
    span_id: str | None = None  # that asked
    key: str | None = None
    kind: str = ""
    operation: str = ""
    model: str = ""
    fields: dict[str, str] = {}  # what the key was made of: name -> digest
    place: Place | None = None  # of a sampled call
    performed: dict[str, Any] | None = None  # the stored action: by which span, when, what it took
    keys: list[str] = []  # of a batch: those that were asked of the world
    nearest: Nearest | None = None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def explain(reader: Reader, what: Any) -> Explanation:
    """Why a span was or was not answered from the cache, or what a key is made of; `what` is a span or a key, or any
    unique prefix. NotFound for what is neither, and for a span that asked nothing of the cache; Ambiguous."""
    name = str(getattr(what, "span_id", what))
    with reader.connection() as connection:
        explainer = Explainer(reader.store, connection)
        found = explainer.find(name)
        return explainer.of_key(found) if isinstance(found, bytes) else explainer.of_span(found)


class Explainer:
    """Explains keys and spans of one store, by one connection; it keeps the actions of the logs that it read."""

    def __init__(self, store: Store, connection: Connection) -> None:
        self._read: dict[str, list[Action]] = {}  # by the log's segment
        self.store = store
        self.connection = connection
        self.actions = Actions(store)

    # -- what is asked about

    def find(self, name: str) -> bytes | int:
        """A key, or the number of a span."""
        digits = name.removeprefix("b3:").lower()
        if len(digits) < _FEWEST_DIGITS or digits.strip("0123456789abcdef"):
            raise NotFound(f"{name!r} is no key and no span: write {_FEWEST_DIGITS} hex digits of it at least")
        found: dict[str, bytes | int] = {}
        for column in (catalog.action.c.key, catalog.action_use.c.key):
            for (key,) in self._starting(digits, column, column):
                found[f"key {bytes(key).hex()}"] = bytes(key)
        for number, span_id in self._starting(
            digits, catalog.span.c.span_id, catalog.span.c.id, catalog.span.c.span_id
        ):
            found[f"span {span_id.hex()}"] = int(number)
        if len(found) > 1:
            raise Ambiguous(f"{name!r} fits several: {', '.join(list(found)[:_FEW])}")
        if not found:
            raise NotFound(f"no key of the cache and no span begins with {name!r}; `clew show RUN` lists a run's spans")
        return next(iter(found.values()))

    def _starting(self, digits: str, column: sa.Column[Any], *wanted: sa.Column[Any]) -> list[Any]:
        """Rows whose `column` begins with these digits."""
        low = bytes.fromhex(digits.ljust(len(digits) + len(digits) % 2, "0"))
        high = bytes.fromhex(digits.ljust(len(digits) + len(digits) % 2, "f")) + b"\xff" * 32
        query = sa.select(*wanted).where(column >= low, column <= high).distinct().limit(_FEW + 1)
        return list(self.connection.execute(query).all())

    # -- answers

    def of_key(self, key: bytes) -> Explanation:
        entry = self.actions.read(key)
        if entry is None:
            spans = self._askers(key)
            entry = next((one for span in spans if (one := self._logged(span, key)) is not None), None)
            why = "it is not in the cache any more: it was evicted, or collected with the process that performed it"
            if entry is None:
                told = [span for span in map(self.span, spans) if "clew.cache.refused" in span.attributes]
                if told:
                    why = f"its answer was not kept: {told[0].attributes['clew.cache.refused']}"
                return Explanation(
                    outcome="gone", reason=f"{why}. What the key was made of is not known.", key=key.hex()
                )
            return self._told("gone", why, entry, None)
        if entry.expires_ns is not None and entry.expires_ns <= time.time_ns():
            return self._told("expired", "its answer is too old to be served", entry, None)
        return self._told("stored", "its answer is served to whoever asks the same", entry, None)

    def of_span(self, number: int) -> Explanation:
        """NotFound for a span that asked nothing of the cache."""
        span = self.span(number)
        about = span.attributes
        if "clew.cache.bypass" in about:
            return Explanation(
                outcome="bypass",
                reason=f"it was called without the cache: {about['clew.cache.bypass']}",
                span_id=span.span_id,
                kind=span.kind,
            )
        if "clew.cache.asked" in about:
            return self._of_batch(number, span)
        if "clew.cache.key" not in about:
            failed = "" if span.status == "ok" else f", or its call did not come to an end ({span.status})"
            raise NotFound(
                f"the span {span.span_id} ({span.kind} {span.name}) asked nothing of the cache: it was off for calls of "
                f"this kind{failed}"
            )
        key = bytes.fromhex(str(about["clew.cache.key"]))
        entry = self._logged(number, key) or self.actions.read(key)
        if about.get("clew.cache.hit"):
            return self._of_hit(span, key)
        outcome, reason = "miss", self._why_missed(number, span, key)
        if refused := about.get("clew.cache.refused"):
            outcome, reason = "refused", f"{reason}; its answer was not kept: {refused}"
        if entry is None:
            return Explanation(
                outcome=outcome,
                reason=f"{reason}. What the key was made of is not known: it stands with an answer that is kept.",
                span_id=span.span_id,
                key=key.hex(),
                kind=span.kind,
                model=str(about.get("clew.cache.model", "")),
            )
        return self._told(outcome, reason, entry, span)

    def _of_hit(self, span: SpanView, key: bytes) -> Explanation:
        by = next((link[1] for link in span.links if link[2] == "served_from"), None)
        reason = f"the same was asked by span {by}, and this one was served its answer" if by else "it was served"
        entry = self.actions.read(key)
        if entry is None and by is not None:
            rows = self._starting(by, catalog.span.c.span_id, catalog.span.c.id)
            entry = self._logged(rows[0][0], key) if rows else None
        if entry is None:
            return Explanation(
                outcome="hit",
                reason=f"{reason}, which is gone since",
                span_id=span.span_id,
                key=key.hex(),
                kind=span.kind,
            )
        return self._told("hit", reason, entry, span, compared=False)

    def _of_batch(self, number: int, span: SpanView) -> Explanation:
        about = span.attributes
        asked, hits = int(about["clew.cache.asked"]), int(about.get("clew.cache.hits", 0))
        made = [one for one in self._published(number) if one.span_id.hex() == span.span_id]
        keys = list(dict.fromkeys(one.key.hex() for one in made))
        reason = (
            f"{asked} things were asked at once, each with a key of its own, and {hits} were answered from the cache"
        )
        if hits < asked:
            reason += f"; the answers of {len(keys)} others were kept"
        return Explanation(
            outcome="batch",
            reason=reason,
            span_id=span.span_id,
            kind=span.kind,
            model=str(about.get("clew.cache.model", "")),
            keys=keys,
        )

    def _why_missed(self, number: int, span: SpanView, key: bytes) -> str:
        """Whether the same was asked before, and what became of its answer."""
        use = catalog.action_use.c
        before = sa.select(use.span).where(use.key == key, use.span != number, use.when_ns <= span.start_ns)
        rows = self.connection.execute(before.order_by(use.when_ns.desc())).scalars().all()
        if not rows:
            return "nobody had asked this before"
        earlier = self.span(rows[0])
        refused = earlier.attributes.get("clew.cache.refused")
        if refused:
            return f"span {earlier.span_id} had asked the same, and its answer was not kept: {refused}"
        kept = next((one for row in rows if (one := self._logged(row, key)) is not None), None)
        if kept is not None and kept.expires_ns is not None and kept.expires_ns <= span.start_ns:
            return f"span {kept.span_id.hex()} had asked the same, and its answer had expired"
        return f"span {earlier.span_id} had asked the same, and its answer was not in the cache any more"

    def _told(
        self, outcome: str, reason: str, entry: Action, span: SpanView | None, *, compared: bool = True
    ) -> Explanation:
        asker = span or self._by_id(entry)
        performer = self._by_id(entry)
        return Explanation(
            outcome=outcome,
            reason=reason,
            span_id=span.span_id if span is not None else None,
            key=entry.key.hex(),
            kind=entry.kind,
            operation=entry.operation,
            model=entry.model,
            fields={name: f"b3:{digest.hex()}" for name, digest in entry.fields.items()},
            place=_place(entry, performer),
            performed={
                "span_id": entry.span_id.hex(),
                "run_id": entry.run_id.hex(),
                "when_ns": entry.when_ns,
                "duration_ns": entry.duration_ns,
                "input_tokens": entry.input_tokens,
                "output_tokens": entry.output_tokens,
                "expires_ns": entry.expires_ns,
            },
            nearest=self._nearest(entry, asker) if compared else None,
        )

    # -- the nearest

    def _nearest(self, entry: Action, span: SpanView | None) -> Nearest | None:
        other = self._most_like(entry)
        if other is None:
            return None
        there = self._by_id(other)
        names = [*entry.fields, *(name for name in other.fields if name not in entry.fields)]
        equal = [name for name in names if entry.fields.get(name) == other.fields.get(name)]
        places = _place(entry, self._by_id(entry)), _place(other, there)
        return Nearest(
            key=other.key.hex(),
            span_id=other.span_id.hex(),
            when_ns=other.when_ns,
            model=other.model,
            equal=equal,
            differs=differences(
                [name for name in names if name not in equal], span, there, (entry.fields, other.fields)
            ),
            places=(places[0], places[1]) if places[0] and places[1] and places[0] != places[1] else None,
        )

    def _most_like(self, entry: Action) -> Action | None:
        action, field = catalog.action.c, catalog.action_field.c
        same = [action.kind == entry.kind, action.operation == entry.operation, action.key != entry.key]
        shared = sa.or_(
            *(sa.and_(field.digest == digest, field.field == name) for name, digest in entry.fields.items())
        )
        later = sa.case((action.when_ns > entry.when_ns, 1), else_=0)
        for where in ([*same, action.model == entry.model], same):
            query = sa.select(action.key).join_from(
                catalog.action, catalog.action_field, (field.key == action.key) & shared, isouter=True
            )
            query = query.where(*where).group_by(action.key, action.when_ns)
            order = (sa.func.count(field.field).desc(), later, action.when_ns.desc())
            for key in self.connection.execute(query.order_by(*order).limit(_FEW)).scalars():
                if (found := self.actions.read(bytes(key))) is not None:
                    return found
        return None

    # -- what is recorded

    def span(self, number: int) -> SpanView:
        return span_views(self.store, self.connection, None, only=number)[0]

    def _by_id(self, entry: Action) -> SpanView | None:
        """The span that performed an action; None where it was collected."""
        span = catalog.span.c
        query = sa.select(span.id).where(span.span_id == entry.span_id, span.trace_id == entry.trace_id)
        number = self.connection.execute(query).scalar()
        return None if number is None else self.span(number)

    def _askers(self, key: bytes) -> list[int]:
        """The spans that asked with this key, newest first."""
        use = catalog.action_use.c
        query = sa.select(use.span).where(use.key == key).order_by(use.when_ns.desc())
        return list(self.connection.execute(query).scalars())

    def _logged(self, number: int, key: bytes) -> Action | None:
        """The action that a span performed, from its own log: the cache may have a newer one, or none any more."""
        span_id = self.connection.execute(sa.select(catalog.span.c.span_id).where(catalog.span.c.id == number)).scalar()
        found = [one for one in self._published(number) if one.key == key and one.span_id == span_id]
        return found[-1] if found else None

    def _published(self, number: int) -> list[Action]:
        """The actions in the segments that a span stands in."""
        span, table = catalog.span.c, catalog.segment.c
        began = sa.select(table.stem).join_from(catalog.span, catalog.segment, table.id == span.segment)
        ended = sa.select(table.stem).join_from(catalog.span, catalog.segment, table.id == span.end_segment)
        stems = [self.connection.execute(one.where(span.id == number)).scalar() for one in (began, ended)]
        return [entry for stem in dict.fromkeys(filter(None, stems)) for entry in self._actions(stem)]

    def _actions(self, stem: str) -> list[Action]:
        if stem not in self._read:
            self._read[stem] = found = []
            for frame in segment.records(self.store.folder.log / stem, RecordType.ACTION):
                entry = record.decode(frame.type, frame.payload)
                assert isinstance(entry, Action)
                found.append(entry)
        return self._read[stem]


def _place(entry: Action, performer: SpanView | None) -> Place | None:
    """Of a sampled call; None of one that is answered alike wherever it is asked."""
    if request_of(entry.kind, entry.operation, entry.fields) == entry.key:
        return None
    return Place(path=performer.path if performer is not None else None, occurrence=entry.occurrence)


def _lines(told: Explanation) -> list[str]:
    what = f"span {told.span_id}" if told.span_id else f"key {told.key}"
    lines = [f"{told.outcome}: {what}", told.reason]
    about = [part for part in (told.kind, told.operation, told.model) if part]
    if about:
        lines.append(" ".join(about))
    if told.span_id and told.key:
        lines.append(f"key {told.key}")
    lines += [f"  {name} {digest}" for name, digest in told.fields.items()]
    if told.place is not None:
        lines.append(f"  place {told.place} (it is sampled: each place in a run has an answer of its own)")
    if told.performed is not None and told.performed["span_id"] != told.span_id:
        lines.append(f"performed by span {told.performed['span_id']}")
    lines += [f"  {key}" for key in told.keys[:_KEYS]]
    if len(told.keys) > _KEYS:
        lines.append(f"  and {len(told.keys) - _KEYS} more")
    if told.nearest is not None:
        lines += _compared(told.nearest, told.model)
    elif told.fields and told.outcome != "hit":
        lines.append("nothing else of this kind and operation is stored")
    return lines


def _compared(other: Nearest, model: str) -> list[str]:
    lines = ["", f"nearest: key {other.key}, performed by span {other.span_id}"]
    if other.model != model:
        lines.append(f"  of another model: {other.model}")
    if other.equal:
        lines.append(f"  equal: {', '.join(other.equal)}")
    for one in other.differs:
        lines.append(f"  differs: {', '.join(one.fields)}{f' ({one.reason})' if one.reason else ''}")
        lines += [f"    {line}" for line in one.lines]
    if other.places is not None:
        equal = "" if other.differs else "the request is equal, but its place differs: "
        lines.append(f"  {equal}place: {other.places[1]} → {other.places[0]}")
    return lines
