"""A bound on the cache: it holds as calls are answered, in several processes, and no answer is wrong for it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings

import clew
from clew.lineage import index
from clew.lineage.rebuild import rebuild
from clew.replay.settings import Cache, size_bytes
from clew.store import eviction, segment
from clew.store.gc import Collection, collect
from clew.tracer.init import Tracer
from tests.cli.bed import environment
from tests.replay.conftest import LIVE, Caching, Counted, live


class Letters(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        for _ in texts:
            live("text")
        return [[float(len(text)), float(text.count("e"))] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def collected(tracer: Tracer, before_ns: int | None, **more: Any) -> Collection:
    opened, indexer = index.shared(tracer.folder)
    try:
        stems = segment.stems(tracer.folder.log)
        return collect(opened, before_ns, catch_up=lambda: indexer.catch_up(stems), **more)
    finally:
        index.forget(tracer.folder)


def test_the_bound_holds_as_calls_are_answered(caching: Caching) -> None:
    with caching(Cache(max_bytes="40kB")) as tracer:
        store = index.shared(tracer.folder)[0]
        for number in range(60):
            assert Counted().invoke(f"question {number}").text.endswith(f"to question {number}")
            assert eviction.total_bytes(store) <= 40_000
        assert LIVE["llm"] == 60
        kept = eviction.total_bytes(store)
        assert kept > 20_000
        for number in reversed(range(60)):  # what was evicted is asked again, the rest is served
            assert Counted().invoke(f"question {number}").text.endswith(f"to question {number}")
        assert 60 < LIVE["llm"] < 120


def test_what_was_evicted_stays_away_from_later_processes(caching: Caching) -> None:
    with caching() as tracer:
        for number in range(3):
            Counted().invoke(f"question {number}")
    assert collected(tracer, None, max_bytes=1).actions == 0
    for again in (lambda: None, lambda: rebuild(tracer.folder)):
        again()
        LIVE.clear()
        with caching(Cache(llm=False)):
            pass
        with caching() as tracer:
            store = index.shared(tracer.folder)[0]
            assert eviction.total_bytes(store) == 0
    with caching():
        Counted().invoke("question 0")
        Counted().invoke("question 0")
    assert LIVE == {"llm": 1}


ASKING = """
import random, sys, clew
from clew.replay.settings import Cache
from tests.replay.conftest import LIVE, Counted
clew.init("p", store=sys.argv[1], cache=Cache(max_bytes=sys.argv[2]))
clew.instrument()
chance = random.Random(int(sys.argv[3]))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(150):
    number = chance.randrange(12)
    text = Counted().invoke(f"question {number}").text
    assert text.endswith(f" to question {number}"), text
clew.shutdown()
from clew.tracer import init
print(LIVE.get("llm", 0))
"""


def test_answers_stay_right_while_other_processes_evict(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(ASKING)
    started = [
        subprocess.Popen(
            [sys.executable, "main.py", str(tmp_path / "store"), bound, str(seed)],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed, bound in enumerate(("1", "6kB", "1GB"))  # the first evicts all, each time
    ]
    for one in started:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    done = [one.communicate(timeout=240) for one in started]
    assert [one.returncode for one in started] == [0, 0, 0], done
    assert all("left out of the trace" not in err for _, err in done)
    assert sum(int(out) for out, _ in done) > 12


def test_answers_of_batches_that_are_asked_for_outlive_their_process(caching: Caching) -> None:
    texts = [
        f"text number {number} of a handbook that is embedded by one process and again by others" for number in range(5)
    ]
    with caching():
        first = Letters().embed_documents(texts)
    limit = time.time_ns()
    with caching() as tracer:
        assert Letters().embed_documents(texts) == first
    assert LIVE == {"text": 5}
    collected(tracer, limit)
    with caching():
        assert Letters().embed_documents(texts) == first
    assert LIVE == {"text": 5}


def test_an_old_answer_that_nobody_asked_for_goes_with_its_process(caching: Caching) -> None:
    with caching() as tracer:
        Counted().invoke("hello")
    found = collected(tracer, time.time_ns())
    assert [(one.reason, one.kind, one.model, one.count) for one in found.forgotten] == [
        ("collected", "llm", "counted", 1)
    ]
    with caching():
        Counted().invoke("hello")
    assert LIVE == {"llm": 2}


def test_an_old_answer_that_was_served_since_stays_with_the_call_that_it_is_of(caching: Caching) -> None:
    with caching():
        Counted().invoke("hello")
    limit = time.time_ns()
    with caching() as tracer:
        Counted().invoke("hello")
    found = collected(tracer, limit)
    assert found.actions == 1
    with caching():
        Counted().invoke("hello")
    assert LIVE == {"llm": 1}
    with clew.open(tracer.folder.path) as reader:
        last = [span for span in reader.spans() if span.kind == "llm"][-1]
        (link,) = last.links
        assert link[2] == "served_from"
        assert reader.span(link[1]).attributes["clew.cache.hit"] is False


def test_named_artifacts_are_no_part_of_what_is_evicted(caching: Caching) -> None:
    with caching(Cache(max_bytes=1)) as tracer:
        clew.dataset("handbook", [{"text": "A row of a dataset that was given a name."}], text="text")
        Counted().invoke("hello")
    collected(tracer, None, max_bytes=1, expired=True)
    with clew.open(tracer.folder.path) as reader:
        assert reader.artifact("dataset/handbook@1[0]")["text"] == "A row of a dataset that was given a name."


@pytest.mark.parametrize("said", ["", "much", "2 XB", "-1", 0, True, 1.5, "0GB"])
def test_a_size_that_is_none_is_said_at_once(said: Any) -> None:
    with pytest.raises(ValueError, match="size"):
        Cache(max_bytes=said)


def test_sizes_are_read_as_they_are_shown() -> None:
    assert [size_bytes(said) for said in ("500MB", "2 GB", "1kb", 7, "7", "1.5kB")] == [
        500_000_000,
        2_000_000_000,
        1_000,
        7,
        7,
        1_500,
    ]


def test_a_bound_is_of_the_store_and_not_of_a_block() -> None:
    with pytest.raises(TypeError, match="max_bytes"), clew.caching(max_bytes=1):
        pass
