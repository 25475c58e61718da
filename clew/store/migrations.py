"""Named migrations of the catalog, applied in order, each once.

A migration is a function of a connection. The catalog is an index that can be made again from the logs, so a migration
that would be hard to write may drop what it cannot convert and set `segment.indexed` back to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.store import catalog


def m001_first_tables(connection: Connection) -> None:
    """All tables but those of later migrations."""
    later = (catalog.migration, *_ACTIONS, catalog.answer)
    catalog.metadata.create_all(connection, tables=[one for one in catalog.metadata.sorted_tables if one not in later])


def m002_actions(connection: Connection) -> None:
    """What was asked before, what its keys were made of, and what was asked of it."""
    catalog.metadata.create_all(connection, tables=list(_ACTIONS))


def m003_answers(connection: Connection) -> None:
    """Where the log says what runs were answered."""
    catalog.metadata.create_all(connection, tables=[catalog.answer])


def m004_replays(connection: Connection) -> None:
    """Which run a run replays."""
    if "replay_of" not in {column["name"] for column in sa.inspect(connection).get_columns("run")}:
        kind = catalog.run.c.replay_of.type.compile(connection.dialect)
        connection.execute(sa.text(f"ALTER TABLE run ADD COLUMN replay_of {kind}"))


_ACTIONS = (catalog.action, catalog.action_field, catalog.action_use)
MIGRATIONS: list[Callable[[Connection], None]] = [m001_first_tables, m002_actions, m003_answers, m004_replays]


def migrate(connection: Connection) -> list[str]:
    """Apply what is missing; returns the names that were applied."""
    catalog.metadata.create_all(connection, tables=[catalog.migration])
    done = set(connection.execute(sa.select(catalog.migration.c.name)).scalars())
    applied = []
    for step in MIGRATIONS:
        if step.__name__ not in done:
            step(connection)
            connection.execute(sa.insert(catalog.migration).values(name=step.__name__, applied_ns=time.time_ns()))
            applied.append(step.__name__)
    return applied


def is_current(connection: Connection) -> bool:
    """Whether nothing is missing. Writes nothing."""
    if not sa.inspect(connection).has_table("migration"):
        return False
    done = set(connection.execute(sa.select(catalog.migration.c.name)).scalars())
    return {step.__name__ for step in MIGRATIONS} <= done
