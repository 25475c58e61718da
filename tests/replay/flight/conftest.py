"""Flights that lock in a folder of their own, and leave nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from clew.replay.flight import Flights, circle
from clew.replay.flight import flights as flight_module


@pytest.fixture
def flights(tmp_path: Path) -> Flights:
    return Flights(tmp_path / "lock", nested_seconds=0.2)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No descriptor, no flight and no dependency outlives a test."""
    before = set(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else set()
    yield
    left = {fd for fd in os.listdir("/proc/self/fd") if fd not in before} if before else set()
    locks = [os.readlink(f"/proc/self/fd/{fd}") for fd in left if os.path.islink(f"/proc/self/fd/{fd}")]
    assert [name for name in locks if name.endswith(".lock")] == []
    assert circle._blocking == {}
    for living in list(flight_module._living):
        assert living.table == {}
        assert len(living.stripes._held) == 0
