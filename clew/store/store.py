"""A store that is open: its folder, its catalog, and content by digest."""

from __future__ import annotations

import contextlib
import operator
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from clew.store import backend, blob, catalog, chain, decoding, migrations
from clew.store.decoding import Code
from clew.store.digest import Digest, Domain, text_of
from clew.store.errors import CorruptBlob, NotFound
from clew.store.folder import Folder
from clew.store.kept import KeptConnection
from clew.store.record import RecordType
from clew.store.segment import SegmentFile
from clew.store.tensor import tensor_parts

CATALOG = "CLEW_CATALOG"
_CACHE_BYTES = 16 << 20
_PLACE = (catalog.blob.c.digest, catalog.blob.c.segment, catalog.blob.c.offset)
_by_place = operator.itemgetter(1, 2)
_DOMAIN = {
    Code.TEXT: Domain.TEXT,
    Code.ITEM: Domain.VALUE,
    Code.TENSOR: Domain.TENSOR,
}  # of a value's parts, else bytes


class Store:
    """An open store. Safe to use from several threads; close it, or use it in a `with`.

    `log` (of the process that writes, if this is it) lets content be read that no index knows yet.
    """

    def __init__(self, folder: Folder, *, catalog_url: str | None = None, create: bool = True) -> None:
        self.folder = folder
        url = catalog_url or os.environ.get(CATALOG) or None
        self.engine: Engine = backend.engine(url, folder.catalog)
        self._segments: OrderedDict[int, SegmentFile] = OrderedDict()
        self._stems: dict[int, str] = {}
        self._cache: OrderedDict[bytes, tuple[Domain, bytes]] = OrderedDict()
        self._cached = 0
        self._lock = threading.RLock()
        sqlite = self.engine.dialect.name == "sqlite"
        self._kept = KeptConnection(self.engine, folder.catalog) if sqlite else None
        if create:
            self._migrate()

    def _migrate(self) -> None:
        with self.engine.connect() as connection:
            if migrations.is_current(connection):
                return
        with backend.exclusive(self.engine, self.folder.lock, "migrate"), backend.write(self.engine) as connection:
            migrations.migrate(connection)

    def read(self) -> Connection:
        """A connection for reading; use it in a `with`."""
        return self.engine.connect()

    def write(self) -> Any:
        """A writing transaction; use it in a `with`."""
        return backend.write(self.engine)

    def row(self, statement: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of a statement with a `?` for each value: for what is asked again and again."""
        if self._kept is not None:
            with contextlib.suppress(sqlite3.Error):  # else it says below what is wrong, in clew's words
                return self._kept.row(statement, values)
        named = {f"p{at}": value for at, value in enumerate(values)}
        parts = statement.split("?")
        text = "".join([part + f":p{at}" for at, part in enumerate(parts[:-1])]) + parts[-1]
        with self.read() as connection:
            found = connection.execute(sa.text(text), named).first()
        return None if found is None else tuple(found)

    # -- content

    def blob(self, name: bytes, connection: Connection | None = None) -> tuple[Domain, bytes]:
        """Domain and bytes of a blob, verified. NotFound if the store has none, CorruptBlob if they are damaged."""
        with self._lock:
            hit = self._cache.get(name)
            if hit is not None:
                self._cache.move_to_end(name)
                return hit
            name = Digest(name)
            found = self._load(name, connection)
            self._cache[name] = found
            self._cached += len(found[1])
            while self._cached > _CACHE_BYTES and len(self._cache) > 1:
                self._cached -= len(self._cache.popitem(last=False)[1][1])
            return found

    def remember(self, blobs: Iterable[tuple[bytes, Domain, bytes]]) -> None:
        """Keep content at hand that was just read from a log (its digest is checked when it is read back)."""
        with self._lock:
            for name, domain, data in blobs:
                if name not in self._cache:
                    self._cache[name] = (domain, data)
                    self._cached += len(data)
            while self._cached > _CACHE_BYTES and len(self._cache) > 1:
                self._cached -= len(self._cache.popitem(last=False)[1][1])

    def gather(self, names: Iterable[bytes], connection: Connection) -> None:
        """Have values and their parts at hand that are about to be asked for one by one: many are looked up at once. Of
        what is not there, or damaged, `value` will tell."""
        wanted = set(names)
        while wanted:
            with self._lock:
                wanted.difference_update(self._cache)
            found: list[tuple[bytes, Domain, bytes]] = []
            places = catalog.matching(connection, _PLACE, catalog.blob.c.digest, wanted)
            for name, segment, offset in sorted(places, key=_by_place):
                with contextlib.suppress(CorruptBlob, NotFound):
                    payload = self.record(segment, offset, RecordType.BLOB, connection)
                    domain, data = Domain(payload[0]), payload[33:]
                    found.append((name, domain, blob.verified(Digest(name), domain, data)))
            self.remember(found)
            wanted = {part for _, domain, data in found if domain is Domain.VALUE for part in decoding.parts(data)}

    def _load(self, name: Digest, connection: Connection | None) -> tuple[Domain, bytes]:
        query = sa.select(catalog.blob.c.segment, catalog.blob.c.offset).where(catalog.blob.c.digest == bytes(name))
        if connection is not None:
            place = connection.execute(query).first()
        else:
            with self.engine.connect() as fresh:
                place = fresh.execute(query).first()
        if place is not None:
            payload = self.record(place[0], place[1], RecordType.BLOB, connection)
            if payload[1:33] != name:  # segments were numbered anew meanwhile (`clew doctor --rebuild`)
                self.forget_segments()
                payload = self.record(place[0], place[1], RecordType.BLOB, connection)
            domain, data = Domain(payload[0]), payload[33:]
        else:
            try:
                file = blob.read_file(self.folder.blob, name)
            except CorruptBlob:
                self.quarantine(name, blob.file_path(self.folder.blob, name).read_bytes())
                raise
            if file is None:
                raise NotFound(f"the store has no content for {name} (captured without content, or collected by gc)")
            domain, data = file
        try:
            return domain, blob.verified(name, domain, data)
        except CorruptBlob:
            self.quarantine(name, data)
            raise

    def quarantine(self, name: Digest, data: bytes) -> None:
        """Put damaged bytes aside, where nothing reads them. A store that cannot be written stays as it is."""
        try:
            self.folder.quarantine.mkdir(mode=0o700, exist_ok=True)
            (self.folder.quarantine / name.hex()).write_bytes(data)
            blob.file_path(self.folder.blob, name).unlink(missing_ok=True)
        except OSError:
            pass  # the error that follows says what is damaged

    def forget_segments(self) -> None:
        """Forget which number is which segment."""
        with self._lock:
            for file in self._segments.values():
                file.close()
            self._segments.clear()
            self._stems.clear()

    def record(self, segment: int, offset: int, expected: RecordType, connection: Connection | None = None) -> bytes:
        """The payload of the record at a place in the log. CorruptBlob if it is damaged, NotFound if its segment went."""
        with self._lock:
            frame = self.segment(segment, connection).frame(offset)
            if frame is None or frame.type != expected:
                self.forget_segments()  # were they numbered anew meanwhile?
                frame = self.segment(segment, connection).frame(offset)
            if frame is None or frame.type != expected:
                raise CorruptBlob(f"segment {self._stems[segment]} has no whole {expected.name} record at {offset}")
            return frame.payload

    def segment(self, number: int, connection: Connection | None = None) -> SegmentFile:
        """The open file of a segment."""
        with self._lock:
            file = self._segments.get(number)
            if file is None:
                if number not in self._stems:
                    query = sa.select(catalog.segment.c.id, catalog.segment.c.stem)
                    with contextlib.nullcontext(connection) if connection is not None else self.read() as reading:
                        self._stems.update((row[0], row[1]) for row in reading.execute(query))
                stem = self._stems.get(number)
                try:
                    if stem is None:
                        raise FileNotFoundError
                    file = self._segments[number] = SegmentFile(self.folder.log / stem)
                except FileNotFoundError:
                    raise NotFound(
                        f"segment {stem or number} of the log is gone (collected, or deleted by hand)"
                    ) from None
                if len(self._segments) > 32:
                    self._segments.popitem(last=False)[1].close()
            return file

    # -- values

    def text(self, name: bytes, connection: Connection | None = None) -> str:
        """A text by its digest."""
        return text_of(self.blob(name, connection)[1])

    def value(self, domain: int, name: bytes, connection: Connection | None = None) -> Any:
        """Any captured value by digest: texts, values with their parts put back in, lists, bytes, arrays."""
        match Domain(domain):
            case Domain.TEXT:
                return self.text(name, connection)
            case Domain.CHAIN:
                links = chain.links(Digest(name), lambda link: chain.parse_link(self.blob(link, connection)[1]))
                return [self.value(link.domain, link.item, connection) for link in links]
            case Domain.VALUE:
                data = self.blob(name, connection)[1]

                def resolve(code: Code, part: Digest) -> Any:
                    return self.value(_DOMAIN.get(code, Domain.BYTES), part, connection)

                return decoding.decode(data, resolve)
            case Domain.TENSOR:
                dtype, shape, elements = tensor_parts(self.blob(name, connection)[1])
                return decoding.Record("tensor", {"dtype": dtype, "shape": shape, "bytes": elements})
            case _:
                return self.blob(name, connection)[1]

    def close(self) -> None:
        """Let go of files and connections. Safe to call twice."""
        with self._lock:
            self.forget_segments()
        if self._kept is not None:
            self._kept.close()
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_store(path: str | os.PathLike[str], *, create: bool = False) -> Store:
    """The store at a path; StoreNotFound if there is none and `create` is not set."""
    return Store(Folder(Path(path), create=create))
