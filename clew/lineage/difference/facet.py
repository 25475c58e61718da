"""What two runs were made with: code, environment, entry, seeds, session, and the versions of their data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage.difference.change import ABSENT, Change, compared
from clew.lineage.difference.step import Step
from clew.store import catalog, record
from clew.store.digest import Digest, Domain
from clew.store.errors import ClewError
from clew.store.record import RecordType, Run
from clew.store.segment import records
from clew.store.store import Store

_LONG_FILE = 1 << 20  # bytes
_DATA = ("index", "file", "dataset")


class Facet:
    """One thing that runs are made with. `equal` is None where it was not captured of both."""

    def __init__(self, name: str, equal: bool | None, changes: list[Change], note: str = "") -> None:
        self.name = name
        self.equal = equal
        self.changes = changes
        self.note = note

    def __repr__(self) -> str:
        return f"<{self.name}: {'equal' if self.equal else self.changes or self.note}>"

    def to_dict(self) -> dict[str, Any]:
        """`name`, `equal` (null: not captured of both), `changes`, and a `note` where there is something to say."""
        found = {"name": self.name, "equal": self.equal, "changes": [change.to_dict() for change in self.changes]}
        return {**found, **({"note": self.note} if self.note else {})}


class Facets:
    """Reads the facets of two runs, which are rows of the catalog."""

    def __init__(self, store: Store, connection: Connection, a: Any, b: Any) -> None:
        self._store = store
        self._connection = connection
        self._runs = a, b

    def all(self, a: Iterable[Step], b: Iterable[Step]) -> list[Facet]:
        """Every facet, of runs that have these steps."""
        digests = [self._digests(row) for row in self._runs]
        found = [
            self._captured("code", digests, self._code),
            self._captured("environment", digests, _environment),
            self._entry(digests),
            self._seeds(),
            _plain("session", *(row.session for row in self._runs)),
        ]
        return [*found, _plain("data", *_data(a, b))]

    def _entry(self, digests: list[dict[str, bytes]]) -> Facet:
        if any(row.replay_of for row in self._runs):
            return Facet("entry", None, [], "a replay starts the recorded program from another folder")
        return self._captured("entry", digests, lambda one, other: list(compared("entry", "", one, other)))

    def _digests(self, row: Any) -> dict[str, bytes]:
        query = sa.select(catalog.run.c.facets).where(catalog.run.c.run_id == row.process_id)
        packed = self._connection.execute(query).scalar()
        found: dict[str, bytes] = msgspec.msgpack.decode(packed) if packed else {}
        return found

    def _captured(
        self, name: str, digests: list[dict[str, bytes]], changes: Callable[[Any, Any], list[Change]]
    ) -> Facet:
        one, other = (of.get(name) for of in digests)
        if one is None or other is None:
            which = "both runs" if one is other else "the first run" if one is None else "the second run"
            return Facet(name, None, [], f"not captured of {which}")
        if one == other:
            return Facet(name, True, [])
        try:
            values = [self._store.value(int(Domain.VALUE), digest, self._connection) for digest in (one, other)]
        except ClewError as error:
            return Facet(name, False, [], str(error))
        found = changes(*values)
        return Facet(name, not found, found)

    def _code(self, a: Any, b: Any) -> list[Change]:
        """By path: what was added, removed or changed, as text where it is text; and the commit."""
        found = list(compared("code", "git", _commit(a), _commit(b)))
        ones, others = ({file["path"]: file for file in tree["files"]} for tree in (a, b))
        for path in sorted({*ones, *others}):
            one, other = ones.get(path), others.get(path)
            if one is None or other is None or _identity(one) != _identity(other):
                found.append(Change("code", path, self._text(one), self._text(other)))
        return found

    def _text(self, file: Any) -> Any:
        """A file's text; its digest where it has none, or is long."""
        if file is None:
            return ABSENT
        name = file.get("digest")
        if name is None:
            return {"link": file.get("link")}
        digest = Digest.parse(str(name))
        if file["size_bytes"] <= _LONG_FILE:
            try:
                return bytes(self._store.value(int(Domain.BYTES), digest, self._connection)).decode()
            except (ClewError, UnicodeDecodeError):
                pass
        return digest

    def _seeds(self) -> Facet:
        found = [self._record(row) for row in self._runs]
        return _plain("seeds", *(dict(one.seeds) if one is not None else {} for one in found))

    def _record(self, row: Any) -> Run | None:
        """The run as it stands in the log; there alone are its seeds."""
        if row.root is None:
            return None
        span = catalog.span.c
        place = self._connection.execute(
            sa.select(span.end_segment, span.end_offset).where(span.id == row.root)
        ).first()
        try:
            if place is not None and place[1] is not None:  # its last record follows its span's
                for number, frame in enumerate(self._store.segment(place[0], self._connection).frames(place[1])):
                    entry = record.decode(frame.type, frame.payload) if frame.type == RecordType.RUN else None
                    if isinstance(entry, Run) and entry.run_id == row.run_id:
                        return entry
                    if number > 8:
                        break
            stem = self._connection.execute(
                sa.select(catalog.segment.c.stem).where(catalog.segment.c.id == row.segment)
            ).scalar_one()
            for frame in records(self._store.folder.log / stem, RecordType.RUN):
                entry = record.decode(frame.type, frame.payload)
                if isinstance(entry, Run) and entry.run_id == row.run_id:
                    return entry
        except ClewError:
            pass
        return None


def _identity(file: Any) -> tuple[Any, ...]:
    return file.get("digest"), file.get("link"), file.get("executable")


def _commit(tree: Any) -> Any:
    git = tree.get("git") or {}
    return {key: git[key] for key in ("commit", "dirty") if key in git}


def _environment(a: Any, b: Any) -> list[Change]:
    """Distributions by name, the rest as it is."""
    named = [
        {**one, "distributions": {each["name"]: _version(each) for each in one["distributions"]}} for one in (a, b)
    ]
    return list(compared("environment", "", *named))


def _version(distribution: Any) -> str:
    source = distribution.get("source") or (distribution.get("digest") or "")[:15]
    return f"{distribution['version']}{f' ({source})' if source else ''}"


def _plain(name: str, a: Any, b: Any) -> Facet:
    found = list(compared(name, "" if isinstance(a, dict) and isinstance(b, dict) else name, a, b))
    return Facet(name, not found, found)


def _data(a: Iterable[Step], b: Iterable[Step]) -> tuple[dict[str, str], dict[str, str]]:
    """Indexes, files and datasets that the steps of two runs used: name -> digests. What only ids tell apart that were made
    anew goes by the first run's digest in both."""
    ones, others = _versions(a), _versions(b)
    for name, versions in others.items():
        known = ones.get(name, {})
        versions.update((print_, known[print_]) for print_ in versions if print_ in known)
    return _joined(ones), _joined(others)


def _versions(steps: Iterable[Step]) -> dict[str, dict[bytes, str]]:
    """Name -> fingerprint -> digest."""
    found: dict[str, dict[bytes, str]] = {}
    for step in steps:
        for part in step.used:
            if part.kind in _DATA and part.domain:
                name = (part.name or part.role).rpartition("/")[2]  # wherever it lies
                found.setdefault(f"{part.kind} {name}", {}).setdefault(part.print, str(Digest(part.digest)))
    return found


def _joined(versions: dict[str, dict[bytes, str]]) -> dict[str, str]:
    return {name: " ".join(sorted(digests.values())) for name, digests in sorted(versions.items())}
