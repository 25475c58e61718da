"""A hot tier in a folder of its own, before a remote that is a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clew.store.remote import Remote
from clew.store.tier import HotTier, ReadThrough


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    return tmp_path / "bucket"


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[HotTier]:
    made = HotTier(tmp_path / "hot", limit_bytes=4 << 20)
    yield made
    made.close()


@pytest.fixture
def tier(bucket: Path, hot: HotTier) -> ReadThrough:
    return ReadThrough(Remote(bucket.as_uri()), hot)
