"""`clew.run`: one execution under one span, with its answer, its session and the run that it stands in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from opentelemetry import trace

import clew
from clew.lineage.reader import Reader
from clew.store.errors import NotFound


def test_a_run_is_a_span_and_a_record(reader: Reader) -> None:
    with clew.run("ask", session="s-1", seeds={"numpy": 7}) as run:
        run.output("an answer")
    (view,) = reader.runs()
    assert (view.run_id, view.name, view.session, view.status) == (run.id, "ask", "s-1", "ok")
    assert view.duration_ns is not None
    assert view.project == "tests"
    (span,) = reader.spans(run)
    assert (span.name, span.kind, span.status, span.parent_id) == ("ask", "workflow", "ok", None)
    assert span.attributes["session.id"] == span.attributes["gen_ai.conversation.id"] == "s-1"
    assert [(slot.role, slot.value) for slot in span.generated] == [("answer", "an answer")]


def test_an_answer_is_what_it_was_when_it_was_said(reader: Reader) -> None:
    with clew.run("ask") as run:
        answer = {"k": ["v1"]}
        run.output(answer)
        answer["k"].append("v2")
        run.output(answer, "more")
        answer.clear()
    (span,) = reader.spans()
    assert [(slot.role, slot.value) for slot in span.generated] == [
        ("answer", {"k": ["v1"]}),
        ("more", {"k": ["v1", "v2"]}),
    ]


def test_an_exception_passes_and_stands_on_the_span_with_its_traceback(reader: Reader) -> None:
    with pytest.raises(ZeroDivisionError), clew.run("fails"):
        print(1 / 0)
    (span,) = reader.spans()
    assert span.status == reader.runs()[0].status == "error"
    assert span.attributes["error.type"] == "ZeroDivisionError"
    assert span.attributes["exception.message"] == "division by zero"
    (traceback,) = [slot.value for slot in span.used if slot.role == "traceback"]
    assert "print(1 / 0)" in traceback


def test_an_exception_whose_message_cannot_be_read_passes_too(reader: Reader) -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    with pytest.raises(Unspeakable), clew.run("fails"):
        raise Unspeakable
    (span,) = reader.spans()
    assert (span.status, span.attributes["error.type"]) == ("error", f"{Unspeakable.__qualname__}")


def test_a_run_inside_a_run_is_its_child_and_shares_its_session(reader: Reader) -> None:
    with clew.run("outer", session="s") as outer, clew.run("inner") as inner, clew.run("own", session="t") as own:
        pass
    runs = {run.name: run for run in reader.runs(all=True)}
    assert runs["inner"].parent_run_id == outer.id
    assert runs["own"].parent_run_id == inner.id
    assert (runs["inner"].session, runs["own"].session) == ("s", "t")
    assert [run.name for run in reader.runs()] == ["outer"]
    assert len({span.trace_id for span in reader.spans()}) == 1
    assert len(reader.spans(outer)) == 3
    assert len(reader.spans(own)) == 1


async def test_a_run_is_an_async_context_too_and_concurrent_ones_do_not_mix(reader: Reader) -> None:
    async def one(number: int) -> str | None:
        async with clew.run(f"run {number}") as run:
            await asyncio.sleep(0)
            with clew.trace(f"step {number}"):
                await asyncio.sleep(0)
        return run.id

    ids = await asyncio.gather(*(one(number) for number in range(5)))
    spans = reader.spans()
    assert len(spans) == 10
    assert len({span.trace_id for span in spans}) == 5
    for number, run_id in enumerate(ids):
        assert sorted(span.name for span in spans if span.run_id == run_id) == [f"run {number}", f"step {number}"]
    assert not trace.get_current_span().get_span_context().is_valid


async def test_a_cancelled_run_is_no_error(reader: Reader) -> None:
    started = asyncio.Event()

    async def forever() -> None:
        async with clew.run("cancelled"):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(forever())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [span.status for span in reader.spans()] == ["cancelled"]


def test_a_span_of_the_users_own_stands_between(reader: Reader) -> None:
    tracer = trace.get_tracer("mine")
    with clew.run("outer"), tracer.start_as_current_span("theirs"), clew.trace("inner"):
        pass
    spans = {span.name: span for span in reader.spans()}
    assert spans["inner"].parent_id == spans["theirs"].span_id
    assert spans["theirs"].parent_id == spans["outer"].span_id
    assert (spans["theirs"].scope, spans["inner"].scope) == ("mine", "clew")
    assert spans["theirs"].run_id == spans["outer"].run_id


def test_names_and_sessions_of_any_text_are_kept(reader: Reader) -> None:
    with clew.run("Grüße \ud800\0", session="s\ud800"):
        pass
    assert [(run.name, run.session) for run in reader.runs()] == [("Grüße \\ud800\\x00", "s\\ud800")]


def test_a_run_that_was_not_left_shows_as_running_with_its_input(reader: Reader) -> None:
    run = clew.run("open")
    run.__enter__()
    assert [(view.name, view.status) for view in reader.runs()] == [("open", "running")]
    run.__exit__(None, None, None)
    assert [(view.name, view.status) for view in reader.runs()] == [("open", "ok")]


def test_a_run_that_is_entered_again_is_another_run(reader: Reader) -> None:
    run = clew.run("again")
    assert repr(run) == "<clew run 'again'>"
    ids = []
    for number in range(2):
        with run:
            run.output(number)
            with pytest.raises(RuntimeError, match="is open"):
                run.__enter__()
        ids.append(run.id)
    assert repr(run) == f"<clew run 'again', {run.id}>"
    views = reader.runs()
    assert [view.run_id for view in views] == [*reversed(ids)]
    assert [[slot.value for slot in span.generated] for span in reader.spans()] == [[0], [1]]


def test_why_of_a_run_that_was_not_recorded_says_so(reader: Reader) -> None:
    with pytest.raises(NotFound, match="<clew run 'never'> was not recorded"):
        clew.why(clew.run("never"), store=reader)


def test_without_init_a_run_starts_tracing_with_the_defaults(clean_tracing: None, tmp_path: Path) -> None:
    with clew.run("first") as run:
        pass
    assert run.id is not None
    assert (tmp_path / ".clew" / "FORMAT").exists()  # the working folder of the test
