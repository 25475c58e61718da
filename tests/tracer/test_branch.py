"""Branches: what threads and executors are given is numbered when it is started."""

from __future__ import annotations

import asyncio
import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import clew
from clew.tracer import branch, context
from clew.tracer.init import Tracer


@pytest.fixture(autouse=True)
def wanted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    found: list[object] = ["by the test"]
    monkeypatch.setattr(branch, "wanted", found)
    return found


def names() -> list[str]:
    """Those in which this runs, each as the last part of its name."""
    span = context.enclosing()
    return [one.name.rpartition(".")[2] for one in branch.here(span.path if span is not None else "")]


def test_executors_and_threads_number_what_they_are_given(tracer: Tracer) -> None:
    found: list[list[str]] = []
    with ThreadPoolExecutor(1) as pool, clew.trace("plan"):
        assert [pool.submit(names).result() for _ in range(2)] == [["names[0]"], ["names[1]"]]
        assert pool.submit(functools.partial(names)).result() == ["names[2]"]
        assert asyncio.run(asyncio.to_thread(names)) == ["names[3]"]
        thread = threading.Thread(target=lambda: found.append(names()))
        thread.start()
        thread.join()
        with clew.trace("step"):
            assert pool.submit(names).result() == ["names[0]"]
        assert names() == []
    assert found == [["<lambda>[0]"]]


def test_a_branch_of_a_branch_has_both_names(tracer: Tracer) -> None:
    def outer() -> list[str]:
        with clew.trace("part"), ThreadPoolExecutor(1) as inner:
            return inner.submit(names).result()

    with ThreadPoolExecutor(1) as pool, clew.trace("plan"):
        assert pool.submit(outer).result() == ["outer[0]", "names[0]"]
        assert pool.submit(outer).result() == ["outer[1]", "names[0]"]
    assert pool._threads  # which are the same for all that they are given
    assert names() == []


def test_outside_of_spans_there_are_none(tracer: Tracer) -> None:
    with ThreadPoolExecutor(1) as pool:
        with clew.trace("plan"):
            assert pool.submit(names).result() == ["names[0]"]
        assert pool.submit(names).result() == []


def test_where_nobody_wants_to_know_nothing_is_numbered(tracer: Tracer, wanted: list[object]) -> None:
    wanted.clear()
    with ThreadPoolExecutor(1) as pool, clew.trace("plan"):
        assert pool.submit(names).result() == []


def test_what_names_its_own_branches_is_not_numbered(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branch, "_own", set())
    branch.names_its_own(names.__module__.split(".")[0])
    with ThreadPoolExecutor(1) as pool, clew.trace("plan"):
        assert pool.submit(names).result() == []


def test_a_path_that_only_begins_alike_is_not_below() -> None:
    assert branch.is_below("plan/ask", "plan")
    assert branch.is_below("plan", "plan")
    assert not branch.is_below("planner", "plan")
    assert not branch.is_below("plan", "plan/ask")


def test_after_shutdown_nothing_is_numbered(clean_tracing: None) -> None:
    before = threading.Thread.start, ThreadPoolExecutor.submit
    clew.init(store="store")
    clew.shutdown()
    assert (threading.Thread.start, ThreadPoolExecutor.submit) == before
