"""What runs asked and were answered: where the log says it, by run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.engine import Connection

from clew.store import catalog, record
from clew.store.catalog import bound
from clew.store.record import Answer, RecordType
from clew.store.store import Store

_PLACE = (catalog.answer.c.segment, catalog.answer.c.offset)


def insert(connection: Connection, segment: int, offset: int, entry: Answer) -> None:
    """The row of an answer that stands at this place in the log."""
    rows: list[tuple[Any, ...]] = [(segment, offset, bound(entry.run_id))]
    catalog.insert(connection, catalog.answer, ("segment", "offset", "run_id"), rows)


def of_runs(store: Store, connection: Connection, run_ids: Iterable[bytes]) -> list[Answer]:
    """All that these runs asked, in the order in which the log has it. Raises ClewError for what is lost or damaged."""
    found = []
    places = [tuple(row) for row in catalog.matching(connection, _PLACE, catalog.answer.c.run_id, run_ids)]
    for segment, offset in sorted(places):
        entry = record.decode(RecordType.ANSWER, store.record(segment, offset, RecordType.ANSWER, connection))
        assert isinstance(entry, Answer)
        found.append(entry)
    return found


def content(store: Store, entry: Answer) -> bytes:
    """What was answered, as bytes. ClewError where a long answer is lost or damaged."""
    return store.blob(entry.blob)[1] if entry.blob else entry.answer
