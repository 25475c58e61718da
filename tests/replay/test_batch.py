"""Batches: each text is embedded once, whoever asks, and what comes back is what the model would have answered."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings

import clew
from clew.lineage.view import SpanView
from clew.store.action import Actions
from clew.tracer.init import Tracer
from tests.replay.conftest import LIVE, Caching, Recorded, live

TEXTS = [f"text {number}" for number in range(100)]
SECONDS = 30  # after which a test says that somebody waits for ever


class Vectors(Embeddings):
    """Answers each text with its length and how often it was embedded."""

    def embed_documents(self, texts: list[str]) -> Any:
        live("call")
        return [[float(len(text)), float(live(text))] for text in texts]

    def embed_query(self, text: str) -> Any:
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> Any:
        return self.embed_documents(texts)


def embedded(model: Embeddings, texts: Any, is_async: bool) -> Any:
    return asyncio.run(model.aembed_documents(texts)) if is_async else model.embed_documents(texts)


def spans(tracer: Tracer) -> list[SpanView]:
    clew.flush()
    with clew.open(tracer.folder.path) as reader:
        return [span for span in reader.spans() if span.kind == "embedding"]


either_way = pytest.mark.parametrize("is_async", [False, True])


# -- a model that answers otherwise when it is asked for less


class Odd(Vectors):
    """Answers two texts with one vector, and any other number rightly."""

    def embed_documents(self, texts: list[str]) -> Any:
        found = super().embed_documents(texts)
        return found[:1] if len(texts) == 2 else found


@either_way
def test_where_a_part_is_answered_with_another_number_all_is_asked(caching: Caching, is_async: bool) -> None:
    with caching() as tracer:
        embedded(Odd(), ["a"], is_async)
        found = embedded(Odd(), ["bb", "a", "ccc"], is_async)
        hits = [span.attributes["clew.cache.hits"] for span in spans(tracer)]
    assert [vector[0] for vector in found] == [2, 1, 3]
    assert hits == [0, 0]
    assert LIVE["call"] == 3


@either_way
def test_an_answer_with_the_wrong_number_is_given_as_it_is_and_not_kept(caching: Caching, is_async: bool) -> None:
    with caching():
        assert [len(embedded(Odd(), ["a", "b"], is_async)) for _ in range(2)] == [1, 1]
    assert LIVE["call"] == 2


# -- sequences


def arrays(found: list[Any]) -> Any:
    import numpy

    return [numpy.array(one, dtype="<f4") for one in found]


def matrix(found: list[Any]) -> Any:
    import numpy

    return numpy.array(found, dtype="<f4")


@either_way
@pytest.mark.parametrize("shape", [list, tuple, arrays, matrix])
def test_a_sequence_of_any_kind_comes_back_as_that_kind_and_in_order(
    caching: Caching, is_async: bool, shape: Callable[[Any], Any]
) -> None:
    class Shaped(Vectors):
        def embed_documents(self, texts: list[str]) -> Any:
            return shape(super().embed_documents(texts))

    with caching():
        first = embedded(Shaped(), ["a", "bb", "ccc"], is_async)
        second = embedded(Shaped(), ["dddd", "ccc", "a", "ccc", "bb"], is_async)
    assert [int(vector[0]) for vector in second] == [4, 3, 1, 3, 2]
    assert type(first) is type(second)
    assert type(first[0]) is type(second[0])
    assert getattr(first, "dtype", None) == getattr(second, "dtype", None)
    assert LIVE["ccc"] == 1
    assert LIVE["call"] == 2


def test_vectors_that_are_drawn_one_by_one_are_the_programs_to_draw(caching: Caching) -> None:
    class Drawn(Vectors):
        def embed_documents(self, texts: list[str]) -> Any:
            return (vector for vector in super().embed_documents(texts))

    with caching():
        for number in (1, 2):
            assert list(Drawn().embed_documents(["a", "bb"])) == [[1.0, number], [2.0, number]]


def test_where_kinds_of_sequences_do_not_go_together_all_is_asked(caching: Caching) -> None:
    class Turning(Vectors):
        def embed_documents(self, texts: list[str]) -> Any:
            found = super().embed_documents(texts)
            return tuple(found) if "b" in texts else found

    with caching():
        Turning().embed_documents(["a"])
        Turning().embed_documents(["b"])
        assert Turning().embed_documents(["a", "b"]) == ([1.0, 2.0], [1.0, 2.0])


def test_texts_that_can_be_read_but_once_are_embedded(caching: Caching) -> None:
    with caching():
        for _ in range(2):
            assert [vector[0] for vector in Vectors().embed_documents(iter(["a", "bb"]))] == [1, 2]  # type: ignore[arg-type]
    assert LIVE["call"] == 1


def test_what_is_changed_by_one_who_got_it_is_not_changed_for_others(caching: Caching) -> None:
    with caching():
        first = Vectors().embed_documents(["a", "a", "b"])
        second = Vectors().embed_documents(["a", "a", "c"])
        second[0].append(7.0)
        assert second[1] == Vectors().embed_documents(["a"])[0] == [1.0, 1.0]
        assert first[0] == [1.0, 1.0]


# -- together


class Slow(Vectors):
    """Waits until all who ask have asked, or for a moment."""

    def embed_documents(self, texts: list[str]) -> Any:
        threading.Event().wait(0.05)
        return super().embed_documents(texts)

    async def aembed_documents(self, texts: list[str]) -> Any:
        await asyncio.sleep(0.05)
        return Vectors.embed_documents(self, texts)


@either_way
def test_what_a_batch_took_is_saved_once_and_not_by_each_of_its_texts(recorded: Recorded, is_async: bool) -> None:
    with recorded(cache=True) as tracer:
        began = time.time_ns()
        with clew.run("embed") as run:
            embedded(Slow(), TEXTS, is_async)
        took_ns = time.time_ns() - began
        embedded(Slow(), TEXTS, is_async)
        with clew.replay(run) as again:
            embedded(Slow(), TEXTS, is_async)
        saved = [span.attributes.get("clew.cache.saved.duration_ns") for span in spans(tracer)]
    assert LIVE["call"] == 1
    assert 50e6 * 0.9 < max(filter(None, saved)) <= took_ns
    assert again.certificate.seconds_saved * 1e9 <= took_ns


def test_the_answers_of_a_batch_are_written_together(caching: Caching, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    real = Actions.publish

    def publish(self: Actions, found: Any) -> None:
        found = list(found)
        written.append(len(found))
        real(self, found)

    monkeypatch.setattr(Actions, "publish", publish)
    with caching():
        Vectors().embed_documents(TEXTS)
    with caching():
        Vectors().embed_documents(TEXTS)
    assert written == [100]
    assert LIVE["call"] == 1


@either_way
def test_a_batch_that_is_longer_than_what_is_written_at_once_is_kept_whole(
    caching: Caching, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    monkeypatch.setattr("clew.replay.cache._PIECE_BYTES", 100)
    for _ in range(2):
        with caching():
            found = embedded(Vectors(), TEXTS, is_async)
            assert [vector[0] for vector in found] == [len(text) for text in TEXTS]
    assert LIVE["call"] == 1


@either_way
def test_many_threads_that_ask_for_the_same_texts_embed_each_once(caching: Caching, is_async: bool) -> None:
    barrier = threading.Barrier(8)

    def ask(number: int) -> Any:
        texts = TEXTS if number % 2 else TEXTS[::-1]
        barrier.wait(SECONDS)
        found = embedded(Slow(), texts, is_async)
        return found if number % 2 else found[::-1]

    with caching(), ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8), timeout=SECONDS))
    assert all(one == found[0] for one in found)
    assert {text: LIVE[text] for text in TEXTS} == dict.fromkeys(TEXTS, 1)


def test_many_tasks_that_ask_for_the_same_texts_embed_each_once(caching: Caching) -> None:
    async def ask() -> Any:
        return await asyncio.gather(*(Slow().aembed_documents(TEXTS) for _ in range(8)))

    with caching():
        found = asyncio.run(asyncio.wait_for(ask(), SECONDS))
    assert all(one == found[0] for one in found)
    assert {text: LIVE[text] for text in TEXTS} == dict.fromkeys(TEXTS, 1)


def test_batches_that_overlap_in_other_orders_wait_for_each_other_and_not_for_ever(caching: Caching) -> None:
    """A wants 1..60 and then 40..100 of B's: each claims a part, and both need what the other one has."""
    barrier = threading.Barrier(4)
    parts = [TEXTS[:60], TEXTS[40:], [*TEXTS[90:], *TEXTS[:10]], TEXTS[::-3]]

    def ask(texts: list[str]) -> Any:
        barrier.wait(SECONDS)
        return dict(zip(texts, Slow().embed_documents(texts), strict=True))

    with caching(), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, parts, timeout=SECONDS))
    assert [list(one) for one in found] == parts
    assert {text: LIVE[text] for text in TEXTS} == dict.fromkeys(TEXTS, 1)


