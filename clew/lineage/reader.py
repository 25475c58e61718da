"""`clew.open`: a store to read. Every query first catches up with every log, so it misses nothing that was finished."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clew.lineage import index, target
from clew.lineage.view import RunView, SpanView, run_views, span_views
from clew.store import catalog
from clew.store.digest import Digest, Domain
from clew.store.errors import NotFound
from clew.store.folder import Folder, settle, store_written_here
from clew.store.store import Store

STORE = "CLEW_STORE"
DEFAULT_STORE = ".clew"


def default_folder(path: str | os.PathLike[str] | None = None) -> Folder:
    """The store's folder: `path`, else the variable CLEW_STORE, else `./.clew`. StoreNotFound if no store is there."""
    return Folder(Path(path or os.environ.get(STORE) or DEFAULT_STORE).expanduser())


class Reader:
    """An open store: `.runs() .spans() .artifact(digest) .why(x) .impact(x)`. Use it in a `with`, or `close` it."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        folder = default_folder(path)
        self.folder = folder if folder.writable else folder.aside()
        self._store, _ = index.shared(self.folder)

    def __repr__(self) -> str:
        return f"<clew store {self.folder.path}>"

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """A reading transaction over a catalog that has caught up."""
        settle(self.folder.path)
        index.index_store(self.folder)
        with self._store.read() as connection:
            yield connection

    @property
    def store(self) -> Store:
        """The store beneath."""
        return self._store

    def runs(self, *, limit: int | None = None, all: bool = False, used: list[str] | None = None) -> list[RunView]:  # noqa: A002
        """Runs, newest first; with `all`, process runs and runs inside runs too. `used`: only those whose answer's
        lineage holds every one of these artifacts."""
        with self.connection() as connection:
            found = run_views(self._store, connection, everything=all)
            if used:
                from clew.lineage.impact import runs_using

                keep = runs_using(self._store, connection, used)
                found = [run for run in found if run.run_id in keep]
            return found[:limit] if limit is not None else found

    def spans(self, run: Any = None) -> list[SpanView]:
        """Spans in the order they began; of one run (and runs inside it) if one is named."""
        with self.connection() as connection:
            number = None
            if run is not None:
                found = target.find(connection, run)
                if found.what != "run":
                    raise NotFound(f"{run!r} is not a run")
                number = found.number
            return span_views(self._store, connection, number)

    def span(self, span_id: str) -> SpanView:
        """One span, by id or any unique prefix."""
        with self.connection() as connection:
            found = target.find(connection, span_id)
            if found.what != "span":
                raise NotFound(f"{span_id!r} is not a span")
            return span_views(self._store, connection, None, only=found.number)[0]

    def artifact(self, name: Any) -> Any:
        """The value of an artifact, by digest, unique prefix or ref name."""
        with self.connection() as connection:
            if isinstance(name, bytes):
                return self._store.value(int(self._store.blob(name, connection)[0]), name, connection)
            try:
                digest = Digest.parse(str(name))
                return self._store.value(int(self._store.blob(digest, connection)[0]), digest, connection)
            except (ValueError, NotFound):
                found = target.find(connection, name)
            row = connection.execute(sa.select(catalog.node).where(catalog.node.c.id == found.number)).first()
            if found.what != "node" or row is None:
                raise NotFound(f"{name!r} is a {found.what}, not an artifact")
            key = row.digest if row.digest is not None else row.key
            return self._store.value(row.domain if row.domain is not None else int(Domain.VALUE), key, connection)

    def why(self, of: Any = None, **options: Any) -> Any:
        """`clew.why` in this store."""
        from clew.lineage.why import why

        return why(of, store=self, **options)

    def impact(self, of: Any, **options: Any) -> Any:
        """`clew.impact` in this store."""
        from clew.lineage.impact import impact

        return impact(of, store=self, **options)

    def diff(self, a: Any, b: Any = None) -> Any:
        """`clew.diff` in this store."""
        from clew.lineage.diff import diff

        return diff(a, b, store=self)

    def close(self) -> None:
        """Let go of the store's files. Reading again opens them again."""
        index.forget(self.folder)
        self._store.close()  # which may be another one by now

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


StoreLike = Reader | str | os.PathLike[str] | None


def open_store(path: str | os.PathLike[str] | None = None) -> Reader:
    """Open a store to read: a folder, by default CLEW_STORE, else `./.clew`. StoreNotFound if there is none."""
    return Reader(path)


@contextlib.contextmanager
def reading(store: StoreLike) -> Iterator[tuple[Store, Connection]]:
    """A store that has caught up: the one given, that of this process's tracer, or the default one."""
    reader = store if isinstance(store, Reader) else Reader(store if store is not None else store_written_here())
    with reader.connection() as connection:
        yield reader.store, connection
