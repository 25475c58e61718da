"""`clew.artifact`: give something a kind and a name. Content is what identifies it; declaring only names it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from clew.lineage.index import shared
from clew.store import ref
from clew.store.digest import Digest, DigestStream, Domain
from clew.store.record import Artifact, Slot
from clew.store.vocabulary import GLOBAL_KINDS, SCOPED_KINDS
from clew.tracer import context, init
from clew.tracer.capture import Batch

KINDS = tuple(sorted((GLOBAL_KINDS | SCOPED_KINDS) - {"code", "environment"}))  # those clew captures itself
_COPIED_BYTES = 1 << 20


class Named:
    """An artifact that was declared. `digest` names its content, `name` and `version` are its ref's (None: unnamed)."""

    def __init__(self, kind: str, digest: Digest | None, name: str | None, version: int | None) -> None:
        self.kind = kind
        self.digest = digest
        self.name = name
        self.version = version

    def __repr__(self) -> str:
        label = f"{self.kind}/{self.name}@{self.version}" if self.name else self.kind
        return f"<{label} {str(self.digest)[:15]}>"


def artifact(kind: str, value: Any, name: str | None = None) -> Named:
    """Declare an artifact; with a name it becomes `KIND/NAME@N`, a new version where the content is new.

    A path (`pathlib.Path`, or the text of a path that exists) stands for the content of that file or folder: its
    digest, and for files up to 1 MB the bytes. Any other value is stored as it is. Calling again with equal content
    keeps the version. ValueError for an unknown kind.
    """
    if kind == "dataset":
        raise ValueError("a dataset is declared with clew.dataset(name, rows), which knows its rows")
    if kind not in KINDS:
        raise ValueError(f"unknown artifact kind {kind!r}; kinds are {', '.join(KINDS)}")
    if name is not None:
        ref.full_name(kind, name)
    tracer = init.ensure()
    if tracer is None:
        return Named(kind, None, name, None)
    name = tracer.gate.name(name) if name is not None else None
    batch = Batch(tracer.gate)
    around = context.enclosing()
    run_id = around.run.run_id if around is not None else tracer.process_id
    path = _path(value)
    used: list[Slot] = []
    detail: dict[str, Any] = {}
    if path is not None:
        domain, digest, used = _of_path(batch, path)
        detail = {"path": batch.inline(str(path))}
    else:
        domain, digest = batch.part(value)
    version = None
    with tracer.faults.guard("clew.artifact"):
        batch.record(Artifact(kind, int(domain), digest, run_id, name, detail, used))
        batch.commit()
        if around is not None:
            around.use(("declared", kind, (domain, digest), name))
        if name is not None:
            store, _ = shared(tracer.folder)
            version = ref.put(store, tracer.log, f"{kind}/{name}", kind, digest, run_id=run_id)
    return Named(kind, digest, name, version)


def _path(value: Any) -> Path | None:
    if isinstance(value, os.PathLike):
        return Path(value)
    if isinstance(value, str) and len(value) < 1000 and "\n" not in value and os.path.exists(value):
        return Path(value)
    return None


def _of_path(batch: Batch, path: Path) -> tuple[Domain, Digest, list[Slot]]:
    """A file is its bytes; a folder the tree of its files, by relative path."""
    if path.is_dir():
        slots, tree = [], []
        for file in sorted(one for one in path.rglob("*") if one.is_file() and not one.is_symlink()):
            digest = file_digest(batch, file)
            relative = file.relative_to(path).as_posix()
            slots.append(Slot("file", "file", int(Domain.BYTES), digest, relative))
            tree.append([relative, bytes(digest)])
        domain, digest = batch.part({"tree": tree})
        return domain, digest, slots
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a folder")
    return Domain.BYTES, file_digest(batch, path), []


def file_digest(batch: Batch, path: Path) -> Digest:
    """The digest of a file's bytes; small files are stored too. Above 1 MB only the digest."""
    if path.stat().st_size <= _COPIED_BYTES:
        data = path.read_bytes()
        clean = batch.gate.cleaner.data(data)
        if clean == data:
            return Digest(batch.data(Domain.BYTES, data))
    stream = DigestStream(Domain.BYTES)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            stream.update(piece)
    return stream.digest()