def test_after_a_batch_that_failed_the_next_one_asks(caching: Caching) -> None:
    entered = threading.Event()

    class Failing(Vectors):
        def embed_documents(self, texts: list[str]) -> Any:
            if live("failing") == 1:
                entered.set()
                threading.Event().wait(0.05)
                raise ConnectionError("down")
            return super().embed_documents(texts)

    with caching(), ThreadPoolExecutor(2) as pool:
        first = pool.submit(Failing().embed_documents, ["a"])
        assert entered.wait(SECONDS)
        assert pool.submit(Failing().embed_documents, ["a"]).result(SECONDS) == [[1.0, 1.0]]
        with pytest.raises(ConnectionError):
            first.result(SECONDS)


def test_after_a_task_that_was_cancelled_the_next_one_asks(caching: Caching) -> None:
    async def ask() -> Any:
        entered = asyncio.Event()

        class Stuck(Vectors):
            async def aembed_documents(self, texts: list[str]) -> Any:
                if live("stuck") == 1:
                    entered.set()
                    await asyncio.Event().wait()
                return self.embed_documents(texts)

        first = asyncio.create_task(Stuck().aembed_documents(["a"]))
        await entered.wait()
        second = asyncio.create_task(Stuck().aembed_documents(["a"]))
        await asyncio.sleep(0)
        first.cancel()
        return await asyncio.wait_for(second, SECONDS)

    with caching():
        assert asyncio.run(ask()) == [[1.0, 1.0]]


def test_a_batch_inside_the_computation_of_the_same_texts_does_not_wait_for_it(caching: Caching) -> None:
    class Nested(Vectors):
        def embed_documents(self, texts: list[str]) -> Any:
            if live("nested") == 1:
                with ThreadPoolExecutor(1) as pool:
                    return pool.submit(Nested().embed_documents, texts).result(SECONDS)
            return super().embed_documents(texts)

    with caching():
        assert Nested().embed_documents(["a"]) == [[1.0, 1.0]]


def test_a_call_that_stops_the_event_loop_does_not_wait_for_a_task_of_it(caching: Caching) -> None:
    async def ask() -> Any:
        entered, go = asyncio.Event(), asyncio.Event()

        class Waiting(Vectors):
            async def aembed_documents(self, texts: list[str]) -> Any:
                entered.set()
                await go.wait()
                return self.embed_documents(texts)

        first = asyncio.create_task(Waiting().aembed_documents(["a"]))
        await entered.wait()
        Waiting().embed_documents(["a"])
        go.set()
        return await asyncio.wait_for(first, SECONDS)

    with caching():
        assert len(asyncio.run(ask())) == 1
