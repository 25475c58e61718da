"""`clew.cached`: any function's answer, used again for the same arguments and the same code."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import clew
from clew.tracer.init import Tracer

CALLS: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_called() -> None:
    CALLS.clear()


@clew.cached
def double(x: Any, *, by: int = 2) -> Any:
    CALLS.append(x)
    return (x, x * by)


@clew.cached
async def double_later(x: int) -> int:
    CALLS.append(x)
    await asyncio.sleep(0)
    return x * 2


@clew.cached
def count(upto: int) -> Iterator[int]:
    for number in range(upto):
        CALLS.append(number)
        yield number


@clew.cached
async def count_later(upto: int) -> AsyncIterator[int]:
    for number in range(upto):
        CALLS.append(number)
        yield number


def test_an_answer_is_used_again_for_equal_arguments(tracer: Tracer) -> None:
    assert [double(1), double(1), double(x=1), double(1, by=2)] == [(1, 2)] * 4
    assert double(1, by=3) == (1, 3)
    assert CALLS == [1, 1]


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), ("1", 1), ((1,), [1]), (b"a", "a"), ({1}, [1]), ("", None)]
)
def test_arguments_of_another_type_are_others(tracer: Tracer, one: Any, other: Any) -> None:
    @clew.cached
    def give(x: Any) -> str:
        CALLS.append(x)
        return type(x).__name__

    assert [give(one), give(other), give(one)] == [type(one).__name__, type(other).__name__, type(one).__name__]
    assert len(CALLS) == 2


def test_every_shape_of_function(tracer: Tracer) -> None:
    async def later() -> list[int]:
        return [one async for one in count_later(3)]

    assert [asyncio.run(double_later(4)) for _ in range(2)] == [8, 8]
    assert [list(count(3)) for _ in range(2)] == [[0, 1, 2]] * 2
    assert [asyncio.run(later()) for _ in range(2)] == [[0, 1, 2]] * 2
    assert CALLS == [4, 0, 1, 2, 0, 1, 2]


def test_a_generator_that_was_left_is_no_answer(tracer: Tracer) -> None:
    for number in count(5):
        if number == 1:
            break
    assert list(count(5)) == [0, 1, 2, 3, 4]
    assert list(count(5)) == [0, 1, 2, 3, 4]
    assert CALLS == [0, 1, 0, 1, 2, 3, 4]


def test_an_error_is_raised_each_time(tracer: Tracer) -> None:
    @clew.cached
    def fail(x: int) -> None:
        CALLS.append(x)
        raise KeyError(x)

    for _ in range(2):
        with pytest.raises(KeyError):
            fail(1)
    assert CALLS == [1, 1]


def test_a_function_that_calls_itself_is_cached_at_each_step(tracer: Tracer) -> None:
    @clew.cached(version="1")
    def fibonacci(n: int) -> int:
        CALLS.append(n)
        return n if n < 2 else int(fibonacci(n - 1) + fibonacci(n - 2))

    assert fibonacci(12) == 144
    assert sorted(CALLS) == list(range(13))


def test_without_init_it_is_the_function(clean_tracing: None) -> None:
    assert [double(1), double(1)] == [(1, 2)] * 2
    assert CALLS == [1, 1]


def test_it_can_be_switched_off(tracer: Tracer) -> None:
    for _ in range(2):
        with clew.caching(False):
            double(1)
        with clew.caching(function=False):
            double(1)
    assert CALLS == [1] * 4


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"effect": "clean"}, "an effect is one of"),
        ({"ttl": "1d"}, "goes with 'read'"),
        ({"effect": "read", "ttl": "soon"}, "a duration"),
        ({"effect": "write"}, "idempotency_key"),
    ],
)
def test_what_makes_no_sense_is_said_when_it_is_written(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        clew.cached(**options)


def test_arguments_without_a_canonical_form_are_called_each_time(tracer: Tracer) -> None:
    thing = object()
    for _ in range(2):
        assert double(2, by=2) == (2, 4)
        with pytest.raises(TypeError):
            double(thing)
    clew.flush()
    with clew.open(tracer.folder.path) as reader:
        assert [bool(span.attributes.get("clew.cache.bypass")) for span in reader.spans()] == [False, True, False, True]


PROGRAM = """
import clew, helpers
clew.init("p", store="store")

@clew.cached
def answer(x):
    print("called")
    return helpers.help(x) + 1

print(answer(1))
"""


def test_a_helper_that_was_edited_is_another_function(tmp_path: Path) -> None:
    """joblib: the caller of a helper that was edited still got the old answer."""
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    said = []
    for body in ("return x", "return x  # the same", "return x + 100", "return x"):
        (tmp_path / "helpers.py").write_text(f"def help(x):\n    {body}\n")
        done = subprocess.run(
            [sys.executable, "-B", "program.py"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
        )
        said.append(done.stdout.split())
    assert said == [["called", "2"], ["2"], ["called", "102"], ["2"]]


def test_each_of_four_processes_gets_what_one_computed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import os, threading, time
            import clew
            clew.init("p", store="store")

            @clew.cached(version="1")
            def slow(key):
                with open("calls", "a") as file:
                    file.write(f"{key}\\n")
                time.sleep(0.02)
                return key * 2

            def work():
                for key in range(10):
                    assert slow(key) == key * 2

            threads = [threading.Thread(target=work) for _ in range(4)]
            [one.start() for one in threads]
            [one.join() for one in threads]
            """
        )
    )
    running = [subprocess.Popen([sys.executable, str(program)], cwd=tmp_path) for _ in range(4)]
    assert [one.wait(120) for one in running] == [0] * 4
    calls = (tmp_path / "calls").read_text().split()
    assert sorted(map(int, calls)) == list(range(10))
