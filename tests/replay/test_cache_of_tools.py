"""The cache of tools and retrievers: only what says that it may be used again is."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import tool
from langchain_core.vectorstores import InMemoryVectorStore

import clew
from tests.lineage.lineage_bed import BagOfWords
from tests.replay.cache_bed import counting, spans
from tests.replay.conftest import LIVE, Caching, live

# -- tools


def test_a_tool_that_says_nothing_is_called_each_time(caching: Caching, caplog: pytest.LogCaptureFixture) -> None:
    with caching() as tracer, caplog.at_level("INFO", "clew"):
        search = counting("search")
        assert [search.invoke({"x": 1}) for _ in range(3)] == ["1 for 1", "2 for 1", "3 for 1"]
        assert "clew.effect" in spans(tracer, "tool")[0].attributes["clew.cache.bypass"]
    assert sum("search" in record.getMessage() for record in caplog.records) == 1


def test_a_pure_tool_is_called_once_for_its_arguments(caching: Caching) -> None:
    with caching():
        search = counting("search", "pure")
        asked = [search.invoke({"x": x}) for x in (1, 1, 2, 1)]
    assert asked == ["1 for 1", "1 for 1", "2 for 2", "1 for 1"]


def test_what_was_read_is_good_for_its_time(caching: Caching, monkeypatch: pytest.MonkeyPatch) -> None:
    from clew.replay import cache

    now = [1_800_000_000_000_000_000]
    monkeypatch.setattr(cache.time, "time_ns", lambda: now[0])
    with caching():
        weather = counting("weather", "read", ttl="10m")
        assert weather.invoke({"x": 1}) == "1 for 1"
        now[0] += 599 * 10**9
        assert weather.invoke({"x": 1}) == "1 for 1"
        now[0] += 2 * 10**9
        assert weather.invoke({"x": 1}) == "2 for 1"
        assert weather.invoke({"x": 1}) == "2 for 1"


def test_what_was_read_before_the_clock_was_set_back_is_of_no_known_age(
    caching: Caching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was good until the clock came to that time again, however long that took."""
    from clew.replay import cache

    now = [1_800_000_000_000_000_000]
    monkeypatch.setattr(cache.time, "time_ns", lambda: now[0])
    with caching():
        weather, search = counting("weather", "read", ttl="10m"), counting("search", "pure")
        assert [weather.invoke({"x": 1}), search.invoke({"x": 1})] == ["1 for 1", "1 for 1"]
        now[0] -= 86400 * 10**9
        assert [weather.invoke({"x": 1}), search.invoke({"x": 1})] == ["2 for 1", "1 for 1"]
        assert weather.invoke({"x": 1}) == "2 for 1"
        with clew.caching(ttl="10d"):
            now[0] -= 86400 * 10**9
            assert search.invoke({"x": 1}) == "2 for 1"


def test_a_write_is_done_once_for_each_idempotency_key(caching: Caching) -> None:
    with caching():
        pay = counting("pay", "write", idempotency_key=lambda arguments: arguments["x"] % 2)
        assert [pay.invoke({"x": x}) for x in (1, 3, 2)] == ["1 for 1", "1 for 1", "2 for 2"]


def test_a_tool_that_never_is_used_again(caching: Caching) -> None:
    with caching():
        roll = counting("roll", "never")
        assert [roll.invoke({"x": 1}) for _ in range(2)] == ["1 for 1", "2 for 1"]


def test_a_tool_call_of_a_model_gets_its_answer_under_its_own_id(caching: Caching) -> None:
    with caching():
        search = counting("search", "pure")
        answers = [
            search.invoke({"type": "tool_call", "name": "search", "args": {"x": 1}, "id": name}) for name in ("a", "b")
        ]
    assert [(one.content, one.tool_call_id) for one in answers] == [("1 for 1", "a"), ("1 for 1", "b")]


def test_two_tools_of_one_name_are_two(caching: Caching) -> None:
    with caching(clew.Cache(tools={"same": "pure"})):

        @tool("same")
        def one(x: int) -> int:
            """Do it."""
            return x + 1

        @tool("same")
        def other(x: int) -> int:
            """Do it."""
            return x + 2

        assert [one.invoke({"x": 1}), other.invoke({"x": 1}), one.invoke({"x": 1})] == [2, 3, 2]


@pytest.mark.parametrize("value", [(1, 2), {1: "a"}, {"a": (1, [2])}, b"x", 2**70, float("inf"), None, True, {1, 2}])
def test_what_a_tool_returned_comes_back_in_its_type(caching: Caching, value: Any) -> None:
    @clew.effect("pure")
    def give(x: int) -> Any:
        """Give."""
        live("give")
        return value

    with caching():
        given = [tool(give).invoke({"x": 1}) for _ in range(2)]
    assert given == [value, value]
    assert type(given[1]) is type(value)
    assert LIVE == {"give": 1}


def test_an_object_that_cannot_be_kept_is_made_each_time(caching: Caching) -> None:
    class Handle:
        pass

    @clew.effect("pure")
    def give(x: int) -> Any:
        """Give."""
        live("give")
        return Handle()

    with caching() as tracer:
        given = [tool(give).invoke({"x": 1}) for _ in range(2)]
        assert "Handle" in spans(tracer, "tool")[0].attributes["clew.cache.refused"]
    assert given[0] is not given[1]
    assert LIVE == {"give": 2}


# -- retrievers


class Shelf(BaseRetriever):
    edition: int = 0

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        live("retriever")
        return [Document(f"{query} in edition {self.edition}", id="d", metadata={"n": (1, 2)})]


def test_a_retriever_is_asked_once_for_a_query(caching: Caching) -> None:
    with caching(clew.Cache(retriever=True)):
        first = Shelf().invoke("x")
        again = Shelf().invoke("x")
        assert Shelf(edition=1).invoke("x") != first
        assert Shelf().invoke("y") != first
    assert again == first
    assert again[0].metadata == {"n": (1, 2)}
    assert LIVE == {"retriever": 3}


def test_a_vector_store_that_changed_is_asked_again(caching: Caching) -> None:
    with caching(clew.Cache(retriever=True, embedding=False)) as tracer:
        store = InMemoryVectorStore(BagOfWords())
        store.add_documents([Document("one", id="1")])
        retriever = store.as_retriever(search_kwargs={"k": 5})
        assert [len(retriever.invoke("one")) for _ in range(2)] == [1, 1]
        store.add_documents([Document("two", id="2")])
        assert len(retriever.invoke("one")) == 2
        hits = [span.attributes["clew.cache.hit"] for span in spans(tracer, "retriever")]
    assert hits == [False, True, False]
