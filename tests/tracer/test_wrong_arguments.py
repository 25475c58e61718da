"""A wrong argument is an error where it is given, and whatever reaches the log nevertheless hides nothing else."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import clew
from clew.lineage.health import report
from clew.store.record import SpanStart
from clew.tracer import init
from clew.tracer.credential import names_a_secret
from tests.tracer.store_bytes import everything

WRONG: dict[str, Callable[[], Any]] = {
    "a run's name": lambda: clew.run(5),  # type: ignore[arg-type]
    "seeds in a list": lambda: clew.run("x", seeds=[1]),  # type: ignore[arg-type]
    "a span's kind": lambda: clew.trace("x", kind=5),  # type: ignore[call-overload]
    "no function": lambda: clew.trace(5),  # type: ignore[call-overload]
    "a project": lambda: clew.init(5),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_what_can_be_no_such_thing_is_a_type_error_that_says_what_it_is(call: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match="not"):
        call()


def test_a_dataset_is_not_declared_as_an_artifact() -> None:
    with pytest.raises(ValueError, match=r"clew\.dataset\("):
        clew.artifact("dataset", [1], "x")


def test_an_object_that_can_be_called_and_a_partial_function_can_be_traced() -> None:
    import functools

    class Adder:
        def __call__(self, one: int, other: int) -> int:
            return one + other

    assert clew.trace(functools.partial(max, 3))(2) == 3
    assert clew.trace(Adder())(1, 2) == 3


ODD: dict[str, Callable[[trace.Tracer], object]] = {
    "a number for a name": lambda tracer: tracer.start_span(5).end(),  # type: ignore[arg-type]
    "nothing for a name": lambda tracer: tracer.start_span(None).end(),  # type: ignore[arg-type]
    "a float for a start": lambda tracer: tracer.start_span("x", start_time=1.5e18).end(),  # type: ignore[arg-type]
    "a word for an end": lambda tracer: tracer.start_span("x").end("now"),  # type: ignore[arg-type]
    "a start after the end of time": lambda tracer: tracer.start_span("x", start_time=2**63 + 5).end(),
    "another name that is none": lambda tracer: tracer.start_span("x").update_name(9),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_things_that_a_program_tells_opentelemetry_lose_no_other_run(
    clean_tracing: None, tmp_path: Path, odd: Callable[[trace.Tracer], object]
) -> None:
    trace.set_tracer_provider(TracerProvider())
    clew.init("tests", store=tmp_path / "store")
    with clew.run("good"):
        odd(trace.get_tracer("theirs"))
    with clew.open(tmp_path / "store") as reader:
        assert [run.name for run in reader.runs()] == ["good"]
        assert len(reader.spans()) == 2


def test_a_record_that_cannot_be_read_is_counted_and_hides_no_other(clean_tracing: None, tmp_path: Path) -> None:
    clew.init("tests", store=tmp_path / "store")
    with clew.run("before"):
        pass
    wrong = SpanStart(b"1" * 16, b"2" * 8, None, b"3" * 16, 5, "x", "x", 0)  # type: ignore[arg-type]
    init.current().log.append_record(wrong)
    with clew.run("after"):
        pass
    with clew.open(tmp_path / "store") as reader:
        assert {run.name for run in reader.runs()} == {"before", "after"}
    [damaged] = report(init.current().folder)["damaged_segments"]
    assert damaged["records"] == 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
def test_a_signal_handler_that_traces_in_the_middle_of_tracing_hangs_nothing(
    clean_tracing: None, tmp_path: Path
) -> None:
    clew.init("tests", store=tmp_path / "store")
    heard = [0]

    def handler(number: int, frame: object) -> None:
        heard[0] += 1
        with clew.trace("signal"):
            pass

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    spans = 0
    try:
        while heard[0] < 200:
            with clew.trace("main"):
                spans += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with clew.open(tmp_path / "store") as reader:
        names = [span.name for span in reader.spans()]
    assert (names.count("main"), names.count("signal")) == (spans, heard[0])


@pytest.mark.parametrize("shape", [set, frozenset, lambda part: {"a": part.pop()}, lambda part: [{"z": (part.pop(),)}]])
def test_what_stands_under_a_secrets_name_is_secret_in_sets_and_dicts_too(
    clean_tracing: None, tmp_path: Path, shape: Callable[[set[str]], Any]
) -> None:
    assert names_a_secret("password")
    clew.init("tests", store=tmp_path / "store")

    @clew.trace
    def use(password: Any) -> None:
        pass

    word = "".join(("hunter", "22zq"))  # as it stands nowhere in this file, which is captured too
    use(shape({word}))
    clew.shutdown()
    assert word.encode() not in stored(tmp_path / "store")


def test_a_credential_in_bytes_is_one(clean_tracing: None, tmp_path: Path) -> None:
    clew.init("tests", store=tmp_path / "store")
    key = b"AKIAIOSFODNN7EXAMPLZ"

    @clew.trace
    def use(*given: Any) -> None:
        pass

    use(b"key " + key + b" aws", {"k": [key]}, bytearray(key), {key}, {key: 1})
    clew.shutdown()
    assert key not in stored(tmp_path / "store")


def stored(store: Path) -> bytes:
    return b"".join(everything(store).values())
