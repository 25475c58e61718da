"""The cache: an answer is used again for the same request only, comes back as it was, and never hides what happened."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph

import clew
from tests.lineage.lineage_bed import Given, documents, rows, used
from tests.replay.cache_bed import counting, invoked, other_ways, spans, streamed, ways
from tests.replay.conftest import LIVE, Caching, Counted, live

# -- what is served


@ways
@other_ways
def test_a_call_and_a_stream_share_one_answer(caching: Caching, way: Any, other: Any) -> None:
    with caching():
        first = way(Counted(), "hello").strip()
        assert other(Counted(), "hello").strip() == first
    assert LIVE == {"llm": 1}


def test_a_stream_that_was_streamed_comes_in_the_same_chunks(caching: Caching) -> None:
    with caching():
        first, second = ([chunk.text for chunk in Counted().stream("a b c")] for _ in range(2))
    assert first == second
    assert len(second) > 4
    assert LIVE == {"llm": 1}


def test_a_served_answer_is_equal_and_has_an_id_of_its_own(caching: Caching) -> None:
    model = Counted(tool="calc")
    with caching():
        first, second = model.invoke("hello"), model.invoke("hello")
    assert first.id != second.id
    assert first.model_copy(update={"id": None}) == second.model_copy(update={"id": None})
    second.content = "changed by the program"
    with caching():
        assert model.invoke("hello").text == first.text
    assert LIVE == {"llm": 1}


def test_callbacks_fire_on_a_hit(caching: Caching) -> None:
    class Heard(BaseCallbackHandler):
        def __init__(self) -> None:
            self.events: list[str] = []

        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            self.events.append("start")

        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            self.events.append(token)

        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            self.events.append("end")

    with caching():
        heard = [Heard(), Heard()]
        for one in heard:
            list(Counted().stream("hello", config={"callbacks": [one]}))
    assert heard[0].events == heard[1].events
    assert heard[1].events[0] == "start"
    assert heard[1].events[-1] == "end"
    assert len(heard[1].events) > 4
    assert LIVE == {"llm": 1}


def test_a_hit_is_a_span_that_cost_nothing_and_names_the_one_that_did(caching: Caching) -> None:
    with caching() as tracer:
        for _ in range(2):
            Counted().invoke("hello")
        first, second = spans(tracer)
    assert first.attributes["clew.cache.hit"] is False
    assert first.attributes["gen_ai.usage.input_tokens"] == 7
    assert second.attributes["clew.cache.hit"] is True
    assert second.attributes["gen_ai.usage.input_tokens"] == 0
    assert second.attributes["clew.cache.key"] == first.attributes["clew.cache.key"]
    assert [link[1:] for link in second.links] == [(first.span_id, "served_from")]
    assert [slot.value["content"] for slot in second.generated] == [slot.value["content"] for slot in first.generated]


# -- what is another request


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "https://two.example"},
        {"top_k": 2},
        {"tool": "calc"},
        {"temperature": 0.0000001},
        {"says": "x"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_model_with_another_setting_is_another_one(caching: Caching, change: dict[str, Any]) -> None:
    """LiteLLM and DSPy: two servers with one model name shared a key; `min_p` was no part of it."""
    with caching():
        Counted().invoke("hello")
        Counted(**change).invoke("hello")
    assert LIVE == {"llm": 2}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([HumanMessage("ab"), HumanMessage("c")], [HumanMessage("a"), HumanMessage("bc")]),
        ([HumanMessage("a")], [SystemMessage("a")]),
        ([HumanMessage("a")], [HumanMessage("a", name="b")]),
        ([HumanMessage("a")], [HumanMessage("a"), HumanMessage("")]),
        ([HumanMessage([{"type": "text", "text": "1"}])], [HumanMessage([{"type": "text", "text": 1}])]),
    ],
    ids=["split", "role", "name", "length", "type"],
)
def test_messages_that_differ_are_another_request(caching: Caching, one: Any, other: Any) -> None:
    """LlamaIndex: ['ab','c'] and ['a','bc'] shared a key."""
    with caching():
        Counted(says="x").invoke(one)
        Counted(says="x").invoke(other)
    assert LIVE == {"llm": 2}


def test_stop_words_and_options_are_part_of_the_request(caching: Caching) -> None:
    with caching():
        for more in ({}, {"stop": ["x"]}, {"stop": ["y"]}, {"min_p": 0.1}, {"min_p": 0.9}, {"date": "2026-01-01"}):
            Counted().invoke("hello", **more)
    assert LIVE == {"llm": 6}


def conversation(call_id: str, message_id: str | None) -> list[Any]:
    return [
        HumanMessage("hello", id=message_id),
        AIMessage(
            "",
            id=f"run-{message_id}",
            tool_calls=[{"name": "calc", "args": {}, "id": call_id}],
            response_metadata={"id": call_id, "model_provider": "x", "token_usage": {"total": len(call_id)}},
            usage_metadata={"input_tokens": len(call_id), "output_tokens": 1, "total_tokens": 1 + len(call_id)},
        ),
        ToolMessage("9", tool_call_id=call_id),
    ]


def test_minted_ids_and_counts_are_no_part_of_the_request(caching: Caching) -> None:
    """LangGraph: a message's uuid was in the key."""
    with caching():
        first = Counted().invoke(conversation("call_1", "m1")).text
        assert Counted().invoke(conversation("another", "m2")).text == first
    assert LIVE == {"llm": 1}


