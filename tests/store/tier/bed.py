"""What stands in a hot tier, and how somebody who can write to its database changes it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from clew.store.digest import Digest, Domain, digest
from clew.store.tier import HotTier

diskcache = pytest.importorskip(
    "diskcache", reason="diskcache is not installed: the hot tier was NOT tested (pip install clew[hot-tier])"
)
pytest.importorskip("obstore", reason="obstore is not installed: the hot tier was NOT tested (pip install clew[s3])")
disk = pytest.importorskip("clew.store.disk")

LARGE = os.urandom(40_000)  # stands in a file of the cache
SMALL = b"small"  # stands in its database
NAME = digest(Domain.BYTES, LARGE)


def blob_path(bucket: Path, name: Digest) -> Path:
    return bucket / "cas" / name.hex()[:2] / name.hex()


def poison(hot: HotTier, statement: str, *values: object) -> None:
    """Change the cache's database as somebody who can write to it may."""
    hot.close()
    with contextlib.closing(sqlite3.connect(hot.folder / "cache.db")) as connection, connection:
        assert connection.execute(statement, values).rowcount != 0


def again(hot: HotTier) -> HotTier:
    """The same folder, as the next process opens it."""
    hot.close()
    return HotTier(hot.folder, limit_bytes=hot.limit_bytes)
