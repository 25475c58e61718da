"""Laying out a recorded code tree in a fresh folder, so that the program can run from it.

Every path comes from data. All are checked before the first byte is written: none is absolute or leads upwards, no file
lies below a link, and a link leads upwards at its beginning only and never out of the tree. Files are made anew, never
opened; links come last.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection

from clew.lineage.reader import Reader
from clew.replay.stage.beside import lend
from clew.replay.stage.original import Originals, file_digest, opened
from clew.replay.stage.recorded import Recorded, StoredCode, StoredFile, recorded_process
from clew.store.digest import Digest, Domain
from clew.store.errors import CorruptBlob, CorruptRecord, NotFound, StoreUnwritable
from clew.tracer.code import CONTENT_LIMIT_BYTES

NOTES = "unrecorded.jsonl"


@dataclasses.dataclass(frozen=True)
class Missing:
    """A file of the recorded tree that could not be laid out, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Laid:
    """Code to run. `root` takes the place of the recorded root; `modules` holds what was imported from outside it.

    `copied` were not in the store and are the recorded place's, digest checked; `missing` are nowhere. `omitted` were not
    recorded in the first place; of those, `lent` are linked from the recorded place, as they are today. `notes` is where the program writes what it imports beside the record; None for a
    working tree, which is no record.
    """

    root: Path
    modules: Path | None = None
    written: int = 0
    copied: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    omitted: tuple[Missing, ...] = ()
    lent: tuple[str, ...] = ()
    notes: Path | None = None

    @property
    def recorded(self) -> bool:
        """Whether it is the recorded code, or a working tree."""
        return self.notes is not None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        return {
            "root": str(self.root),
            "recorded": self.recorded,
            "written": self.written,
            "copied": list(self.copied),
            "missing": [one.to_dict() for one in self.missing],
            "omitted": [one.to_dict() for one in self.omitted],
            "lent": list(self.lent),
        }


def lay_out(reader: Reader, process: Recorded | str | bytes, folder: str | os.PathLike[str]) -> Laid:
    """Write the code tree of a recorded process into `folder`, which is empty or not there yet; it is made 0700.

    ValueError for a folder that holds something, CorruptRecord for a record whose paths lead out of the tree (nothing
    is written then), StoreUnwritable where there is no room.
    """
    recorded = process if isinstance(process, Recorded) else recorded_process(reader, process)
    code = recorded.code
    check(code)
    top = _fresh(Path(folder))
    root = top / _name(recorded.root)
    try:
        root.mkdir(mode=0o700)
        with reader.connection() as connection:
            writer = _Writer(reader, connection, recorded, root)
            for file in code.files:
                if file.link is None:
                    writer.file(file)
        for file in code.files:
            if file.link is not None:
                writer.link(file)
        modules = root / code.modules_folder
        return Laid(
            root=root,
            modules=modules if modules.is_dir() else None,
            written=writer.written,
            copied=tuple(writer.copied),
            missing=tuple(writer.missing),
            lent=tuple(lend(root, recorded.root, {file.path for file in code.files}, reader.folder.path)),
            omitted=tuple(
                Missing(one.path, one.reason if one.count == 1 else f"{one.reason} ({one.count} files)")
                for one in code.omissions
            ),
            notes=top / NOTES,
        )
    except OSError as error:
        raise StoreUnwritable(f"cannot lay out the recorded code in {top}: {error.strerror or error}") from error


def check(code: StoredCode) -> None:
    """CorruptRecord for a tree with a path that leaves it, or lies below a file or a link."""
    leaves: set[str] = set()
    for file in code.files:
        _check_path(file.path)
        if file.path in leaves:
            raise CorruptRecord(f"the code record names {file.path!r} twice; nothing was laid out")
        leaves.add(file.path)
    for file in code.files:
        for folder in _folders(file.path):
            if folder in leaves:
                raise CorruptRecord(
                    f"the code record has {file.path!r} below {folder!r}, which is no folder; nothing was laid out"
                )
        if file.link is not None:
            _check_link(file.path, file.link)
    if "/" in code.modules_folder:
        raise CorruptRecord(f"the code record's modules are at {code.modules_folder!r}; nothing was laid out")
    _check_path(code.modules_folder)


