"""A LangGraph node that was answered from the cache shows that it was, and lineage goes on through it."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph

import clew
from clew.tracer.init import Tracer
from tests.lineage.lineage_bed import Given, documents, rows, used
from tests.replay.cache_bed import spans
from tests.replay.conftest import LIVE, Caching, Counted, live
from tests.replay.node_cache_bed import POLICY, State, answering, graph


def test_a_served_node_is_a_span_with_what_it_read_and_wrote(caching: Caching) -> None:
    def after(state: State) -> State:
        return {"found": [live("after")]}

    builder = StateGraph(State)
    builder.add_node("answering", answering, cache_policy=POLICY)
    builder.add_node("after", after)
    builder.add_edge(START, "answering")
    builder.add_edge("answering", "after")
    with caching(None) as tracer:
        for _ in range(2):
            builder.compile(cache=clew.NodeCache(), name="G").invoke({"question": "why"})
        first, then, second, last = sorted(spans(tracer, "node"), key=lambda span: span.start_ns)
        stats = {(row.kind, row.hits, row.misses) for row in _stats(tracer)}
    assert [span.name for span in (first, then, second, last)] == ["answering", "after"] * 2
    assert first.attributes["clew.cache.hit"] is False
    assert second.attributes["clew.cache.hit"] is True
    assert first.attributes["clew.cache.key"] == second.attributes["clew.cache.key"]
    assert (first.span_id, "served_from") in [link[1:] for link in second.links]
    assert second.attributes["langgraph.step"] == 1
    assert [(slot.role, slot.value) for slot in second.used] == [(slot.role, slot.value) for slot in first.used]
    assert [(slot.role, slot.value) for slot in second.generated] == [("answer", "answer 1 to why"), ("found", [1])]
    assert (second.span_id, "triggered_by") in [link[1:] for link in last.links]
    assert stats == {("node", 1, 1)}


def _stats(tracer: Tracer) -> Any:
    from clew.replay.stats import stats

    with clew.open(tracer.folder.path) as reader, reader.store.read() as connection:
        return stats(connection)


@pytest.mark.parametrize("as_messages", [False, True])
def test_why_goes_through_a_cached_node_to_what_the_node_that_ran_used(caching: Caching, as_messages: bool) -> None:
    """The node retrieves a row and has a model say it in other words: the second run only gets the words."""
    says = "Go upstairs in the morning and ask for the colleague who looks after families."
    shelf = Given(found=documents(rows()[:1]))

    def ask(state: Any) -> Any:
        [found] = shelf.invoke("leave")
        answer = Counted(says=says).invoke(f"Context:\n{found.page_content}\n\nWhich floor?")
        return {"messages": [answer]} if as_messages else {"answer": answer.text}

    given = {"messages": [HumanMessage("Where do I go?", id="human-1")]} if as_messages else {"question": "Where?"}
    for hit in (False, True):
        with caching(None) as tracer:
            if not hit:
                clew.dataset("handbook", rows(), key="id")
            made = graph(
                ask, state=MessagesState if as_messages else State, cache=clew.NodeCache(versions={"ask": "1"})
            )
            made.invoke(given)
            assert spans(tracer, "node")[-1].attributes["clew.cache.hit"] is hit
            with clew.open(tracer.folder.path) as reader:
                last = next(iter(reader.runs()))
            assert used(clew.why(last.run_id)) == ["h0"]
    assert LIVE == {"llm": 1}


def test_documents_that_a_cached_node_wrote_are_those_of_the_dataset(caching: Caching) -> None:
    def retrieve(state: State) -> State:
        live("node")
        return {"found": documents(rows()[:2])}

    with caching(None):
        for _ in range(2):
            found = graph(retrieve, cache=clew.NodeCache(versions={"retrieve": "1"})).invoke({"question": "x"})["found"]
            assert [type(one) for one in found] == [Document, Document]
            assert [one.page_content for one in found] == [one.page_content for one in documents(rows()[:2])]
    assert LIVE == {"node": 1}


def test_a_node_in_a_subgraph_is_served_where_its_graph_runs(caching: Caching) -> None:
    inner = StateGraph(State)
    inner.add_node("answering", answering, cache_policy=POLICY)
    inner.add_edge(START, "answering")
    inner.add_edge("answering", END)
    outer = StateGraph(State)
    outer.add_node("inner", inner.compile(cache=clew.NodeCache()))
    outer.add_edge(START, "inner")
    made = outer.compile()
    with caching(None) as tracer:
        first, second = (made.invoke({"question": "x"}) for _ in range(2))
        paths = [span.path for span in spans(tracer, "node") if span.name == "answering"]
    assert first == second
    assert len(paths) == 2
    assert len(set(paths)) == 1
    assert LIVE == {"node": 1}


def test_a_node_of_which_nothing_came_is_not_remembered(caching: Caching) -> None:
    def failing(state: State) -> State:
        raise ConnectionError("down")

    cache = clew.NodeCache()
    with caching(None):
        for _ in range(3):
            with pytest.raises(ConnectionError):
                graph(failing, cache=cache).invoke({"question": "x"})
        gc.collect()
        assert not cache._asked


def test_several_messages_that_are_served_lead_to_what_any_of_them_may_be_of(caching: Caching) -> None:
    says = "Go upstairs in the morning and ask for the colleague who looks after families."
    shelf = Given(found=documents(rows()[:1]))

    def ask(state: Any) -> Any:
        [found] = shelf.invoke("leave")
        answer = Counted(says=says).invoke(f"Context:\n{found.page_content}\n\nWhich floor?")
        return {"messages": [AIMessage("Let me look it up in the handbook."), answer]}

    for hit in (False, True):
        with caching(None) as tracer:
            if not hit:
                clew.dataset("handbook", rows(), key="id")
            made = graph(ask, state=MessagesState, cache=clew.NodeCache(versions={"ask": "1"}))
            made.invoke({"messages": [HumanMessage("Where do I go?", id="human-1")]})
            with clew.open(tracer.folder.path) as reader:
                why = clew.why(next(iter(reader.runs())).run_id)
            assert used(why) == ([] if hit else ["h0"])
            assert bool(why.possible) is hit
    assert LIVE == {"llm": 1}


def test_without_langgraph_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from clew import integrations

    monkeypatch.setitem(sys.modules, "langgraph.callbacks", None)
    with pytest.raises(ImportError, match=r"clew\[langgraph\]"):
        integrations.NodeCache  # noqa: B018