def test_an_id_that_answers_another_call_is_another_request(caching: Caching) -> None:
    calls = [{"name": "calc", "args": {}, "id": "a"}, {"name": "calc", "args": {}, "id": "b"}]
    with caching():
        for answered in ("a", "b"):
            Counted().invoke([AIMessage("", tool_calls=calls), ToolMessage("9", tool_call_id=answered)])
    assert LIVE == {"llm": 2}


def test_how_a_request_is_transported_is_no_part_of_it(caching: Caching) -> None:
    with caching():
        Counted().invoke("hello")
        Counted().invoke("hello", timeout=3)
        Counted(tags=["x"], metadata={"y": 1}).invoke("hello", config={"tags": ["z"]})
    assert LIVE == {"llm": 1}


# -- sampled calls


def test_a_sampled_call_that_is_made_again_in_a_run_has_an_answer_of_its_own(caching: Caching) -> None:
    """inspect_ai#2580, dspy#8745: n samples must not become one."""
    answers: list[list[str]] = []
    for _ in range(2):
        with caching(), clew.run("samples"):
            answers.append([Counted(temperature=None).invoke("hello").text for _ in range(3)])
    assert answers[0] == answers[1]
    assert len(set(answers[0])) == 3
    assert LIVE == {"llm": 3}


def test_samples_of_graphs_in_one_run_stay_apart(caching: Caching) -> None:
    """Each graph is a run of its own; their samples are those of the run around them."""

    class State(TypedDict):
        text: str

    def ask(state: State) -> dict[str, str]:
        return {"text": Counted(temperature=1.0).invoke("say").text}

    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    agent = graph.compile()

    def three() -> list[str]:
        with clew.run("answer"):
            return [agent.invoke({"text": ""})["text"] for _ in range(3)]

    with caching(True):
        first = three()
        assert len(set(first)) == 3
        assert three() == first
    assert LIVE["llm"] == 3


# -- what is not used again


@ways
def test_an_error_is_not_used_again(caching: Caching, way: Any) -> None:
    class Failing(Counted):
        def _answer(self, messages: list[Any]) -> AIMessage:
            if live("failing") == 1:
                raise ConnectionError("down")
            return super()._answer(messages)

    with caching():
        with pytest.raises(ConnectionError):
            way(Failing(), "hello")
        assert way(Failing(), "hello").startswith("answer 1")
        assert way(Failing(), "hello").startswith("answer 1")
    assert LIVE == {"failing": 2, "llm": 1}


@ways
@pytest.mark.parametrize("reason", ["length", "content_filter", "max_tokens"])
def test_an_answer_that_was_cut_short_is_not_used_again(caching: Caching, way: Any, reason: str) -> None:
    with caching() as tracer:
        for _ in range(2):
            way(Counted(finish_reason=reason), "hello")
        assert {span.attributes["clew.cache.refused"] for span in spans(tracer)} == {f"it ended by {reason}"}
    assert LIVE == {"llm": 2}


def test_a_stream_whose_reader_goes_away_is_not_used_again(caching: Caching) -> None:
    with caching():
        stream = Counted().stream("a b c d e f")
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert streamed(Counted(), "a b c d e f").endswith("f")
    assert LIVE == {"llm": 2}


def test_an_answer_that_holds_a_credential_is_not_kept(caching: Caching, tmp_path: Path) -> None:
    key = "sk-proj-" + "aB3dE6gH9jK2" * 4
    with caching() as tracer:
        texts = [Counted(says=f"your key is {key}").invoke("hello").text for _ in range(2)]
        assert spans(tracer)[0].attributes["clew.cache.refused"] == "the answer holds a credential"
    assert texts == [f"your key is {key}"] * 2
    assert LIVE == {"llm": 2}


def test_what_has_no_canonical_form_goes_by_the_cache_and_says_why(caching: Caching) -> None:
    with caching() as tracer:
        for _ in range(2):
            Counted().invoke("hello", helper=threading.Event)
            Counted().bind(handle=iter([])).invoke("hello")
        reasons = [span.attributes.get("clew.cache.bypass", "") for span in spans(tracer)]
    assert any("iterator" in reason for reason in reasons)
    assert LIVE["llm"] >= 3


# -- where it is on


