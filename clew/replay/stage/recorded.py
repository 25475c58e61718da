"""What was recorded of a process: how it was started, the code it consisted of, the environment it ran in."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage import target
from clew.lineage.reader import Reader
from clew.store import catalog, record
from clew.store.digest import Digest, Domain
from clew.store.errors import ClewError, CorruptRecord, NotFound, NotReplayable
from clew.store.record import Artifact, RecordType, Segment
from clew.store.segment import records
from clew.tracer.code import Omission
from clew.tracer.entry import Entry
from clew.tracer.environment import Environment

Shape = TypeVar("Shape")


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a recorded tree. `digest` is of its bytes, of the redacted ones where a secret stood in it; a link has a
    target instead."""

    path: str
    size_bytes: int
    executable: bool
    digest: str | None
    link: str | None = None
    restorable: bool


class StoredCode(msgspec.Struct, frozen=True, kw_only=True):
    """The recorded tree, as `tracer.code` captured it."""

    files: list[StoredFile]
    omissions: list[Omission] = []
    source: str = ""
    modules_folder: str = "modules"
    changed_after_import: list[str] = []


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A recorded process. `root` is the folder that its code stood in, None where nothing tells; `code_digest` names
    the record of the code."""

    process_id: str
    entry: Entry
    code: StoredCode
    environment: Environment | None
    root: str | None
    code_digest: str = ""

    def relative(self, path: str) -> str | None:
        """The path within the recorded tree; None for what lies outside. The root itself is an empty text."""
        return None if self.root is None else inside(path, self.root)


def inside(path: str, root: str) -> str | None:
    """`path` relative to `root`, in which it or what it links to lies."""
    for form in (os.path.normpath(path), os.path.realpath(path)):
        if form == root:
            return ""
        if os.path.isabs(form) and form.startswith(root.rstrip(os.sep) + os.sep):
            return form[len(root.rstrip(os.sep)) + 1 :]
    return None


def recorded_process(reader: Reader, run: str | bytes) -> Recorded:
    """What is recorded of the process that a run happened in: a run's or process run's id, prefix or name.

    NotReplayable where a part of it is not in the store, NotFound for no such run.
    """
    with reader.connection() as connection:
        name = run.hex() if isinstance(run, bytes) else run
        found = target.find(connection, name)
        if found.what != "run":
            raise NotFound(f"{name!r} is not a run")
        table = catalog.run.c
        process_id = connection.execute(sa.select(table.process_id).where(table.id == found.number)).scalar_one()
        packed = connection.execute(sa.select(table.facets).where(table.run_id == process_id)).scalar()
        facets: dict[str, bytes] = msgspec.msgpack.decode(packed) if packed else {}
        entry = _facet(reader, connection, facets, "entry", Entry)
        code = _facet(reader, connection, facets, "code", StoredCode)
        try:
            environment = _facet(reader, connection, facets, "environment", Environment)
        except NotReplayable:
            environment = None  # nothing is started from it
        root = _root(reader, connection, process_id) or _shared_root(connection, facets["code"], entry)
        return Recorded(process_id.hex(), entry, code, environment, root, str(Digest(facets["code"])))


def _facet(reader: Reader, connection: Connection, facets: dict[str, bytes], name: str, shape: type[Shape]) -> Shape:
    if name not in facets:
        raise NotReplayable(
            f"the process has no record of its {name}: it ended before that was captured, or capturing failed "
            "(`clew doctor` tells). Replay in a process of your own, with `with clew.replay(run)`"
        )
    try:
        value = reader.store.value(int(Domain.VALUE), Digest(facets[name]), connection)
    except NotFound as error:
        raise NotReplayable(
            f"the record of the process's {name} is not in the store (clew.init(capture=False), or collected by gc). "
            "Replay in a process of your own, with `with clew.replay(run)`"
        ) from error
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise CorruptRecord(f"the record of the process's {name} cannot be read: {error}") from error


def _root(reader: Reader, connection: Connection, process_id: bytes) -> str | None:
    """The tree's folder, as this process itself wrote it: what the catalog knows of a tree, all with equal code share."""
    segment = catalog.segment.c
    for stem, header in connection.execute(sa.select(segment.stem, segment.header).order_by(segment.id)).all():
        wrote = record.decode(RecordType.SEGMENT, header)
        if not isinstance(wrote, Segment) or wrote.process_id != process_id:
            continue
        for frame in records(reader.folder.log / stem, RecordType.ARTIFACT):
            try:
                entry = record.decode(frame.type, frame.payload)
            except ClewError:  # damaged: another may tell
                continue
            if isinstance(entry, Artifact) and entry.kind == "code" and entry.run_id == process_id:
                return _folder(entry.detail)
    return None


def _shared_root(connection: Connection, code: bytes, entry: Entry) -> str | None:
    """A forked process has its parent's tree: the root that the catalog knows, unless the entry shows another."""
    packed = connection.execute(sa.select(catalog.node.c.detail).where(catalog.node.c.key == code)).scalar()
    root = _folder(msgspec.msgpack.decode(packed)) if packed else None
    return root if root is not None and (entry.path is None or inside(entry.path, root) is not None) else None


def _folder(detail: Any) -> str | None:
    root = detail.get("root") if isinstance(detail, dict) else None
    return root if isinstance(root, str) and os.path.isabs(root) and root == os.path.normpath(root) else None
