"""The store's folder: its layout and its permissions.

.clew/                    0700, ignored by git
  catalog.sqlite          the index, can be made again from log/
  log/*.log, *.zlog       segments: open and sealed
  blob/ab/<hex>           blobs above 1 MB, one file each
  quarantine/             what failed verification
  lock/                   advisory locks
  hot/                    what a shared cache has, once more; may be deleted
  redaction.key           0600, never exported
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Self

from clew.store.errors import StoreFormatError, StoreNotFound, StoreUnwritable

FORMAT = 1
_MARK = "clew store\n"


class Folder:
    """Paths inside one store. `create` makes what is missing; opening an existing store writes nothing."""

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        self.path = Path(path).absolute()
        self.log = self.path / "log"
        self.blob = self.path / "blob"
        self.lock = self.path / "lock"
        self.hot = self.path / "hot"
        self.quarantine = self.path / "quarantine"
        self.catalog = self.path / "catalog.sqlite"
        self._format = self.path / "FORMAT"
        if create:
            self._create()
        if not self._format.is_file():
            found = (
                "a folder that is not a store" if self.path.is_dir() else "a file" if self.path.exists() else "nothing"
            )
            raise StoreNotFound(
                f"no clew store at {self.path} (found {found}); clew.init(store=...) or CLEW_STORE names another"
            )
        self._check_format()

    def _create(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._format.exists():
                foreign = [name for name in os.listdir(self.path) if not name.startswith(".")]
                if foreign and not {"log", "catalog.sqlite", "redaction.key"} & set(foreign):
                    raise StoreFormatError(f"{self.path} holds other files ({foreign[0]}, ...); name an empty folder")
                os.chmod(self.path, 0o700)
                _write_new(self.path / ".gitignore", "*\n", 0o600)
                for folder in (self.log, self.blob, self.lock):
                    folder.mkdir(mode=0o700, exist_ok=True)
                _write_new(self._format, f"{_MARK}{FORMAT}\n", 0o600)
        except OSError as error:
            raise StoreUnwritable(f"cannot make a store at {self.path}: {error.strerror}") from error

    def _check_format(self) -> None:
        text = self._format.read_text(errors="replace")
        number = text.removeprefix(_MARK).strip()
        if not text.startswith(_MARK) or not number.isdecimal():
            raise StoreFormatError(f"{self._format} is not a clew store's: {text[:40]!r}")
        if int(number) > FORMAT:
            raise StoreFormatError(f"{self.path} was made by a newer clew (format {number}, this reads {FORMAT})")

    @property
    def writable(self) -> bool:
        """Whether this process may write here; a full disk is not noticed."""
        return os.access(self.path, os.W_OK)

    def aside(self) -> Self:
        """The same store, with a catalog of its own in a temporary folder: for reading one that cannot be written.

        The catalog is copied, so that only what is not indexed yet is read again; it goes when this object does.
        """
        made = type(self)(self.path)
        try:
            made.lock = made.quarantine = Path(tempfile.mkdtemp(prefix="clew-"))
            weakref.finalize(made, shutil.rmtree, made.lock, ignore_errors=True)
            made.catalog = made.lock / self.catalog.name
            for suffix in ("", "-wal"):
                source = self.catalog.with_name(self.catalog.name + suffix)
                if source.exists():
                    shutil.copyfile(source, made.lock / source.name)
        except OSError as error:
            raise StoreUnwritable(
                f"{self.path} cannot be written, and a copy of its catalog neither: {error.strerror}"
            ) from error
        return made

    def redaction_key(self) -> bytes:
        """The store's own key for redaction placeholders; made on first use, readable by the owner alone."""
        path = self.path / "redaction.key"
        try:
            _write_new(path, secrets.token_bytes(32).hex(), 0o600)
        except OSError:
            if not path.exists():  # a read-only store: placeholders of this process alone
                return secrets.token_bytes(32)
        text = path.read_text(errors="replace")
        try:
            key = bytes.fromhex(text)
        except ValueError:
            key = b""
        if len(key) != 32:
            raise StoreFormatError(f"{path} is no key (64 hex digits); put back a copy, or move it away for a new one")
        return key

    def size_bytes(self) -> dict[str, int]:
        """Bytes on disk by part: "catalog", "log", "blob", "other"."""
        sizes = {"catalog": 0, "log": 0, "blob": 0, "other": 0}
        for root, _, files in os.walk(self.path):
            top = Path(root).relative_to(self.path).parts[:1]
            for name in files:
                part = top[0] if top and top[0] in sizes else "catalog" if name.startswith("catalog.") else "other"
                try:
                    sizes[part] += os.stat(os.path.join(root, name)).st_size
                except FileNotFoundError:  # sealed or checkpointed meanwhile
                    continue
        return sizes


def _write_new(path: Path, text: str, mode: int) -> None:
    """Write a file that did not exist, whole or not at all; keeps one that does."""
    if path.exists():
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)


_written: list[tuple[Path, Callable[[], object]]] = []


def writing_to(path: Path | None, settle: Callable[[], object] = lambda: None) -> None:
    """Say which store this process writes to, which its queries mean when they name none; None forgets it.

    `settle` is called before this process reads that store: what it still captures then comes first.
    """
    _written[:] = [(path, settle)] if path is not None else []


def store_written_here() -> Path | None:
    """The store that this process writes to, if it does."""
    return _written[0][0] if _written else None


def settle(path: Path) -> None:
    """Wait for what this process is still about to write to the store at `path`."""
    for written, wait in _written:
        if written == path:
            wait()
