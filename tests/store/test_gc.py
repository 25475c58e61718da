"""Collecting old processes: nothing that a kept run or ref stands on goes, and what goes is gone for a rebuild too."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

import clew
from clew.lineage import index
from clew.lineage.rebuild import rebuild
from clew.store import segment
from clew.store.blob import file_path
from clew.store.digest import Digest
from clew.store.errors import NotFound
from clew.store.folder import Folder
from clew.store.gc import Collection, collect
from tests.cli import bed

HEAD = """
import sys, clew
clew.init("gc", store=sys.argv[1])

@clew.trace("search", kind="retriever")
def search(question, documents):
    return [one for one in documents if question in one.text]

@clew.trace("ask", kind="llm")
def ask(prompt):
    return "It says: " + prompt[-80:]

def answer(name, question, documents):
    with clew.run(name) as run:
        found = search(question, documents)
        run.output(ask("Answer from this context:\\n" + "\\n".join(one.text for one in found)))
"""
DATASET = (
    HEAD
    + """
rows = [{"text": f"Paragraph {i} of the handbook says that what is asked for is due {i} days later."} for i in range(4)]
clew.dataset("handbook", rows, text="text")
"""
)
DOCUMENT = """
documents = [clew.Document("Paragraph 2 of the handbook says that what is asked for is due 2 days later.", {}, "2")]
"""
LONE = (
    HEAD
    + """
documents = [clew.Document("Nothing else in this store has this very text, and nobody asks for it again.", {}, "x")]
answer("lone", "very text", documents)
"""
)
ANSWER = (
    HEAD
    + DOCUMENT
    + """
answer("answer", "Paragraph 2", documents)
"""
)
DERIVED = (
    HEAD
    + """
rows = [{"text": "A row whose own words the answer never shows, but which a document was made of once."}]
from clew.tracer import init
from clew.tracer.capture import Batch
from clew.store.record import Derivation
from clew.store.digest import Digest
tracer = init.current()
batch = Batch(tracer.gate)
document = clew.Document("What was made of the row by hand: its document, which a later process reads.", {}, "d")
effect, cause = bytes(batch.part(document)[1]), bytes(batch.part(clew.Document(rows[0]["text"]))[1])
batch.record(Derivation(b"", b"", "derived_from", "document", "document", [(effect, cause, None, None)], tracer.process_id))
batch.commit()
"""
)
READS_DERIVED = (
    HEAD
    + """
documents = [clew.Document("What was made of the row by hand: its document, which a later process reads.", {}, "d")]
answer("derived", "by hand", documents)
"""
)
LARGE = (
    HEAD
    + """
import random
with clew.run("large") as run:
    run.output("".join(random.Random(1).choices("abcdefgh ", k=3_000_000)))
"""
)


def wrote(source: str, store: Path) -> int:
    """Run a program; returns a time after everything it did."""
    finished = bed.program(source, store)
    assert finished.returncode == 0, finished.stderr
    assert "left out of the trace" not in finished.stderr
    return time.time_ns()


def collected(store: Path, before_ns: int, *, dry_run: bool = False) -> Collection:
    folder = Folder(store)
    opened, indexer = index.shared(folder)
    try:
        return collect(opened, before_ns, catch_up=lambda: indexer.catch_up(segment.stems(folder.log)), dry_run=dry_run)
    finally:
        index.forget(folder)


def lineages(store: Path) -> dict[str, Any]:
    """The run's name -> its `why`, of every run."""
    with clew.open(store) as reader:
        return {run.name: reader.why(run).to_dict() for run in reader.runs()}


def reasons(found: Collection) -> list[str | None]:
    return [one.reason for one in found.processes]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_an_old_process_that_nothing_needs_goes(store: Path) -> None:
    limit = wrote(LONE, store)
    wrote(ANSWER, store)
    before = lineages(store)
    found = collected(store, limit)
    assert reasons(found) == [None, "younger than the limit"]
    assert found.processes[0].runs == 1
    assert found.freed_bytes > 0
    assert len(segment.stems(store / "log")) == 1
    after = lineages(store)
    assert after == {"answer": before["answer"]}
    with clew.open(store) as reader, pytest.raises(NotFound):
        reader.why("lone")


def test_what_is_collected_is_gone_for_a_rebuild_too(store: Path) -> None:
    wrote(DATASET, store)
    limit = wrote(LONE, store)
    wrote(ANSWER, store)
    collected(store, limit)
    after = lineages(store)
    rebuild(Folder(store))
    assert lineages(store) == after
    assert list(after) == ["answer"]


def test_young_runs_still_read_content_that_an_old_process_wrote_first(store: Path) -> None:
    limit = wrote(ANSWER.replace('"answer"', '"old"'), store)
    wrote(ANSWER, store)
    with clew.open(store) as reader:
        content = [span.to_dict(content=True) for span in reader.spans("answer")]
    collected(store, limit)
    with clew.open(store) as reader:
        spans = reader.spans("answer")
        assert [span.to_dict(content=True) for span in spans] == content
        assert all("missing" not in slot for span in content for slot in [*span["used"], *span["generated"]])
        assert [run.name for run in reader.runs()] == ["answer"]