def _check_path(path: str) -> None:
    parts = path.split("/")
    if not path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise CorruptRecord(f"the code record names {path!r}, which is no path inside a tree; nothing was laid out")


def _check_link(path: str, link: str) -> None:
    """A link whose every way up is at its beginning stays inside, whatever other such links it passes."""
    parts = link.split("/")
    down = [part for part in parts if part != ".."]
    up = len(parts) - len(down)
    plain = link == "." or not any(part in ("", ".") for part in parts)
    if not plain or "\0" in link or parts[:up] != [".."] * up or up > path.count("/"):
        raise CorruptRecord(
            f"the code record has a link {path!r} to {link!r}, which leads out of its tree; nothing was laid out"
        )


def _folders(path: str) -> Iterable[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _fresh(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ValueError(f"{folder} holds something already; name an empty folder to lay the recorded code out in")
        folder.chmod(0o700)
        return folder.resolve()
    except OSError as error:
        raise StoreUnwritable(f"cannot make {folder} to lay out the recorded code: {error.strerror}") from error


def _name(root: str | None) -> str:
    """The root's own name, which a program may look at; a plain one where that is none, or not ours to make."""
    name = os.path.basename(root or "")
    return name if name and name not in (".", "..", NOTES) and "\0" not in name else "code"


class _Writer:
    def __init__(self, reader: Reader, connection: Connection, recorded: Recorded, root: Path) -> None:
        self._store = reader.store
        self._originals = Originals(reader)
        self._connection = connection
        self._recorded = recorded
        self._root = root
        self.written = 0
        self.copied: list[str] = []
        self.missing: list[Missing] = []

    def file(self, file: StoredFile) -> None:
        """Write a file as it was; else note what is in the way."""
        place = self._root / file.path
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content, reason = self._content(file)
        if content is None:
            if self._copy(file, place):
                self.copied.append(file.path)
                self.written += 1
            else:
                self.missing.append(Missing(file.path, reason))
            return
        with open(_created(place, file.executable), "wb") as made:
            made.write(content)
        self.written += 1

    def link(self, file: StoredFile) -> None:
        """Make a link. It was checked, and is looked at once more as it stands."""
        assert file.link is not None
        place = self._root / file.path
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.symlink_to(file.link)
        leads = os.path.realpath(place)
        if leads != str(self._root) and not leads.startswith(f"{self._root}{os.sep}"):
            place.unlink()
            raise CorruptRecord(f"the recorded link {file.path!r} to {file.link!r} leads out of its tree")
        self.written += 1

    def _content(self, file: StoredFile) -> tuple[bytes | None, str]:
        if not file.restorable:
            large = file.size_bytes > CONTENT_LIMIT_BYTES
            return (
                None,
                f"over {CONTENT_LIMIT_BYTES // 1_000_000} MB, kept by digest alone" if large else "held a secret",
            )
        try:
            domain, content = self._store.blob(Digest.parse(file.digest or ""), self._connection)
        except (NotFound, CorruptBlob) as error:
            return None, str(error)
        except ValueError as error:
            raise CorruptRecord(f"the code record names {file.path!r} by {file.digest!r}: {error}") from error
        return (content, "") if domain is Domain.BYTES else (None, f"its content is stored as {domain.name.lower()}")

    def _copy(self, file: StoredFile, place: Path) -> bool:
        """Take the file from where it was recorded, if it is still the same."""
        if self._recorded.root is None or file.path.startswith(f"{self._recorded.code.modules_folder}/"):
            return False  # where a module from outside the root stood is not recorded
        source = opened(os.path.join(self._recorded.root, file.path))
        if source is None:
            return False
        try:
            if not file.restorable and file.size_bytes <= CONTENT_LIMIT_BYTES:
                content = self._originals.redacted_content(source, file)
                if content is None:
                    return False
                with open(_created(place, file.executable), "wb") as made:
                    made.write(content)
                return True
            with open(_created(place, file.executable), "wb+") as made:
                with open(source, "rb", closefd=False) as read:
                    shutil.copyfileobj(read, made)
                made.flush()
                made.seek(0)
                if file_digest(made.fileno()) == file.digest:
                    return True
            place.unlink()
            return False
        finally:
            os.close(source)


def _created(place: Path, executable: bool) -> int:
    mode = 0o700 if executable else 0o600
    return os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
