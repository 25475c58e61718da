"""Patches of one recorded answer, of each kind of call."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseLLM
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import Generation, LLMResult
from langchain_core.tools import tool

import clew
from clew.replay.playback.patches import from_dict
from clew.store.errors import NotFound, ReplayMiss
from tests.replay.conftest import LIVE, Counted, live
from tests.replay.patches.bed import Library, Recording, hybrid, looked_up, recorded, search, spans


def loop() -> list[Any]:
    """A model that calls a tool, again and again."""
    messages: list[Any] = [HumanMessage("start")]
    for _ in range(3):
        asked = (
            Counted(tool="search").bind(tools=[{"type": "function", "function": {"name": "search"}}]).invoke(messages)
        )
        call = {**asked.tool_calls[0], "args": {"query": asked.text[-8:]}}
        messages += [asked, search.invoke(call)]
    return messages


def test_one_answer_of_a_tool_in_the_middle_is_another_one(recording: Recording) -> None:
    with recording() as tracer:
        run = recorded(loop)
        span = spans(tracer, run.id, "tool")[1]
        messages, certificate, _ = hybrid(run, clew.Answer(span.span_id[:12], "nothing"), loop)
        assert messages[4].content == "nothing"
        assert isinstance(messages[4], ToolMessage)
        assert certificate.served == {"llm": 2, "tool": 2}
        assert certificate.live[0].kind == "llm"
        assert "messages[4].content: “found" in certificate.live[0].why
        assert "→ “nothing”" in certificate.live[0].why
        with pytest.raises(ReplayMiss, match=r"messages\[4\]\.content: “found .*” → “nothing”"):  # noqa: SIM117
            with clew.replay(run, patch=clew.Answer(span, "nothing")):
                loop()


@pytest.mark.parametrize("way", ["invoke", "stream"])
@pytest.mark.parametrize("value", ["said otherwise", AIMessage("said otherwise"), {"content": "said otherwise"}])
def test_an_answer_of_a_model(recording: Recording, value: Any, way: str) -> None:
    def body() -> str:
        model = Counted(says="words")
        if way == "stream":
            return "".join(one.text for one in model.stream("x"))
        return model.invoke("x").text

    with recording() as tracer:
        run = recorded(body)
        with clew.replay(run, patch=clew.Answer(spans(tracer, run.id, "llm")[0], value)) as again:
            assert body() == "said otherwise"
        assert again.certificate.live == []
        assert again.certificate.patches[0].endswith(": 1 time")
        assert spans(tracer, again.id, "llm")[0].generated[0].value["content"] == "said otherwise"


def test_tool_calls_of_a_patched_answer_have_the_recorded_ids(recording: Recording) -> None:
    calls: list[Any] = []

    def body() -> None:
        calls.append(Counted(tool="search").invoke("x").tool_calls[0])

    with recording() as tracer:
        run = recorded(body)
        value = {"content": "", "tool_calls": [{"name": "search", "args": {"query": "z"}}]}
        with clew.replay(run, patch=from_dict(clew.Answer(spans(tracer, run.id, "llm")[0], value).to_dict())):
            body()
        assert calls[1]["id"] == calls[0]["id"]
        assert calls[1]["args"] == {"query": "z"}


class Vectors(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        live("embedding")
        return [[float(len(text)), 0.5] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        live("embedding")
        return [1.0, 2.0]


class Completes(BaseLLM):
    @property
    def _llm_type(self) -> str:
        return "completes"

    def _generate(self, prompts: list[str], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> LLMResult:
        live("llm")
        return LLMResult(generations=[[Generation(text="old")] for _ in prompts])


def test_answers_of_everything_else(recording: Recording) -> None:
    def body() -> list[Any]:
        vectors = Vectors()
        return [
            vectors.embed_query("q"),
            vectors.embed_documents(["a", "bb"]),
            [one.page_content for one in Library().invoke("q")],
            Completes().invoke("p"),
        ]

    with recording() as tracer:
        run = recorded(body)
        query, many = spans(tracer, run.id, "embedding")
        patch = [
            clew.Answer(query, [0.0, 1.0]),
            clew.Answer(many, [[0.0, 0.0], [1.0, 1.0]]),
            clew.Answer(spans(tracer, run.id, "retriever")[0], ["one", {"text": "two", "id": "d"}, Document("three")]),
            clew.Answer(spans(tracer, run.id, "llm")[0], "new"),
        ]
        with clew.replay(run, patch=patch) as again:
            assert body() == [[0.0, 1.0], [[0.0, 0.0], [1.0, 1.0]], ["one", "two", "three"], "new"]
        assert LIVE == {}
        assert again.certificate.served == {"embedding": 2, "llm": 1, "retriever": 1}


def test_a_call_that_failed_answers(recording: Recording) -> None:
    @tool
    def broken(query: str) -> str:
        """Break."""
        raise RuntimeError("broken")

    def body() -> str:
        try:
            return str(broken.invoke({"query": "q"}))
        except RuntimeError:
            return "it broke"

    with recording() as tracer:
        run = recorded(body)
        with clew.replay(run, patch=clew.Answer(spans(tracer, run.id, "tool")[0], "mended")):
            assert body() == "mended"


def test_an_answer_of_no_call_of_the_run(recording: Recording) -> None:
    with recording():
        run = recorded(looked_up)
        with pytest.raises(
            NotFound, match=r"no recorded call of this run has the span 'ffff'; its calls: \w+ \(tool search\)"
        ):
            clew.replay(run, patch=clew.Answer("ffff", 1)).__enter__()
