"""What a user names: a run, span, digest, ref, row or file, in full or by any unique prefix."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.store import catalog
from clew.store.digest import DigestStream, Domain, text_digest
from clew.store.errors import Ambiguous, NotFound

_ROW = re.compile(r"(?P<name>[^\[]+)\[(?P<row>.+)\]")
_FEW = 8  # rows that are named


class Target(NamedTuple):
    """What was found: `what` is "run", "span" or "node"; `number` its id in that table."""

    what: str
    number: int


def find(connection: Connection, name: Any) -> Target:
    """The thing that `name` names. NotFound says what was close; Ambiguous lists what fits."""
    if getattr(name, "id", name) is None and hasattr(name, "output"):
        raise NotFound(f"{name!r} was not recorded: it was not entered, or clew is switched off")
    text = str(getattr(name, "id", None) or getattr(name, "run_id", None) or getattr(name, "digest", None) or name)
    found = (
        _ref(connection, text)
        or _hex(connection, text)
        or _run_name(connection, text)
        or _file(connection, text)
        or _node_name(connection, text)
    )
    if found is None:
        raise NotFound(f"nothing in this store is named {text!r}{_close(connection, text)}")
    return found


def _ref(connection: Connection, text: str) -> Target | None:
    row = _ROW.fullmatch(text)
    name = row["name"] if row else text
    base, at, version = name.partition("@")
    history = catalog.ref_history
    for full in (base, f"dataset/{base}", f"model/{base}", f"index/{base}", f"prompt/{base}", f"value/{base}"):
        query = sa.select(history.c.digest).where(history.c.name == full)
        if at and version.isdigit():
            query = query.where(history.c.version == int(version))
        elif at:
            query = sa.select(history.c.digest).where(history.c.name == name)
        digest = connection.execute(query.order_by(history.c.version.desc()).limit(1)).scalar()
        if digest is None:
            continue
        node = connection.execute(sa.select(catalog.node.c.id).where(catalog.node.c.key == digest)).scalar()
        if node is None:
            continue
        return Target("node", node if row is None else _row(connection, node, name, row["row"]))
    return None


def _row(connection: Connection, dataset: int, name: str, row: str) -> int:
    """A row of a dataset, by its position or by a text that stands in it alone, such as its id."""
    member, leaf = catalog.member, catalog.leaf
    rows = sa.select(member.c.node, member.c.position).where(member.c.container == dataset)
    if row.isdecimal() and row.isascii():
        rows = rows.where(member.c.position == int(row))
    else:
        rows = rows.join(leaf, leaf.c.node == member.c.node).where(leaf.c.text == bytes(text_digest(row)))
    found: dict[int, int] = {one[0]: one[1] for one in connection.execute(rows.limit(_FEW))}
    if len(found) > 1:
        fits = ", ".join(f"{name}[{position}]" for position in sorted(found.values()))
        raise Ambiguous(f"{row!r} stands in several rows: {fits}{' and more' if len(found) == _FEW else ''}")
    if not found:
        raise NotFound(f"{name} has no row {row}")
    return next(iter(found))


def _hex(connection: Connection, text: str) -> Target | None:
    digits = text.removeprefix("b3:").lower().replace("-", "")
    if len(digits) < 4 or re.fullmatch(r"[0-9a-f]+", digits) is None:
        return None
    low = bytes.fromhex(digits + "0" * (len(digits) % 2))
    matches: list[tuple[Target, str]] = []
    for what, number, column, width in (
        ("run", catalog.run.c.id, catalog.run.c.run_id, 16),
        ("span", catalog.span.c.id, catalog.span.c.span_id, 8),
        ("node", catalog.node.c.id, catalog.node.c.key, 32),
    ):
        if len(digits) > 2 * width or (text.startswith("b3:") and what != "node"):
            continue
        high = low[: len(digits) // 2] + bytes((low[-1] | 15,)) if len(digits) % 2 else low
        upper = high + b"\xff" * (width - len(high) + 1)
        query = sa.select(number, column).where(column >= low, column <= upper).limit(20)
        for found, key in connection.execute(query):
            if len(key) == width and key.hex().startswith(digits):
                matches.append((Target(what, found), f"{what} {key.hex()}"))
    if len({target for target, _ in matches}) > 1:
        exact = [target for target, label in matches if label.endswith(" " + digits)]
        if len(exact) == 1:
            return exact[0]
        raise Ambiguous(f"{text!r} fits {len(matches)} things: " + ", ".join(label for _, label in matches[:8]))
    return matches[0][0] if matches else None


def _run_name(connection: Connection, text: str) -> Target | None:
    """The newest run of this name; a replay only where there is none but replays."""
    run = catalog.run.c
    process = catalog.run.alias()  # a run that was killed does not say itself that it was a replay's
    query = sa.select(run.id).join_from(catalog.run, process, process.c.run_id == run.process_id, isouter=True)
    query = query.where(run.name == text, run.root.isnot(None))
    original = sa.case((sa.or_(run.replay_of.isnot(None), process.c.replay_of.isnot(None)), 1), else_=0)
    query = query.order_by(original, run.started_ns.desc()).limit(1)
    number = connection.execute(query).scalar()
    return Target("run", number) if number is not None else None


def _file(connection: Connection, text: str) -> Target | None:
    path = Path(text)
    try:
        if not path.is_file():
            return None
        stream = DigestStream(Domain.BYTES)
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                stream.update(piece)
    except OSError:
        return None
    number = connection.execute(
        sa.select(catalog.node.c.id).where(catalog.node.c.key == bytes(stream.digest()))
    ).scalar()
    if number is not None:
        return Target("node", number)
    try:
        name = text_digest(path.read_text())
    except (OSError, UnicodeDecodeError):
        return None
    leaf = connection.execute(
        sa.select(catalog.leaf.c.node).where(catalog.leaf.c.text == bytes(name)).limit(1)
    ).scalar()
    return Target("node", leaf) if leaf is not None else None


def _node_name(connection: Connection, text: str) -> Target | None:
    rows = connection.execute(sa.select(catalog.node.c.id).where(catalog.node.c.name == text).limit(2)).scalars().all()
    if len(rows) > 1:
        raise Ambiguous(f"{text!r} names several artifacts; use a digest or a version")
    return Target("node", rows[0]) if rows else None


def _close(connection: Connection, text: str) -> str:
    names = list(connection.execute(sa.select(catalog.ref.c.name)).scalars())
    recent = sa.select(catalog.run.c.name).where(catalog.run.c.root.isnot(None))
    names += list(connection.execute(recent.order_by(catalog.run.c.started_ns.desc()).limit(500)).scalars())
    ids = sa.select(catalog.run.c.run_id).order_by(catalog.run.c.started_ns.desc()).limit(500)
    names += [run_id.hex() for run_id in connection.execute(ids).scalars()]
    near = difflib.get_close_matches(text, dict.fromkeys(names), n=3, cutoff=0.5)
    return f"; close: {', '.join(near)}" if near else "; `clew runs` and `clew refs` list what there is"
