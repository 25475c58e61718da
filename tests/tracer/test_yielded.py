"""What a generator yielded is recorded as it was when it was yielded."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

import clew
from clew.lineage.reader import Reader
from clew.lineage.view import SpanView
from clew.store.encoding import register_item
from clew.store.record import SpanEnd
from clew.tracer import chunks
from clew.tracer.capture import Batch
from clew.tracer.init import Tracer
from clew.tracer.yielded import _Held


def slots(span: SpanView) -> dict[str, Any]:
    return {slot.role: slot.value for slot in [*span.used, *span.generated]}


def only(reader: Reader) -> SpanView:
    (span,) = reader.spans()
    return span


class Note:
    def __init__(self, text: str) -> None:
        self.text = text


register_item(Note, "document", lambda it: {"text": it.text})
YIELDED = [{"t": "a"}, Note("a note"), ["x"], ([1],), "plain", b"y", 2, None, [["deep"]], {"t": "z" * 2_000_000}]


def change(chunk: Any) -> None:
    if isinstance(chunk, Note):
        chunk.text = "changed"
    elif isinstance(chunk, dict):
        chunk["t"] = "changed"
    elif isinstance(chunk, (list, tuple)):
        change(chunk[0])
        if isinstance(chunk, list):
            chunk.append("changed")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_a_generator_yielded_is_recorded_as_it_was_then(
    tracer: Tracer, reader: Reader, asynchronous: bool
) -> None:
    @clew.trace
    def whole() -> list[Any]:
        return copy.deepcopy(YIELDED)

    @clew.trace
    def stream() -> Iterator[Any]:
        yield from copy.deepcopy(YIELDED)

    @clew.trace
    async def stream_async() -> AsyncIterator[Any]:
        for chunk in copy.deepcopy(YIELDED):
            yield chunk

    async def consume() -> None:
        async for chunk in stream_async():
            change(chunk)

    whole()
    if asynchronous:
        asyncio.run(consume())
    else:
        for chunk in stream():
            change(chunk)
    first, second = reader.spans()
    assert second.generated[0].digest == first.generated[0].digest
    assert slots(second)["return"][0] == {"t": "a"}
    assert tracer.faults.counts == {}


def test_a_dict_that_a_generator_yields_again_and_again_is_each_time_what_it_was(reader: Reader) -> None:
    @clew.trace
    def stream() -> Iterator[dict[str, str]]:
        state: dict[str, str] = {}
        for text in ("one", "two", "three"):
            state["t"] = text
            yield state

    list(stream())
    assert slots(only(reader))["return"] == [{"t": "one"}, {"t": "two"}, {"t": "three"}]


def test_a_chunk_that_could_not_be_captured_whole_makes_the_span_incomplete(
    tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[SpanEnd] = []
    record = Batch.record

    def heard(batch: Batch, entry: msgspec.Struct) -> None:
        if isinstance(entry, SpanEnd):
            ended.append(entry)
        record(batch, entry)

    monkeypatch.setattr(Batch, "record", heard)

    @clew.trace
    def stream(chunk: Any) -> Iterator[Any]:
        yield chunk

    list(stream({"a": object()}))
    list(stream({"a": 1}))
    assert [end.complete for end in ended] == [False, True]


def test_a_chunk_whose_capture_fails_reaches_the_program(
    tracer: Tracer, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    @clew.trace
    def stream() -> Iterator[Any]:
        yield {"a": 1}

    def fail(*given: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(_Held, "part", fail)  # of `Batch`, it would fail the records of the process beside it too
    assert list(stream()) == [{"a": 1}]
    monkeypatch.undo()
    assert slots(only(reader))["return"] == chunks.REFUSED
    assert set(tracer.faults.counts) == {"chunk of a stream"}


@pytest.mark.parametrize("held", ["correct-horse", "correct-horse " * 10])
def test_a_secret_that_becomes_known_while_a_generator_runs_is_not_stored(
    tracer: Tracer, reader: Reader, held: str
) -> None:
    @clew.trace
    def stream() -> Iterator[Any]:
        yield {"a": held}
        tracer.gate.secrets.add("correct-horse")
        yield {"a": held}

    @clew.trace
    def innocent() -> Iterator[Any]:
        yield {"a": "b"}
        tracer.gate.secrets.add("battery-staple")
        yield {"a": "b"}

    list(stream())
    list(innocent())
    list(stream())
    assert "correct" not in str([slots(span) for span in reader.spans()])
    assert slots(reader.spans()[1])["return"] == [{"a": "b"}] * 2
