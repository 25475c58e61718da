"""`clew.init` and what ends it: once, again, off, without content, after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.threading import ThreadingInstrumentor

import clew
from clew.lineage import index
from clew.lineage.reader import Reader
from clew.store.errors import AlreadyInitialized, NotInitialized, StoreFormatError
from clew.tracer import init
from clew.tracer.init import Tracer
from tests.tracer.store_bytes import everything


def program(body: str, store: Path, **environment: str) -> str:
    """Run a traced program in a process of its own; what it printed."""
    head = "import os, sys, clew\nclew.init('tests', store=sys.argv[1])\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", head + textwrap.dedent(body), str(store)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
        cwd=store.parent,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_calling_again_with_equal_arguments_does_nothing(tracer: Tracer) -> None:
    assert clew.init("tests", store=tracer.folder.path) is tracer
    assert clew.init("tests", store=os.path.relpath(tracer.folder.path)) is tracer


@pytest.mark.parametrize("change", [{"project": "x"}, {"store": "elsewhere"}, {"capture": False}])
def test_calling_again_with_others_is_an_error_that_says_both(tracer: Tracer, change: dict[str, object]) -> None:
    arguments = {"project": "tests", "store": tracer.folder.path, **change}
    with pytest.raises(AlreadyInitialized, match=r"clew\.shutdown\(\)") as raised:
        clew.init(**arguments)  # type: ignore[arg-type]
    assert init.active() is tracer
    assert [name for name in ("project", "store", "capture", "cache") if f"{name}=" in str(raised.value)] == [*change]


def test_after_shutdown_it_may_begin_again_elsewhere(tracer: Tracer, tmp_path: Path) -> None:
    with clew.run("first"):
        pass
    clew.shutdown()
    clew.shutdown()
    assert init.active() is None
    with pytest.raises(NotInitialized):
        init.current()
    second = clew.init("tests", store=tmp_path / "second")
    assert second is not None
    with clew.run("second"):
        pass
    for path, name in ((tracer.folder.path, "first"), (tmp_path / "second", "second")):
        with clew.open(path) as reader:
            assert [run.name for run in reader.runs()] == [name]


def test_what_begins_in_a_second_store_has_no_parent_in_the_first(tracer: Tracer, tmp_path: Path) -> None:
    with clew.run("first", session="s-1"):
        clew.shutdown()
        clew.init("tests", store=tmp_path / "second")
        with clew.run("second"), clew.trace("work"):
            pass
        with clew.trace("alone"):
            pass
    with clew.open(tmp_path / "second") as reader:
        (run,) = reader.runs()
        assert (run.name, run.session) == ("second", "s-1")
        assert [span.name for span in reader.spans(run)] == ["second", "work"]
        assert [span.name for span in reader.spans()] == ["second", "work", "alone"]
    with clew.open(tracer.folder.path) as reader:
        assert [(span.name, span.status) for span in reader.spans()] == [("first", "ok")]


def test_shutdown_gives_everything_back(clean_tracing: None, tmp_path: Path) -> None:
    before = threading.Thread.start, trace._set_tracer_provider, trace._TRACER_PROVIDER
    for _ in range(3):
        clew.init(store=tmp_path / "store")
        assert ThreadingInstrumentor().is_instrumented_by_opentelemetry
        clew.shutdown()
        assert (threading.Thread.start, trace._set_tracer_provider, trace._TRACER_PROVIDER) == before
        assert not ThreadingInstrumentor().is_instrumented_by_opentelemetry
    assert init.active() is None
    assert [path.suffix for path in (tmp_path / "store" / "log").iterdir()] == [".zlog"] * 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("clew-")]


def test_uninstrument_leaves_spans_and_threads_working(tracer: Tracer, reader: Reader) -> None:
    clew.uninstrument()
    with clew.run("run"):
        thread = threading.Thread(target=clew.trace("work")(lambda: None))
        thread.start()
        thread.join()
    spans = {span.name: span for span in reader.spans()}
    assert spans["work"].parent_id == spans["run"].span_id


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_switched_off_it_does_nothing_at_all(
    clean_tracing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "variable":
        monkeypatch.setenv("CLEW_DISABLED", "1")
    assert clew.init(store=tmp_path / "store", enabled=how == "variable") is None
    before = trace.get_tracer_provider()
    with clew.run("run") as run:
        run.output(1)
        data = clew.dataset("d", [{"text": "x"}], text="text")
        assert [document.text for document in data.documents()] == ["x"]
        assert clew.artifact("model", {"a": 1}, "m").digest is None
        assert clew.trace(lambda x: x)(3) == 3
    clew.flush()
    assert run.id is None
    assert data.version is None
    assert trace.get_tracer_provider() is before
    assert list(tmp_path.iterdir()) == []


def test_an_empty_variable_or_zero_does_not_switch_it_off(
    clean_tracing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("", "0"):
        monkeypatch.setenv("CLEW_DISABLED", value)
        assert clew.init("x", store=tmp_path / "store") is not None


def test_the_store_is_where_the_variable_says(
    clean_tracing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEW_STORE", str(tmp_path / "there"))
    clew.init()
    assert (tmp_path / "there" / "FORMAT").exists()


def test_a_tilde_is_the_home_folder_in_writing_and_in_reading(
    clean_tracing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tracer = clew.init("x", store="~/kept")
    assert repr(tracer) == f"<clew tracer of project 'x', store {tmp_path / 'kept'}>"
    clew.shutdown()
    with clew.open("~/kept") as reader:
        assert repr(reader) == f"<clew store {tmp_path / 'kept'}>"


def test_a_store_that_cannot_be_made_leaves_the_program_untraced_and_says_why(
    clean_tracing: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert clew.init(store=tmp_path / "file" / "store") is None
    assert "nothing is traced: cannot make a store" in caplog.text
    assert "clew doctor" not in caplog.text  # without a store it has nothing to show
    with clew.run("run") as run:
        pass
    assert run.id is None


def test_a_folder_of_other_files_is_the_users_mistake_and_raises(clean_tracing: None, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(StoreFormatError):
        clew.init(store=tmp_path)


PLANTED = "the words that no store may hold: Bucephalus Rocinante Incitatus, sixty-four characters and more"


def test_without_capture_the_store_has_digests_and_joins_but_no_content(clean_tracing: None, tmp_path: Path) -> None:
    store = tmp_path / "store"
    tracer = clew.init("tests", store=store, capture=False)
    assert tracer is not None
    data = clew.dataset(
        "d", [{"id": "r1", "text": PLANTED}, {"id": "r2", "text": "another, Bayard, " * 9}], "text", key="id"
    )
    otel = trace.get_tracer("theirs")

    @clew.trace("look", kind="retriever")
    def look(question: str) -> list[clew.Document]:
        return list(data.documents())[:1]

    @clew.trace("tell")
    def tell(document: clew.Document, nested: object) -> str:
        return document.text

    with clew.run("ask") as run:
        with otel.start_as_current_span("call") as span:
            span.set_attribute("gen_ai.input.messages", PLANTED)
            span.set_attribute("llm.input_messages.0.message.content", PLANTED)
            span.set_attribute("metadata", f'{{"customer": "{PLANTED}"}}')
            span.add_event("gen_ai.user.message", {"gen_ai.event.content": PLANTED})
            span.set_attribute("customer.tier", "gold")
            span.record_exception(ValueError(PLANTED))
        (found,) = look("where is Bucephalus?")
        run.output(tell(found, {"short": "Marengo", "b": [b"Copenhagen"]}))
        with pytest.raises(ValueError, match="Rocinante"), clew.trace("fails"):
            raise ValueError(PLANTED)
    clew.artifact("prompt", PLANTED, "planted")
    clew.flush()
    assert tracer.faults.counts == {}
    with clew.open(store) as reader:
        why = reader.why(run)
        assert [node.name for node in why.find(kind="row")] == ["dataset/d@1[0]"]
        spans = reader.spans()
        assert len(spans) == 5
        told = next(span for span in spans if span.name == "tell")
        assert {slot.role for slot in told.used} == {"document", "nested"}
        call = next(span for span in spans if span.name == "call")
        assert call.attributes["customer.tier"] == "gold"  # a name of the program's own
    clew.shutdown()
    held = everything(store)
    for word in ("Bucephalus", "Rocinante", "Incitatus", "Bayard", "Marengo", "Copenhagen"):
        assert not [name for name, data in held.items() if word.encode() in data], word


def test_a_fork_is_a_process_run_of_its_own_with_the_facets_of_its_parent(clean_tracing: None, tmp_path: Path) -> None:
    store = tmp_path / "store"
    program(
        """
        with clew.run("parent") as run:
            clew.flush()
            child = os.fork()
            if child == 0:
                with clew.run("child"), clew.trace("work"):
                    pass
                clew.flush()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            with clew.trace("after"):
                pass
        """,
        store,
    )
    with clew.open(store) as reader:
        runs = {run.name: run for run in reader.runs(all=True) if not run.process}
        spans = {span.name: span for span in reader.spans()}
        processes = [run for run in reader.runs(all=True) if run.process]
    assert set(spans) == {"parent", "child", "work", "after"}
    assert {span.status for span in spans.values()} == {"ok"}
    assert runs["parent"].process_id != runs["child"].process_id
    assert {run.run_id for run in processes} == {run.process_id for run in runs.values()}
    assert spans["child"].trace_id == spans["parent"].trace_id  # the child goes on where it was forked


def test_a_forked_child_that_leaves_its_parents_blocks_does_not_end_them(clean_tracing: None, tmp_path: Path) -> None:
    store = tmp_path / "store"
    program(
        """
        with clew.run("run") as run, clew.trace("block"):
            child = os.fork()
            if child == 0:
                with clew.trace("own"):
                    pass
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0
            with clew.open(sys.argv[1]) as reader:
                found = {span.name: span.status for span in reader.spans()}
            assert found == {"run": "running", "block": "running", "own": "ok"}, found
            run.output("the parent's answer")
        """,
        store,
    )
    with clew.open(store) as reader:
        spans = {span.name: span for span in reader.spans()}
        assert {span.status for span in spans.values()} == {"ok"}
        assert spans["own"].parent_id == spans["block"].span_id
        assert [slot.value for slot in spans["run"].generated] == ["the parent's answer"]


def test_a_process_pool_that_forks_loses_nothing(clean_tracing: None, tmp_path: Path) -> None:
    store = tmp_path / "store"
    program(
        """
        import multiprocessing
        @clew.trace("work")
        def work(number): return number * number
        with clew.run("pool"), multiprocessing.get_context("fork").Pool(3) as pool:
            assert pool.map(work, range(50)) == [number * number for number in range(50)]
        """,
        store,
    )
    with clew.open(store) as reader:
        work = [span for span in reader.spans() if span.name == "work"]
        assert len(work) == 50
        assert {span.status for span in work} == {"ok"}


def test_what_happens_outside_any_run_belongs_to_the_process_run(clean_tracing: None, tmp_path: Path) -> None:
    store = tmp_path / "store"
    program("with clew.trace('alone'):\n    pass\n", store)
    with clew.open(store) as reader:
        assert reader.runs() == []
        (process,) = reader.runs(all=True)
        (span,) = reader.spans()
        assert process.process
        assert process.status == "ok"
        assert span.run_id == process.run_id
        facets = {span.kind for span in reader.spans()}
        assert facets == {"chain"}


def test_the_process_record_has_code_environment_entry_and_principal(tracer: Tracer) -> None:
    clew.flush()
    assert set(tracer.process.facets) == {"code", "environment", "entry", "principal"}
    with Reader(tracer.folder.path) as reader:
        environment = reader.artifact("b3:" + tracer.process.facets["environment"].hex())
        assert {"clew", "pytest", "hypothesis"} & {one["name"] for one in environment["distributions"]}
        entry = reader.artifact("b3:" + tracer.process.facets["entry"].hex())
        assert entry["argv"] == sys.argv


def test_ending_the_program_seals_the_log_without_being_asked(clean_tracing: None, tmp_path: Path) -> None:
    store = tmp_path / "store"
    program("with clew.run('run'):\n    pass\n", store)
    assert [path.suffix for path in (store / "log").iterdir()] == [".zlog"]


def test_what_is_open_when_the_program_ends_was_closed_early_and_not_killed(
    clean_tracing: None, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    program("clew.run('left').__enter__()\nclew.trace('open').__enter__().used('its input')\n", store)
    with clew.open(store) as reader:
        assert {(span.name, span.status, span.end_ns) for span in reader.spans()} == {
            ("left", "closed_early", None),
            ("open", "closed_early", None),
        }
        process, run = sorted(reader.runs(all=True), key=lambda run: run.started_ns)
        assert (run.status, run.duration_ns) == ("closed_early", None)
        assert (process.process, process.status) == (True, "ok")
        assert process.duration_ns is not None  # its end is what tells the one from the other


def test_a_store_that_was_removed_is_no_fault_at_the_programs_end(clean_tracing: None, tmp_path: Path) -> None:
    program(
        "import shutil\nwith clew.run('run'):\n    pass\nclew.flush(); shutil.rmtree(sys.argv[1])\n", tmp_path / "store"
    )


def test_an_open_store_of_this_process_is_forgotten_when_closed(tracer: Tracer) -> None:
    with Reader(tracer.folder.path) as reader:
        reader.runs()
        assert (os.getpid(), tracer.folder.path) in index._shared
    assert (os.getpid(), tracer.folder.path) not in index._shared
