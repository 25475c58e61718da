"""The reference agent, traced: every span once, in one trace, where it belongs, however it is run."""

from __future__ import annotations

import asyncio
import logging
import random
from types import ModuleType
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import clew
from clew.tracer import context
from clew.tracer.init import Tracer
from tests.integrations.conftest import log, traced
from tests.integrations.log_reader import Content, Read

KINDS = {"workflow": 2, "node": 9, "chain": 4, "prompt": 1, "llm": 5, "tool": 1, "retriever": 1, "embedding": 1}
USER_SPANS = ["user_db_call", "user_worker_io", "user_worker_io"]


def shape(content: Content, span: Read) -> Any:
    """A span and what is below it, as one comparable value."""
    return (span.kind, span.name, sorted(shape(content, child) for child in content.children(span)))


def check(content: Content) -> None:
    """27 spans in one trace, all ended well, each under its own parent."""
    kinds: dict[str, int] = {}
    for span in content.own:
        kinds[span.kind] = kinds.get(span.kind, 0) + 1
    assert kinds == KINDS
    assert sorted(span.name for span in content.spans if span.start.scope == "user") == USER_SPANS
    assert len(content.spans) == content.ended == 27
    assert len(content.traces) == 1
    assert {span.status for span in content.spans} == {"ok"}
    for name, above, below in (("user_db_call", "retrieve", "retriever"), ("user_worker_io", "worker", "llm")):
        for span in [span for span in content.spans if span.name == name]:
            parent = content.parent(span)
            assert parent is not None
            assert (parent.kind, parent.name) == ("node", above)
            assert [child.kind for child in content.children(span)] == [below]


def runs(content: Content) -> list[str]:
    return [run.name for run in content.runs.values() if run.span_id]


def test_a_sync_run_is_one_trace(tracer: Tracer, reference: ModuleType) -> None:
    reference.build().invoke(reference.INP(), traced())
    check(log(tracer))
    assert runs(log(tracer)) == ["MainG"]


async def test_an_async_run_is_the_same_trace(tracer: Tracer, reference: ModuleType) -> None:
    reference.build().invoke(reference.INP(), traced())
    before = log(tracer)
    await reference.build(is_async=True).ainvoke(reference.INP(), traced())
    whole = log(tracer)
    first, second = [span for span in whole.spans if span.name == "MainG"]
    assert shape(whole, second) == shape(whole, first)
    check(before)
    assert len(whole.spans) == 54


@pytest.mark.parametrize("mode", ["values", "updates", "messages"])
def test_a_stream_is_the_same_trace(tracer: Tracer, reference: ModuleType, mode: str) -> None:
    for _ in reference.build().stream(reference.INP(), traced(), stream_mode=mode):
        pass
    check(log(tracer))


async def test_an_async_stream_of_messages_tells_the_time_to_the_first_chunk(
    tracer: Tracer, reference: ModuleType
) -> None:
    async for _ in reference.build(is_async=True).astream(reference.INP(), traced(), stream_mode="messages"):
        pass
    check(log(tracer))
    for call in log(tracer).of("llm"):
        assert call.attributes["gen_ai.request.stream"] is True
        assert call.attributes["gen_ai.response.time_to_first_chunk"] > 0


async def test_streamed_events_are_the_same_trace(tracer: Tracer, reference: ModuleType) -> None:
    graph = reference.build(is_async=True)
    async for _ in graph.astream_events(reference.INP(), traced(), version="v2"):
        pass
    check(log(tracer))


async def test_concurrent_runs_are_traces_of_their_own(tracer: Tracer, reference: ModuleType) -> None:
    graph = reference.build(is_async=True)
    await asyncio.gather(*(graph.ainvoke(reference.INP(), traced()) for _ in range(5)))
    content = log(tracer)
    assert len(content.traces) == 5
    assert len(content.spans) == content.ended == 5 * 27
    roots = content.of("workflow", "MainG")
    assert len({str(shape(content, root)) for root in roots}) == 1


def test_a_seeded_program_gets_new_traces(tracer: Tracer, reference: ModuleType) -> None:
    for _ in range(2):
        random.seed(42)
        reference.build().invoke(reference.INP(), traced())
    assert len(log(tracer).traces) == 2


@pytest.mark.parametrize("is_async", [False, True])
def test_a_run_nests_under_the_users_own_span(tracer: Tracer, reference: ModuleType, is_async: bool) -> None:
    graph = reference.build(is_async=is_async)
    with trace.get_tracer("user").start_as_current_span("request"):
        if is_async:
            asyncio.run(graph.ainvoke(reference.INP(), traced()))
        else:
            graph.invoke(reference.INP(), traced())
    content = log(tracer)
    root = content.one("workflow", "MainG")
    above = content.parent(root)
    assert above is not None
    assert above.name == "request"
    assert len(content.spans) == 28
    assert len(content.traces) == 1


def test_a_sampler_of_the_users_that_drops_all_loses_nothing_here(tracer: Tracer, reference: ModuleType) -> None:
    trace.set_tracer_provider(TracerProvider(sampler=ALWAYS_OFF))
    reference.build().invoke(reference.INP(), traced())
    check(log(tracer))


def test_a_broken_stream_leaves_no_context_behind(
    tracer: Tracer, reference: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in reference.build().stream(reference.INP(), traced(), stream_mode="messages"):
        break
    assert context.enclosing() is None
    assert not trace.get_current_span().get_span_context().is_valid
    content = log(tracer)
    assert content.one("workflow", "MainG").status == "closed_early"
    assert len(content.spans) == content.ended
    assert not [record for record in caplog.records if "detach" in record.message]


async def test_a_broken_async_stream_leaves_no_context_behind(
    tracer: Tracer, reference: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    stream = reference.build(is_async=True).astream(reference.INP(), traced(), stream_mode="updates")
    async for _ in stream:
        break
    await stream.aclose()
    assert context.enclosing() is None
    content = log(tracer)
    assert content.one("workflow", "MainG").status == "closed_early"
    assert len(content.spans) == content.ended
    assert "error" not in {span.status for span in content.spans}
    assert not [record for record in caplog.records if "detach" in record.message]


def test_span_paths_are_the_same_from_run_to_run(tracer: Tracer, reference: ModuleType) -> None:
    graph = reference.build()
    for _ in range(2):
        graph.invoke(reference.INP(), traced())
    content = log(tracer)
    first, second = ([s.start.path for s in content.own if s.start.trace_id == t] for t in sorted(content.traces))
    assert sorted(first) == sorted(second)
    assert "MainG/worker[0]/fake-1" in first
    assert "MainG/worker[1]/fake-1" in first


def test_the_answer_is_what_the_last_step_wrote(tracer: Tracer, reference: ModuleType) -> None:
    result = reference.build().invoke(reference.INP(), traced())
    content = log(tracer)
    run = next(run for run in content.runs.values() if run.span_id)
    assert content.values(run.answer) == {"out": [result["out"][-1]]}


def test_instrument_and_callback_together_trace_once(tracer: Tracer, reference: ModuleType) -> None:
    clew.instrument()
    reference.build().invoke(reference.INP(), traced())
    check(log(tracer))
