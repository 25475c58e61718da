"""The backends that a catalog may have. Each test gets an empty one of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from clew.store.folder import Folder
from clew.store.store import Store

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def as_postgres(*command: object) -> None:
    """Run one of PostgreSQL's programs, which refuse to run as root."""
    words = [str(word) for word in command]
    if os.geteuid() == 0:
        words = ["su", "postgres", "-c", shlex.join(words)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{words}: {done.stderr or done.stdout}"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[sa.URL]:
    """A private PostgreSQL cluster on a Unix socket, for this session alone; skips aloud where there is none."""
    if not BINARIES:
        pytest.skip("no PostgreSQL here: the conformance suite ran on SQLite alone (apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="psycopg is not installed: the conformance suite ran on SQLite alone")
    programs = BINARIES[-1].parent
    home = Path(tempfile.mkdtemp(prefix="clew-pg-"))  # short: a socket's path has at most 107 bytes
    if os.geteuid() == 0:
        shutil.chown(home, "postgres")
    data = home / "data"
    try:
        as_postgres(programs / "initdb", "-D", data, "-A", "trust", "-U", "clew", "-E", "UTF8", "--no-locale", "-N")
        options = f"-c listen_addresses='' -k {home} -c fsync=off -c synchronous_commit=off -c shared_buffers=16MB"
        as_postgres(programs / "pg_ctl", "-D", data, "-o", options, "-l", home / "log", "-w", "start")
        try:
            yield sa.URL.create("postgresql", username="clew", database="postgres", query={"host": str(home)})
        finally:
            as_postgres(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The address of an empty catalog in each backend: what CLEW_CATALOG or `Store(catalog_url=...)` is given."""
    if request.param == "sqlite":
        yield None
        return
    server: sa.URL = request.getfixturevalue("postgresql")
    name = f"t{uuid.uuid4().hex}"
    admin = sa.create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    yield server.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sa.text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    admin.dispose()


@pytest.fixture
def store(folder: Folder, catalog_url: str | None) -> Iterator[Store]:
    """An empty store, in each backend."""
    with Store(folder, catalog_url=catalog_url) as opened:
        yield opened
