"""The boundary seam: four shapes, one span each, the outermost call counts, and a policy may answer in its place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace

import clew
from clew.lineage.reader import Reader
from clew.lineage.view import SpanView
from clew.tracer import boundary
from clew.tracer.boundary import Call
from clew.tracer.init import Tracer

MODEL = object()


def call(request: str = "question", **more: Any) -> Call:
    return Call(
        "llm",
        "chat",
        more.pop("instance", MODEL),
        name="model",
        used=[("messages", "message", [request])],
        describe=lambda response: ([("message", "message", response)], {"n": len(response)}),
        **more,
    )


async def resolved(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def streamed(values: Iterable[Any]) -> AsyncIterator[Any]:
    for value in values:
        await asyncio.sleep(0)
        yield value


async def collected(chunks: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in chunks]


def plain(request: Call, answer: Callable[[], Any]) -> Any:
    return boundary.perform(request, answer)


def awaited(request: Call, answer: Callable[[], Any]) -> Any:
    async def body() -> Any:
        return await resolved(answer())

    return asyncio.run(boundary.perform_async(request, body))


def stream(request: Call, answer: Callable[[], Any]) -> Any:
    return list(boundary.stream(request, lambda: iter(answer())))


def stream_async(request: Call, answer: Callable[[], Any]) -> Any:
    async def body() -> AsyncIterator[Any]:
        async for chunk in streamed(answer()):
            yield chunk

    return asyncio.run(collected(boundary.stream_async(request, body)))


SHAPES = [plain, awaited, stream, stream_async]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)


def values(span: SpanView) -> dict[str, Any]:
    return {slot.role: slot.value for slot in [*span.used, *span.generated]}


@shapes
def test_request_and_response_stand_on_one_span(reader: Reader, shape: Any) -> None:
    with clew.run("run"):
        assert shape(call(), lambda: ["an", "answer"]) == ["an", "answer"]
    (span,) = (span for span in reader.spans() if span.kind == "llm")
    assert (span.name, span.status, span.path) == ("model", "ok", "run/model")
    assert values(span) == {"messages": ["question"], "message": ["an", "answer"]}
    assert span.attributes["n"] == 2
    assert "clew.occurrence" not in span.attributes


@shapes
def test_identical_requests_are_counted_within_path_and_run(reader: Reader, shape: Any) -> None:
    for _ in range(2):
        with clew.run("run"):
            for request in ("a", "b", "a", "a"):
                shape(call(request), lambda: ["x"])
            with clew.trace("deeper"):
                shape(call("a"), lambda: ["x"])
    found = [span.attributes.get("clew.occurrence", 0) for span in reader.spans() if span.kind == "llm"]
    assert found == [0, 0, 1, 2, 0] * 2


@shapes
def test_an_error_passes_unchanged(reader: Reader, shape: Any) -> None:
    error = ConnectionError("no route")

    def fail() -> Any:
        raise error

    with pytest.raises(ConnectionError) as raised:
        shape(call(), fail)
    assert raised.value is error
    (span,) = reader.spans()
    assert (span.status, span.attributes["error.type"]) == ("error", "ConnectionError")


@shapes
def test_a_description_that_fails_costs_the_response_and_not_the_span(
    tracer: Tracer, reader: Reader, shape: Any
) -> None:
    request = call()

    def broken(response: Any) -> Any:
        raise KeyError("a field that was renamed")

    request.describe = broken
    assert shape(request, lambda: ["x"]) == ["x"]
    assert [span.status for span in reader.spans()] == ["ok"]
    assert list(tracer.faults.counts) in ([], ["boundary response"])  # [] once a flush wrote them


@shapes
def test_the_span_is_current_while_the_call_is_made_and_not_after(reader: Reader, shape: Any) -> None:
    before = otel_context.get_current()

    def answer() -> list[str]:
        with trace.get_tracer("http").start_as_current_span("POST"):
            return ["x"]

    shape(call(), answer)
    spans = {span.name: span for span in reader.spans()}
    assert spans["POST"].parent_id == spans["model"].span_id
    assert otel_context.get_current() == before


@shapes
@pytest.mark.parametrize("inner", [plain, stream], ids=lambda shape: f"{shape.__name__} in it")
def test_the_outermost_of_one_call_counts(reader: Reader, shape: Any, inner: Any) -> None:
    """A default `_agenerate` calls `_generate` of the same object."""
    assert shape(call(), lambda: inner(call(), lambda: ["x"])) == ["x"]
    assert len(reader.spans()) == 1


def test_another_object_and_another_run_are_other_calls(reader: Reader) -> None:
    other = object()
    boundary.perform(call(), lambda: boundary.perform(call(instance=other), lambda: ["x"]))
    assert len(reader.spans()) == 2
    outer, inner = call(run_key="run 1"), call(run_key="run 2")
    boundary.perform(outer, lambda: boundary.perform(inner, lambda: ["x"]))
    assert len(reader.spans()) == 4


def test_a_run_id_tells_the_inner_half_where_no_context_goes_along(reader: Reader) -> None:
    def without_context() -> list[str]:
        token = otel_context.attach(otel_context.Context())
        try:
            return boundary.perform(call(run_key="run"), lambda: ["x"])
        finally:
            otel_context.detach(token)

    assert boundary.perform(call(run_key="run"), without_context) == ["x"]
    assert len(reader.spans()) == 1
    assert boundary._open_calls == set()


def test_a_stream_holds_no_context_over_a_yield_and_ends_early_without_error(reader: Reader) -> None:
    before = otel_context.get_current()
    closed = []

    def body() -> Iterator[str]:
        try:
            yield from ("a", "b", "c")
        finally:
            closed.append(True)

    chunks = boundary.stream(call(run_key="r"), body)
    assert next(chunks) == "a"
    assert otel_context.get_current() == before
    assert boundary._open_calls == set()
    boundary.perform(call("another"), lambda: ["x"])  # the same model, in between: a call of its own
    chunks.close()  # type: ignore[attr-defined]
    first, second = reader.spans()
    assert (first.status, values(first)["message"]) == ("closed_early", ["a"])
    assert second.status == "ok"
    assert closed == [True]


async def test_a_cancelled_call_is_no_error(reader: Reader) -> None:
    started = asyncio.Event()

    async def forever() -> Any:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(boundary.perform_async(call(), forever))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [span.status for span in reader.spans()] == ["cancelled"]


class Recorded:
    """A policy that answers with what it saw before."""

    def __init__(self) -> None:
        self.known: dict[tuple[Any, int], Any] = {}
        self.failures: list[BaseException] = []

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failures.append(error)
            raise

    def call(self, call: Call, perform: Callable[[], Any]) -> Any:
        key = call.digest, call.occurrence
        if key not in self.known:
            with self.heard():
                self.known[key] = perform()
        return self.known[key]

    async def call_async(self, call: Call, perform: Callable[[], Awaitable[Any]]) -> Any:
        key = call.digest, call.occurrence
        if key not in self.known:
            with self.heard():
                self.known[key] = await perform()
        return self.known[key]

    def stream(self, call: Call, perform: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        key = call.digest, call.occurrence
        if key not in self.known:
            with self.heard():
                self.known[key] = list(perform())
        yield from self.known[key]

    async def stream_async(self, call: Call, perform: Callable[[], AsyncIterator[Any]]) -> AsyncIterator[Any]:
        key = call.digest, call.occurrence
        if key not in self.known:
            with self.heard():
                self.known[key] = [chunk async for chunk in perform()]
        for chunk in self.known[key]:
            yield chunk


@shapes
def test_a_policy_answers_in_place_of_the_call(tracer: Tracer, reader: Reader, shape: Any) -> None:
    tracer.policy = policy = Recorded()
    performed = []

    def answer() -> list[str]:
        performed.append(1)
        return [f"answer {len(performed)}"]

    for _ in range(2):
        with clew.run("run"):
            assert shape(call("same"), answer) == ["answer 1"]
            assert shape(call("same"), answer) == ["answer 2"]
    assert len(performed) == 2
    assert len(policy.known) == 2
    assert [values(span)["message"] for span in reader.spans() if span.kind == "llm"] == [
        ["answer 1"],
        ["answer 2"],
    ] * 2
    with clew.run("run"):
        assert shape(call("same", servable=False), answer) == ["answer 3"]


@shapes
def test_a_policy_hears_of_failures(tracer: Tracer, shape: Any) -> None:
    tracer.policy = policy = Recorded()
    error = ConnectionError()

    def fail() -> Any:
        raise error

    with pytest.raises(ConnectionError):
        shape(call(), fail)
    assert policy.failures == [error]
    assert policy.known == {}


@shapes
def test_without_a_tracer_the_call_is_made_and_nothing_else(clean_tracing: None, shape: Any) -> None:
    assert shape(call(), lambda: ["x"]) == ["x"]
