"""Files as they are now, compared with what was recorded of them."""

from __future__ import annotations

import os
import stat
from functools import cached_property

from clew.lineage.reader import Reader
from clew.replay.stage.recorded import StoredFile
from clew.store.digest import DigestStream, Domain, digest
from clew.tracer.code import CONTENT_LIMIT_BYTES
from clew.tracer.redaction import Redactor
from clew.tracer.secret import default_registry

_PIECE_BYTES = 1 << 20


class Originals:
    """Compares the files of this machine with those of a store's records."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @cached_property
    def _redactor(self) -> Redactor:
        return Redactor(self._reader.folder.redaction_key(), secrets=default_registry())

    def is_same(self, file: StoredFile, path: str) -> bool:
        """Whether the file at `path` is the recorded one: of its bytes, or for a link of its target."""
        if file.link is not None:
            return os.path.islink(path) and _link(path) == file.link
        found = opened(path)
        if found is None:
            return False
        try:
            if not file.restorable and file.size_bytes <= CONTENT_LIMIT_BYTES:
                return self.redacted_content(found, file) is not None
            return file_digest(found) == file.digest
        finally:
            os.close(found)

    def redacted_content(self, descriptor: int, file: StoredFile) -> bytes | None:
        """The bytes of an open file that the record holds redacted, secrets and all; None if it is another file.

        A file in which nothing is redacted was put back from the store, placeholders for secrets.
        """
        if os.fstat(descriptor).st_size != file.size_bytes:
            return None
        content = b"".join(iter(lambda: os.read(descriptor, _PIECE_BYTES), b""))
        clean = self._redactor.data(content)
        return content if clean != content and str(digest(Domain.BYTES, clean)) == file.digest else None


def opened(path: str) -> int | None:
    """A descriptor of a regular file, not followed if it is a link; None if there is none to read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def file_digest(descriptor: int) -> str:
    """The digest of an open file's bytes from where it stands."""
    stream = DigestStream(Domain.BYTES)
    while piece := os.read(descriptor, _PIECE_BYTES):
        stream.update(piece)
    return str(stream.digest())


def _link(path: str) -> str | None:
    """Where a link leads, relative to its folder, as records say it."""
    folder = os.path.realpath(os.path.dirname(path))
    return os.path.relpath(os.path.realpath(path), folder).replace(os.sep, "/")
