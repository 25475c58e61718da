"""Refs: mutable names for artifacts, with append-only history.

A version number is arbitrated by a transaction of the catalog, then logged, so that the logs alone can make it again.
"""

from __future__ import annotations

import getpass
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.store import backend, catalog
from clew.store.digest import Digest
from clew.store.errors import NotFound
from clew.store.log import Log
from clew.store.record import Ref
from clew.store.store import Store


def check_name(name: str) -> str:
    """`name`, if it may be a ref's; ValueError if not."""
    if not name or len(name) > 400 or not name.isprintable():
        raise ValueError(f"a ref name has 1 to 400 printable characters on one line, this one is {name[:80]!r}")
    return name


def full_name(kind: str, name: str) -> str:
    """`KIND/NAME`, for a name that a program gives to an artifact. TypeError or ValueError if it may be none."""
    if not isinstance(name, str):
        raise TypeError(f"an artifact is named by a text, not by {type(name).__name__}")
    if "@" in name:
        raise ValueError(f"the name {name[:80]!r} holds an @, which stands before a version, as in {kind}/docs@3")
    return check_name(name and f"{kind}/{name}")


def put(
    store: Store, log: Log, name: str, kind: str, digest: Digest, *, run_id: bytes = b"", alias: bool = False
) -> int:
    """Name an artifact; returns the version. The digest that a name has already keeps its version."""
    check_name(name)
    history, current = catalog.ref_history, catalog.ref
    now = time.time_ns()
    with store.write() as connection:
        backend.serialize(connection, f"ref {name}")
        row = connection.execute(sa.select(current.c.version, current.c.digest).where(current.c.name == name)).first()
        top = connection.execute(sa.select(sa.func.max(history.c.version)).where(history.c.name == name)).scalar() or 0
        if row is not None and row.digest == bytes(digest):
            return int(row.version)
        version = top + 1
        connection.execute(sa.delete(current).where(current.c.name == name))
        values: dict[str, Any] = {
            "name": name, "version": version, "kind": kind, "digest": bytes(digest), "alias": alias
        }  # fmt: skip
        connection.execute(sa.insert(current).values(**values))
        connection.execute(sa.insert(history).values(**values, when_ns=now, who=_who()))
    log.append_record(Ref(name, version, kind, digest, now, _who(), run_id, alias))
    log.sync()
    return version


def recorded(connection: Connection, entry: Ref) -> None:
    """Put a ref's record, read from a log, into the catalog. Again changes nothing; the highest version is current."""
    history, current = catalog.ref_history, catalog.ref
    named = (entry.name, entry.version, entry.kind, bytes(entry.digest))
    columns = ("name", "version", "kind", "digest")  # in the table's order: so the statement has them
    row = (*named, entry.when_ns, entry.who, entry.alias)
    catalog.insert(connection, history, (*columns, "when_ns", "who", "alias"), [row])
    connection.execute(sa.delete(current).where(current.c.name == entry.name, current.c.version < entry.version))
    catalog.insert(connection, current, (*columns, "alias"), [(*named, entry.alias)])


def listing(store: Store) -> list[dict[str, Any]]:
    """Every ref as it stands now: name, version, kind, digest, when (ns) and by whom."""
    history, current = catalog.ref_history, catalog.ref
    query = (
        sa.select(current, history.c.when_ns, history.c.who)
        .join(history, (history.c.name == current.c.name) & (history.c.version == current.c.version))
        .order_by(current.c.name)
    )
    with store.read() as connection:
        return [_shown(row) for row in connection.execute(query)]


def history_of(store: Store, name: str) -> list[dict[str, Any]]:
    """Every version a ref had, oldest first. NotFound for a name that was never given."""
    history = catalog.ref_history
    with store.read() as connection:
        rows = connection.execute(sa.select(history).where(history.c.name == name).order_by(history.c.version))
        found = [_shown(row) for row in rows]
    if not found:
        raise NotFound(f"no ref {name!r}; `clew refs` lists them")
    return found


def _shown(row: Any) -> dict[str, Any]:
    return {
        "name": row.name,
        "version": row.version,
        "kind": row.kind,
        "digest": str(Digest(row.digest)),
        "when_ns": row.when_ns,
        "who": row.who,
    }


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container user without a name
        return "unknown"
