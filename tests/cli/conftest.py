"""Stores for the command line's tests: written once, copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import bed


@pytest.fixture(autouse=True, scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with bed.serving(tmp_path_factory.mktemp("server")):
        yield


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("written") / ".clew"
    finished = bed.program(bed.ANSWERS, store)
    assert finished.returncode == 0, finished.stderr
    return store


@pytest.fixture
def store(written: Path, tmp_path: Path) -> Path:
    """A store with a dataset, two answers and a failed run."""
    copy = tmp_path / "store"
    shutil.copytree(written, copy)
    return copy
