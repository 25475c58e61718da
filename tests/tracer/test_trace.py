"""`clew.trace`: a function behaves as if it were not traced, and its span says what it was given and gave."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace

import clew
from clew.lineage.reader import Reader
from clew.lineage.view import SpanView
from clew.tracer.capture import Batch
from clew.tracer.init import Tracer
from tests.tracer.store_bytes import everything


def slots(span: SpanView) -> dict[str, Any]:
    return {slot.role: slot.value for slot in [*span.used, *span.generated]}


def only(reader: Reader) -> SpanView:
    (span,) = reader.spans()
    return span


def test_a_call_has_its_arguments_and_what_it_returned(reader: Reader) -> None:
    @clew.trace
    def join(first: str, *more: str, glue: str = "-", **rest: int) -> str:
        """Joins."""
        return glue.join([first, *more])

    assert join("a", "b", glue="+", x=1) == "a+b"
    assert (join.__name__, join.__doc__) == ("join", "Joins.")
    span = only(reader)
    assert (span.kind, span.status, span.path) == ("chain", "ok", span.name)
    assert slots(span) == {"first": "a", "more": ("b",), "glue": "+", "rest": {"x": 1}, "return": "a+b"}


def test_a_method_is_not_given_its_self_and_a_call_that_does_not_fit_fails_as_it_would(reader: Reader) -> None:
    class Agent:
        @clew.trace("answer", kind="agent")
        def answer(self, question: str) -> str:
            return question.upper()

    assert Agent().answer("why") == "WHY"
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        Agent().answer()  # type: ignore[call-arg]
    first, second = reader.spans()
    assert (first.name, first.kind, slots(first)) == ("answer", "agent", {"question": "why", "return": "WHY"})
    assert second.status == "error"


async def test_a_coroutine_function_stays_one(reader: Reader) -> None:
    @clew.trace
    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    assert inspect.iscoroutinefunction(add)
    assert await add(1, b=2) == 3
    assert slots(only(reader)) == {"a": 1, "b": 2, "return": 3}


def test_a_generator_is_the_list_of_what_it_yielded(reader: Reader) -> None:
    @clew.trace
    def count(to: int) -> Iterator[int]:
        yield from range(to)

    assert inspect.isgeneratorfunction(count)
    assert list(count(3)) == [0, 1, 2]
    span = only(reader)
    assert (span.status, slots(span)) == ("ok", {"to": 3, "return": [0, 1, 2]})


def test_a_generator_is_sent_to_thrown_into_and_returns_as_if_it_were_not_traced(reader: Reader) -> None:
    def conversation() -> Any:
        said = []
        while True:
            try:
                said.append((yield len(said)))
            except KeyError as error:
                said.append(f"caught {error}")
            if len(said) == 3:
                return said

    def talk(generator: Any) -> list[Any]:
        heard = [next(generator), generator.send("one"), generator.throw(KeyError("two"))]
        with pytest.raises(StopIteration) as stopped:
            generator.send("three")
        return [*heard, stopped.value.value]

    assert talk(clew.trace(conversation)()) == talk(conversation())
    assert only(reader).status == "ok"


def test_a_context_manager_that_is_traced_still_handles_exceptions(reader: Reader) -> None:
    @contextlib.contextmanager
    @clew.trace
    def swallowing() -> Iterator[None]:
        with contextlib.suppress(ZeroDivisionError):
            yield

    with swallowing():
        print(1 / 0)
    assert only(reader).status == "ok"


async def test_an_async_generator_is_sent_to_and_thrown_into(reader: Reader) -> None:
    async def conversation() -> Any:
        said = []
        for _ in range(3):
            try:
                said.append((yield list(said)))
            except KeyError:
                said.append("caught")

    async def talk(generator: Any) -> list[Any]:
        heard = [await anext(generator), await generator.asend("one"), await generator.athrow(KeyError())]
        with pytest.raises(StopAsyncIteration):
            await generator.asend("three")
        return heard

    assert inspect.isasyncgenfunction(clew.trace(conversation))
    assert await talk(clew.trace(conversation)()) == await talk(conversation())
    span = only(reader)
    assert (span.status, slots(span)["return"]) == ("ok", [[], ["one"], ["one", "caught"]])


def test_a_generator_that_is_closed_early_is_no_error(reader: Reader) -> None:
    closed = []

    @clew.trace
    def count() -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            closed.append(trace.get_current_span().get_span_context().is_valid)

    generator = count()
    assert [next(generator), next(generator)] == [0, 1]
    generator.close()  # type: ignore[attr-defined]
    span = only(reader)
    assert (span.status, slots(span)["return"]) == ("closed_early", [0, 1])
    assert len(closed) == 1
    assert not trace.get_current_span().get_span_context().is_valid


async def test_an_async_generator_that_is_closed_early_or_cancelled_is_no_error(reader: Reader) -> None:
    waiting = asyncio.Event()

    @clew.trace("stream")
    async def stream() -> AsyncIterator[int]:
        yield 1
        waiting.set()
        await asyncio.Event().wait()
        yield 2

    generator = stream()
    assert await anext(generator) == 1
    await generator.aclose()  # type: ignore[attr-defined]

    async def consume() -> None:
        async for _ in stream():
            pass

    task = asyncio.ensure_future(consume())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(span.status, slots(span)["return"]) for span in reader.spans()] == [
        ("closed_early", [1]),
        ("cancelled", [1]),
    ]


@pytest.mark.parametrize("shape", ["sync", "generator", "block"])
def test_an_error_passes_unchanged_and_is_recorded(reader: Reader, shape: str) -> None:
    error = ValueError("said so")

    @clew.trace("fails")
    def call() -> None:
        raise error

    @clew.trace("fails")
    def generate() -> Iterator[int]:
        yield 1
        raise error

    def block() -> None:
        with clew.trace("fails"):
            raise error

    with pytest.raises(ValueError, match="said so") as raised:
        {"sync": call, "generator": lambda: list(generate()), "block": block}[shape]()
    assert raised.value is error
    span = only(reader)
    assert (span.status, span.attributes["exception.message"]) == ("error", "said so")
    assert "ValueError: said so" in slots(span)["traceback"]
    if shape == "generator":
        assert slots(span)["return"] == [1]


def test_a_block_says_what_it_used_and_made(reader: Reader) -> None:
    with clew.trace("load", kind="io") as block:
        block.used({"path": "x"})
        block.generated([1, 2], role="rows")
    span = only(reader)
    assert (span.name, span.kind, slots(span)) == ("load", "io", {"input": {"path": "x"}, "rows": [1, 2]})


def test_what_a_block_used_and_made_is_what_it_was_when_it_was_said(tracer: Tracer, reader: Reader) -> None:
    password = "".join(["hK4mZ8qB", "3jD7cF5g"])  # the program's sources are in the store
    with clew.trace("load") as block:
        rows, secret = ["a"], ["user", password]
        block.used(rows)
        rows.append("b")
        block.generated(rows)
        block.generated(secret, role="password")
        rows.clear()
        secret.clear()
    span = only(reader)
    assert [(slot.role, slot.kind, slot.value) for slot in [*span.used, *span.generated]][:2] == [
        ("input", "value", ["a"]),
        ("output", "value", ["a", "b"]),
    ]
    said = slots(span)["password"]
    assert len(said) == 2
    assert said[1].startswith("secret:")
    assert password.encode() not in b"".join(everything(tracer.folder.path).values())
    assert tracer.faults.counts == {}


def test_what_is_said_of_a_block_and_cannot_be_captured_then_is_recorded_when_it_ends(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*given: Any) -> None:
        raise RuntimeError

    with clew.trace("load") as block, clew.run("run") as run:
        monkeypatch.setattr(Batch, "slot", fail)
        block.used([1])
        run.output([2])
        monkeypatch.undo()
    assert "capture of what was said of a span failed" in caplog.text
    assert [slots(span) for span in reader.spans()] == [{"input": [1]}, {"answer": [2]}]
    block.used([3])


def test_calls_nest_and_their_paths_name_them(reader: Reader) -> None:
    @clew.trace("inner")
    def inner() -> Iterator[int]:
        yield 1
        with clew.trace("in it"):
            yield 2

    @clew.trace("outer")
    def outer() -> int:
        with clew.trace("block"):
            return sum(inner())

    assert outer() == 3
    assert [span.path for span in reader.spans()] == [
        "outer",
        "outer/block",
        "outer/block/inner",
        "outer/block/inner/in it",
    ]
    spans = {span.name: span for span in reader.spans()}
    assert spans["inner"].parent_id == spans["block"].span_id
    assert {span.run_id for span in spans.values()} == {run.run_id for run in reader.runs(all=True)}


def in_thread(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def in_executor(call: Callable[[], None]) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        executor.submit(call).result()


def in_mapped_executor(call: Callable[[], None]) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        list(executor.map(lambda _: call(), [0]))


def in_timer(call: Callable[[], None]) -> None:
    timer = threading.Timer(0, call)
    timer.start()
    timer.join()


def in_task(call: Callable[[], None]) -> None:
    async def task() -> None:
        call()

    async def main() -> None:
        await asyncio.create_task(task())

    asyncio.run(main())


def in_to_thread(call: Callable[[], None]) -> None:
    asyncio.run(asyncio.to_thread(call))


@pytest.mark.parametrize(
    "carry", [in_thread, in_executor, in_mapped_executor, in_timer, in_task, in_to_thread], ids=lambda it: it.__name__
)
def test_the_context_goes_along(reader: Reader, carry: Callable[[Callable[[], None]], None]) -> None:
    @clew.trace("work")
    def work() -> None:
        pass

    with clew.run("run"):
        carry(work)
    spans = {span.name: span for span in reader.spans()}
    assert spans["work"].parent_id == spans["run"].span_id
    assert spans["work"].run_id == spans["run"].run_id


def test_what_was_finished_is_there_when_flush_returns_and_when_a_query_asks(tracer: Tracer, reader: Reader) -> None:
    @clew.trace
    def step(number: int) -> int:
        return number

    start = threading.Barrier(4)

    def work(first: int) -> None:
        start.wait()
        for number in range(first, first + 100):
            step(number)

    threads = [threading.Thread(target=work, args=(first * 100,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reader.spans()) == 400
    step(1)
    clew.flush()
    assert len(reader.spans()) == 401
    assert {span.status for span in reader.spans()} == {"ok"}
    assert sorted(slots(span)["number"] for span in reader.spans()) == sorted([*range(400), 1])
    assert tracer.faults.counts == {}


def test_values_of_any_kind_are_captured_or_said_to_be_incomplete(tracer: Tracer, reader: Reader) -> None:
    @clew.trace
    def take(value: Any) -> None:
        pass

    cycle: list[Any] = []
    cycle.append(cycle)
    for value in (cycle, object(), lambda: 1, "\ud800" * 70, 10**40, {1: {2}}, (x for x in ()), float("nan")):
        take(value)
    assert tracer.faults.counts == {}
    assert len(reader.spans()) == 8
    assert slots(reader.spans()[3])["value"] == "\ud800" * 70


def test_without_init_functions_run_as_if_they_were_not_traced(clean_tracing: None) -> None:
    @clew.trace
    def double(x: int) -> int:
        return 2 * x

    @clew.trace
    def count() -> Iterator[int]:
        yield from (1, 2)

    with clew.trace("block") as block:
        assert (double(2), list(count())) == (4, [1, 2])
        block.used([1])
        block.generated([2])
    assert block.span is None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SystemExit(), "closed_early"),
        (SystemExit(0), "closed_early"),
        (SystemExit(3), "error"),
        (KeyboardInterrupt(), "error"),
    ],
    ids=["exit()", "exit(0)", "exit(3)", "Ctrl-C"],
)
def test_a_program_that_ends_itself_well_failed_at_nothing(reader: Reader, error: BaseException, status: str) -> None:
    @clew.trace
    def ends() -> None:
        raise error

    with pytest.raises(type(error)), clew.run("run"):
        ends()
    assert [span.status for span in reader.spans()] == [status] * 2
