"""The catalog made again from the logs alone, refs included: `clew doctor --rebuild`.

Nothing but the logs is read, so whatever is wrong with the catalog is gone afterwards. Refs go in first, in the very
transaction that empties the catalog: a process that names an artifact meanwhile still gets the next free version.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from clew.lineage import index
from clew.lineage.index import Indexer
from clew.store import backend, catalog, migrations, record, ref, segment
from clew.store.errors import StoreError
from clew.store.folder import Folder
from clew.store.record import RecordType, Ref
from clew.store.segment import SegmentFile
from clew.store.store import Store


def rebuild(folder: Folder) -> int:
    """Make the catalog of a store again; returns how many records were read. Processes that query meanwhile wait.

    A catalog in a database is emptied and filled again in place; a SQLite file that cannot be read is deleted first.
    """
    index.forget(folder)
    store = Store(folder, create=False)
    try:
        with (
            backend.exclusive(store.engine, folder.lock, "index"),
            backend.exclusive(store.engine, folder.lock, "migrate"),
        ):
            if not is_sound(store.engine):
                discard(folder.catalog)
            stems = segment.stems(folder.log)
            with store.write() as connection:
                catalog.metadata.drop_all(connection)
                migrations.migrate(connection)
                _refs(connection, stems)
            count = Indexer(store).catch_up(stems)
        backend.shrink(store.engine)
        return count
    finally:
        store.close()


def is_sound(engine: Engine) -> bool:
    """Whether the database says that it is whole (SQLite's own check; others are trusted)."""
    if engine.dialect.name != "sqlite":
        return True
    try:
        with engine.connect() as connection:
            return connection.execute(sa.text("PRAGMA quick_check(1)")).scalar() == "ok"
    except StoreError:
        return False


def discard(path: Path) -> None:
    """Delete a SQLite database that cannot be used."""
    for suffix in ("-wal", "-shm", "-journal", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _refs(connection: Connection, stems: list[Path]) -> None:
    for stem in stems:
        try:
            file = SegmentFile(stem)
        except FileNotFoundError:
            continue
        try:
            for frame in file.frames():
                if frame.type == RecordType.REF:
                    entry = record.decode(frame.type, frame.payload)
                    assert isinstance(entry, Ref)
                    ref.recorded(connection, entry)
        finally:
            file.close()