def test_without_being_asked_for_nothing_is_cached(caching: Caching) -> None:
    with caching(None):
        assert [Counted().invoke("hello").text for _ in range(2)] == ["answer 1 to hello", "answer 2 to hello"]


def test_each_kind_is_switched_by_itself(caching: Caching) -> None:
    with caching("tool"):
        search = counting("search", "pure")
        for _ in range(2):
            Counted().invoke("hello")
            search.invoke({"x": 1})
    assert LIVE == {"llm": 2, "search": 1}


def test_the_environment_switches_it(caching: Caching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEW_CACHE", "llm")
    with caching(None):
        for _ in range(2):
            Counted().invoke("hello")
    assert LIVE == {"llm": 1}


def test_a_call_can_go_by_the_cache_and_a_run_can_have_one(caching: Caching) -> None:
    with caching():
        Counted().invoke("hello")
        with clew.caching(False):
            Counted().invoke("hello")
        with clew.caching(llm=False):
            Counted().invoke("hello")
        Counted().invoke("hello")
    assert LIVE == {"llm": 3}
    LIVE.clear()
    with caching(None):
        with clew.caching(), clew.run("cached"):
            for _ in range(2):
                Counted().invoke("another")
        Counted().invoke("another")
    assert LIVE == {"llm": 2}


@pytest.mark.parametrize("said", ["llms", "llm,embeddings", 7])
def test_a_kind_that_is_none_is_refused(clean_tracing: None, tmp_path: Path, said: Any) -> None:
    with pytest.raises(ValueError, match="no kind of call"):
        clew.init("tests", store=tmp_path / "store", cache=said)


def test_a_cache_needs_content(clean_tracing: None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="capture=False"):
        clew.init("tests", store=tmp_path / "store", cache=True, capture=False)


# -- together


def test_many_threads_that_ask_at_once_ask_once(caching: Caching) -> None:
    barrier = threading.Barrier(8)

    class Slow(Counted):
        def _answer(self, messages: list[Any]) -> AIMessage:
            threading.Event().wait(0.05)
            return super()._answer(messages)

    def ask(_: int) -> str:
        barrier.wait(10)
        return str(Slow().invoke("hello").text)

    with caching(), ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {"answer 1 to hello"}
    assert LIVE == {"llm": 1}


def test_many_tasks_that_ask_at_once_ask_once(caching: Caching) -> None:
    class Slow(Counted):
        async def _agenerate(self, messages: list[Any], *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0.02)
            return self._generate(messages)

    async def ask() -> list[str]:
        return [one.text for one in await asyncio.gather(*(Slow().ainvoke("hello") for _ in range(8)))]

    with caching():
        assert set(asyncio.run(ask())) == {"answer 1 to hello"}
    assert LIVE == {"llm": 1}


def test_a_catalog_that_was_lost_has_the_answers_again(caching: Caching, tmp_path: Path) -> None:
    from clew.lineage import rebuild
    from clew.store.folder import Folder

    with caching():
        first = Counted().invoke("hello").text
    for path in (tmp_path / "store").glob("catalog.sqlite*"):
        path.unlink()
    rebuild.rebuild(Folder(tmp_path / "store"))
    with caching():
        assert Counted().invoke("hello").text == first
    assert LIVE == {"llm": 1}


def test_a_cache_that_fails_does_not_stop_the_program(
    caching: Caching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from clew.store.action import Actions

    def fail(*args: Any) -> Any:
        raise OSError("gone")

    with caching() as tracer:
        monkeypatch.setattr(Actions, "look", fail)
        monkeypatch.setattr(Actions, "publish", fail)
        assert [invoked(Counted(), "hello") for _ in range(2)] == ["answer 1 to hello", "answer 2 to hello"]
        assert set(tracer.faults.take()) == {"cache lookup", "cached answer"}


# -- lineage


def test_why_goes_through_a_hit_to_what_the_performed_call_used(caching: Caching) -> None:
    """A tool asks a model about a row, in other words. Its answer, served to another run, still leads to that row."""
    shelf = Given(found=documents(rows()[:1]))

    @clew.effect("pure", version="1")
    @tool
    def ask(topic: str) -> str:
        """Ask the handbook."""
        [found] = shelf.invoke(topic)
        said = Counted(says=says).invoke(f"Context:\n{found.page_content}\n\nWhich floor?").text
        return f"The handbook says this: {said}"

    says = "Go upstairs in the morning and ask for the colleague who looks after families."
    for hit in (False, True):
        with caching("tool") as tracer:
            if not hit:
                clew.dataset("handbook", rows(), key="id")
            with clew.run("ask") as run:
                run.output(ask.invoke({"topic": "leave"}))
            assert spans(tracer, "tool")[-1].attributes["clew.cache.hit"] is hit
            assert used(clew.why(run)) == ["h0"]
    assert LIVE == {"llm": 1}
