"""Chat and completion models below their public methods: one call, one span, whatever the class delegates to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, FakeListLLM
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from opentelemetry import trace as otel
from pydantic import Field

import clew
from clew.tracer import context
from tests.integrations.boundary_bed import instrumented, traced

HELLO = [HumanMessage("hello")]


def result(text: str) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])


class Echo(BaseChatModel):
    """Says what it was told, and notes which span was current while it did."""

    prefix: str = "echo"
    seen: list[Any] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "echo"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"prefix": self.prefix}

    def text(self, messages: list[BaseMessage]) -> str:
        here = context.enclosing()
        self.seen.append(None if here is None else here.kind)
        return f"{self.prefix} {messages[-1].content}"

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kw: Any
    ) -> ChatResult:
        return result(self.text(messages))


class Bare(Echo):
    """Takes no run manager."""

    def _generate(self, messages: list[BaseMessage], stop: Any = None, **kw: Any) -> ChatResult:  # type: ignore[override]
        return result(self.text(messages))

    async def _agenerate(self, messages: list[BaseMessage], stop: Any = None, **kw: Any) -> ChatResult:  # type: ignore[override]
        await asyncio.sleep(0)
        return result(self.text(messages))


class Streaming(Echo):
    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kw: Any
    ) -> Iterator[ChatGenerationChunk]:
        for word in self.text(messages).split():
            yield ChatGenerationChunk(message=AIMessageChunk(word + " "))

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kw: Any
    ) -> ChatResult:
        return result("".join(str(chunk.message.content) for chunk in self._stream(messages, stop)))


class AsyncStreaming(Streaming):
    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kw: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for word in self.text(messages).split():
            await asyncio.sleep(0)
            yield ChatGenerationChunk(message=AIMessageChunk(word + " "))


class Router(Echo):
    """Calls another model with its own run manager."""

    other: BaseChatModel

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kw: Any
    ) -> ChatResult:
        return self.other._generate(messages, stop, run_manager, **kw)


class Careful(Echo):
    """Asks its superclass."""

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kw: Any
    ) -> ChatResult:
        return super()._generate(messages, stop, run_manager, **kw)


class Copying(Echo):
    """Answers through a copy of itself."""

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kw: Any
    ) -> ChatResult:
        if kw.get("copied"):
            return result(self.text(messages))
        return self.model_copy()._generate(messages, stop, run_manager, copied=True)


class Told(BaseCallbackHandler):
    def __init__(self) -> None:
        self.events: list[str] = []

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("start")

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.events.append(f"token {token}")

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("end")


async def test_every_public_way_is_one_span_in_which_the_body_runs(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        for model in (Echo(seen=[]), Bare(seen=[]), Streaming(seen=[]), AsyncStreaming(seen=[]), Careful(seen=[])):
            before = len(bed.log.of("llm"))
            assert model.invoke("hello").content.strip() == "echo hello"  # type: ignore[union-attr]
            await model.ainvoke("hello")
            assert "".join(str(chunk.content) for chunk in model.stream("hello")).strip() == "echo hello"
            assert "".join([str(chunk.content) async for chunk in model.astream("hello")]).strip() == "echo hello"
            model.batch(["a", "b"])
            await model.abatch(["a", "b"])
            model.generate([HELLO, HELLO, HELLO])
            await model.agenerate([HELLO, HELLO, HELLO])
            spans = bed.log.of("llm")[before:]
            assert len(spans) == 14, type(model)
            assert {span.status for span in spans} == {"ok"}
            assert model.seen == ["llm"] * 14, type(model)
        assert not bed.faults


async def test_generate_without_a_run_manager_ties_each_run_to_its_own_call(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        messages = [[HumanMessage(f"question {i}")] for i in range(6)]
        current: dict[str, bytes] = {}

        class Noting(Bare):
            def text(self, messages: list[BaseMessage]) -> str:
                here = context.enclosing()
                assert here is not None
                current[str(messages[-1].content)] = here.span_id
                return "noted"

        await Noting().agenerate(messages)
        Noting().generate(messages)
        log = bed.log
        spans = log.of("llm")
        assert len(spans) == 12
        asked = {span.start.span_id: log.value(span.used[0])[-1]["content"] for span in spans}
        assert {text: asked[span] for text, span in current.items()} == {text: text for text in current}
        assert len(current) == 6


def test_callbacks_still_fire_and_stream_works_where_there_is_no_stream(tmp_path: Path) -> None:
    plain, below = Told(), Told()
    Streaming().invoke("hello", config={"callbacks": [plain]})
    list(Echo().stream("hello", config={"callbacks": [plain]}))
    with instrumented(tmp_path):
        Streaming().invoke("hello", config={"callbacks": [below]})
        list(Echo().stream("hello", config={"callbacks": [below]}))
    assert below.events == plain.events
    assert below.events[0] == "start"


def test_a_model_that_asks_another_makes_two_calls(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        Router(other=Echo(prefix="other")).invoke("hello")
        log = bed.log
        outer, inner = log.of("llm")
        assert log.parent(inner) is outer
        assert log.value(inner.used[0])[0]["content"] == "hello"
        assert log.value(inner.generated[0])["content"] == "other hello"
        assert log.value(outer.generated[0])["content"] == "other hello"


def test_a_copy_that_differs_in_nothing_is_the_same_call(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        assert Copying().invoke("hello").content == "echo hello"
        bed.log.one("llm")


async def test_a_call_below_the_callbacks_gets_a_span_of_its_own(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        with clew.trace("node"):
            Echo()._generate(HELLO, stop=["."], tools=[{"type": "function", "function": {"name": "calc"}}])
        await Echo()._agenerate(HELLO)
        list(Streaming()._stream(HELLO))
        assert [chunk async for chunk in AsyncStreaming()._astream(HELLO)]
        log = bed.log
        first, second, third, fourth = log.of("llm")
        parent = log.parent(first)
        assert parent is not None
        assert parent.name == "node"
        assert [slot.role for slot in first.used] == ["messages", "model", "tools"]
        assert first.used[2].name == "calc"
        about = log.value(first.used[1])
        assert about["class"].endswith("test_model_boundary.Echo")
        assert about["parameters"]["stop"] == ["."]
        assert log.value(first.generated[0])["content"] == "echo hello"
        assert log.value(second.generated[0])["content"] == "echo hello"
        assert log.value(third.generated[0])["content"] == "echo hello "
        assert log.value(fourth.generated[0])["content"] == "echo hello "
        assert not bed.faults


def test_a_completion_model_is_a_boundary_too(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        model = FakeListLLM(responses=["one", "two", "three"])
        assert model.invoke("hello") == "one"
        assert "".join(model.stream("hello")) == "two"
        assert len(bed.log.of("llm")) == 2
        model._generate(["directly"])
        log = bed.log
        last = log.of("llm")[2]
        assert log.value(last.used[0]) == "directly"
        assert log.value(last.generated[0]) == "three"
        assert last.attributes["gen_ai.operation.name"] == "text_completion"
        assert not bed.faults


def test_a_span_of_the_users_in_the_body_nests_under_the_model(tmp_path: Path) -> None:
    class Calling(Echo):
        def text(self, messages: list[BaseMessage]) -> str:
            with otel.get_tracer("http").start_as_current_span("POST"):
                return "posted"

    with instrumented(tmp_path) as bed:
        Calling().invoke("hello")
        RunnableLambda(lambda text: Calling().invoke(text).content).invoke("hello")
        log = bed.log
        posts = [span for span in log.spans if span.name == "POST"]
        assert [log.parent(span) for span in posts] == log.of("llm")


def test_a_stream_that_is_left_early_leaves_no_context_behind(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        model = Streaming()
        stream = model.stream("hello")
        next(stream)
        assert context.enclosing() is None
        stream.close()
        assert context.enclosing() is None
        assert model.invoke("hello").content
        assert [span.status for span in bed.log.of("llm")] == ["closed_early", "ok"]


async def test_concurrent_streams_and_calls_keep_apart(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        model = AsyncStreaming()

        async def one(i: int) -> str:
            return "".join([str(chunk.content) async for chunk in model.astream(f"number {i}")])

        answers = await asyncio.gather(*(one(i) for i in range(10)))
        assert answers == [f"echo number {i} " for i in range(10)]
        log = bed.log
        spans = log.of("llm")
        assert len(spans) == 10
        for span in spans:
            asked = log.value(span.used[0])[-1]["content"]
            assert log.value(span.generated[0])["content"] == f"echo {asked} "


def test_an_error_is_recorded_once_and_reaches_the_program(tmp_path: Path) -> None:
    class Failing(Echo):
        def text(self, messages: list[BaseMessage]) -> str:
            raise TimeoutError("no answer")

    with instrumented(tmp_path) as bed:
        with pytest.raises(TimeoutError):
            Failing().invoke("hello")
        with pytest.raises(TimeoutError):
            Failing()._generate(HELLO)
        assert [span.status for span in bed.log.of("llm")] == ["error", "error"]


def test_identical_requests_are_numbered_and_others_are_not(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        model = Echo()
        for text in ("a", "a", "b"):
            model.invoke(text)
        Echo(prefix="another").invoke("a")
        assert [span.attributes.get("clew.occurrence") for span in bed.log.of("llm")] == [None, 1, None, None]


def test_a_callback_alone_traces_below_it_only(tmp_path: Path) -> None:
    tracer = clew.init(project="boundaries", store=tmp_path / "store")
    assert tracer is not None
    try:
        handler = clew.callback()
        model = Echo(seen=[])
        model.invoke("outside")
        model.invoke("inside", config={"callbacks": [handler]})
        assert model.seen == [None, "llm"]
    finally:
        clew.shutdown()


def test_a_stream_consumed_after_shutdown_goes_on(tmp_path: Path) -> None:
    with traced(tmp_path):
        stream = Streaming()._stream(HELLO)
    assert [chunk.text for chunk in stream] == ["echo ", "hello "]


def test_a_model_is_what_its_parameters_are_now_of_whatever_type_and_however_deep(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        schema = {"type": "json_schema", "json_schema": {"name": "A"}}
        model = Echo()
        for name in "AAABBC":
            schema["json_schema"]["name"] = name  # type: ignore[index]
            model.invoke("x", response_format=schema)
        for temperature in (0, 0.0, False, 0):
            model.invoke("x", temperature=temperature)
        asked = [next(slot.digest for slot in span.used if slot.kind == "model") for span in bed.log.of("llm")]
    assert [asked.index(one) for one in asked[:6]] == [0, 0, 0, 3, 3, 5]
    assert [asked[6:].index(one) for one in asked[6:]] == [0, 1, 2, 0]


def test_a_tool_definition_that_changes_is_another_tool(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        definition: dict[str, Any] = {"type": "function", "function": {"name": "calc", "strict": 1}}
        for strict in (1, 1, True, 1.0):
            definition["function"]["strict"] = strict
            Echo().invoke("x", tools=[definition])
        tools = [next(slot.digest for slot in span.used if slot.kind == "tool") for span in bed.log.of("llm")]
    assert [tools.index(one) for one in tools] == [0, 0, 2, 3]


def test_a_response_with_values_that_cannot_be_compared_reaches_the_program(tmp_path: Path) -> None:
    class Odd(Echo):
        def _generate(self, messages: list[BaseMessage], *args: Any, **kw: Any) -> ChatResult:
            answer = result("hi")
            answer.llm_output = {"token_usage": {"prompt_tokens": np.array([1, 2])}}
            return answer

    with instrumented(tmp_path) as bed:
        Odd().invoke("x")
        Odd()._generate(HELLO)
        assert [span.status for span in bed.log.of("llm")] == ["ok", "ok"]
        assert not bed.faults