def test_a_process_that_named_something_stays(store: Path) -> None:
    limit = wrote(DATASET, store)
    found = collected(store, limit)
    assert reasons(found) == ["it named dataset/handbook@1"]
    with clew.open(store) as reader:
        assert len(reader.artifact("dataset/handbook@1[3]")["text"]) > 20


def test_a_process_that_declared_where_something_comes_from_stays(store: Path) -> None:
    limit = wrote(DERIVED, store)
    wrote(READS_DERIVED, store)
    before = lineages(store)
    assert any("A row whose own words" in str(node) for node in before["derived"]["nodes"].values())
    assert reasons(collected(store, limit)) == [
        "it declared where something comes from that a kept run or ref stands on",
        "younger than the limit",
    ]
    assert lineages(store) == before


def test_an_earlier_turn_that_a_kept_answer_leads_through_stays(store: Path) -> None:
    turn = """
with clew.run("NAME", session="s-1") as run:
    GIVEN
    run.output(ask(given))
"""
    first = turn.replace("NAME", "first").replace(
        "GIVEN", "given = 'the first question of a conversation of two turns'"
    )
    second = turn.replace("NAME", "second").replace(
        "GIVEN", "given = 'It says: the first question of a conversation of two turns'"
    )
    limit = wrote(HEAD + first, store)
    wrote(HEAD + second, store)
    before = lineages(store)
    led = any(node.get("run_id") == before["first"]["root"] for node in before["second"]["nodes"].values())
    found = collected(store, limit)
    assert (found.processes[0].reason is not None) == led
    assert lineages(store)["second"] == before["second"]
    assert led


def test_a_dry_run_changes_nothing_and_says_what_would_go(store: Path) -> None:
    limit = wrote(LONE, store)
    wrote(ANSWER, store)
    before = lineages(store)
    files = sorted(path.name for path in (store / "log").iterdir())
    planned = collected(store, limit, dry_run=True)
    assert sorted(path.name for path in (store / "log").iterdir()) == files
    assert lineages(store) == before
    done = collected(store, limit)
    assert reasons(done) == reasons(planned)
    assert done.freed_bytes == planned.freed_bytes


def test_a_living_writer_stays_whatever_its_age(store: Path) -> None:
    tracer = clew.init("gc", store=store)
    assert tracer is not None
    try:
        with clew.run("alive"):
            pass
        clew.flush()
        assert reasons(collected(store, time.time_ns() + 10**12)) == ["its writer is alive"]
    finally:
        clew.shutdown()


def test_a_killed_process_goes_like_any_other(store: Path) -> None:
    assert bed.program(bed.KILLED, store).returncode == -9
    assert list((store / "log").glob("*.log"))
    assert reasons(collected(store, time.time_ns())) == [None]
    assert segment.stems(store / "log") == []
    assert lineages(store) == {}


def test_numbers_of_collected_segments_are_not_given_again(store: Path) -> None:
    limit = wrote(LONE, store)
    with clew.open(store) as reader:  # remembers what number 1 is
        assert len(reader.spans()) == 3
        folder = reader.folder
        opened, indexer = index.shared(folder)
        collect(opened, limit, catch_up=lambda: indexer.catch_up(segment.stems(folder.log)))
        wrote(ANSWER, store)
        assert [span.attributes["clew.kind"] for span in reader.spans()] == ["workflow", "retriever", "llm"]
        assert reader.spans()[1].path == "answer/search"


def test_a_large_blob_goes_when_nothing_names_it_any_more(store: Path) -> None:
    limit = wrote(LARGE, store)
    with clew.open(store) as reader:
        (slot,) = reader.spans("large")[0].generated
    path = file_path(store / "blob", Digest.parse(slot.digest))
    assert path.exists()
    kept = wrote(LARGE.replace('"large"', '"again"'), store)  # names the same content
    assert collected(store, limit).files == []
    assert path.exists()
    with clew.open(store) as reader:
        assert len(reader.spans("again")[0].generated[0].value) == 3_000_000
    os.utime(path, ns=(limit, limit))
    assert collected(store, kept).files == [slot.digest]
    assert not path.exists()


def test_the_command_says_what_went_and_why_the_rest_stays(store: Path) -> None:
    wrote(DATASET, store)
    wrote(LONE, store)
    planned = bed.started("gc", "--older-than", "0s", "--dry-run", "--store", str(store))
    assert "would go" in planned.stdout
    found = json.loads(bed.started("gc", "--older-than", "0s", "--json", "--store", str(store)).stdout)
    assert found["schema"] == "clew/1"
    assert [one["reason"] for one in found["processes"]] == ["it named dataset/handbook@1", None]
    again = bed.started("gc", "--older-than", "0s", "--store", str(store)).stdout
    assert "kept: it named dataset/handbook@1" in again
    assert "removed: 0 of 1 processes" in again
