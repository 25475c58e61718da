"""The callback handler on LangChain itself: chains, prompts, models, tools, retrievers, and how it is put in place."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import ToolException, tool
from opentelemetry import trace

import clew
from clew.integrations.langchain import constant, open_runs
from clew.tracer import context, init
from clew.tracer.capture import Batch
from clew.tracer.init import Tracer
from tests.integrations.conftest import log, traced


class Model(BaseChatModel):
    """Answers "one two"; tells usage as providers do."""

    temperature: float = 0.3
    fails: bool = False

    @property
    def _llm_type(self) -> str:
        return "model"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": "m-1", "temperature": self.temperature, "max_tokens": 9, "seed": 7, "top_p": 0.5}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": "mistral", "ls_model_name": "m-1", "ls_model_type": "chat"}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.fails:
            raise ConnectionError("provider is away")
        usage: Any = {
            "input_tokens": 12,
            "output_tokens": 5,
            "total_tokens": 17,
            "input_token_details": {"cache_read": 4, "cache_creation": 2},
            "output_token_details": {"reasoning": 3},
        }
        told = {"finish_reason": "stop", "model_name": "m-1-0806", "system_fingerprint": "fp"}
        message = AIMessage("one two", usage_metadata=usage, response_metadata=told)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        for word in ("one ", "two"):
            chunk = ChatGenerationChunk(message=AIMessageChunk(word))
            if run_manager:
                run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk


PROMPT = ChatPromptTemplate.from_messages(
    [("system", "You know {topic}. {tone}"), MessagesPlaceholder("history"), ("human", "{question}")]
).partial(tone="Be brief.")


def test_a_chain_is_a_run_of_its_own(tracer: Tracer) -> None:
    values = {"topic": "law", "history": [HumanMessage("before")], "question": "why?"}
    (PROMPT | Model()).invoke(values, traced(run_name="ask", metadata={"session_id": "s", "tenant": "x"}, tags=["t"]))
    content = log(tracer)
    root = content.one("workflow", "ask")
    assert [child.kind for child in content.children(root)] == ["prompt", "llm"]
    assert content.values(root.used)["question"] == "why?"
    assert content.values(root.generated)["output"]["content"] == "one two"
    assert root.attributes["metadata"] == '{"tenant": "x"}'
    assert root.attributes["tag.tags"] == ["t"]
    assert all("metadata" not in child.attributes for child in content.children(root))
    run = next(run for run in content.runs.values() if run.span_id)
    assert (run.name, run.session) == ("ask", "s")
    assert content.values(run.answer)["output"]["content"] == "one two"


def test_a_prompt_records_its_template_and_its_variables(tracer: Tracer) -> None:
    PROMPT.invoke({"topic": "law", "history": [HumanMessage("before")], "question": "why?"}, traced())
    span = log(tracer).one("prompt")
    used = log(tracer).values(span.used)
    assert used["template"] == {
        "messages": [["system", "You know {topic}. {tone}"], ["placeholder", "history"], ["user", "{question}"]]
    }
    assert (used["topic"], used["tone"], used["question"]) == ("law", "Be brief.", "why?")
    assert log(tracer).values(span.generated)["messages"] == [
        {"role": "system", "content": "You know law. Be brief."},
        {"role": "user", "content": "before"},
        {"role": "user", "content": "why?"},
    ]


def test_a_text_prompt_with_one_bare_variable(tracer: Tracer) -> None:
    PromptTemplate.from_template("Say {word}").invoke("yes", traced())  # type: ignore[arg-type]
    span = log(tracer).one("prompt")
    assert log(tracer).values(span.used) == {"template": {"messages": [["user", "Say {word}"]]}, "word": "yes"}
    assert log(tracer).values(span.generated) == {"prompt": "Say yes"}


def test_a_model_call_records_the_conventions_attributes(tracer: Tracer) -> None:
    Model().invoke([SystemMessage("s"), HumanMessage("h")], traced(), stop=["!"])
    content = log(tracer)
    call = content.one("llm", "m-1")
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mistral_ai",
        "gen_ai.request.model": "m-1",
        "gen_ai.request.temperature": 0.3,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.seed": 7,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.stop_sequences": ["!"],
        "gen_ai.response.model": "m-1-0806",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.cache_write.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 3,
        "openai.response.system_fingerprint": "fp",
    }
    assert {name: call.attributes.get(name) for name in expected} == expected
    used = content.values(call.used)
    assert used["messages"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "h"}]
    assert used["model"]["model"] == "m-1"
    assert used["model"]["parameters"]["temperature"] == 0.3
    message = content.values(call.generated)["message"]
    assert (message["role"], message["content"]) == ("assistant", "one two")
    assert [slot.info for slot in call.generated] == [{"index": 0}]


def test_two_temperatures_are_two_models(tracer: Tracer) -> None:
    for temperature in (0.1, 0.9, 0.1):
        Model(temperature=temperature).invoke("h", traced())
    models = [slot.digest for call in log(tracer).of("llm") for slot in call.used if slot.role == "model"]
    assert models[0] == models[2] != models[1]


def test_a_bound_tool_is_recorded_with_the_call(tracer: Tracer) -> None:
    definition = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {}}}
    model = Model().bind(tools=[definition])
    model.invoke("h", traced())
    definition["function"]["description"] = "Look it up."  # type: ignore[index]
    model.invoke("h", traced())
    content = log(tracer)
    slots = [slot for call in content.of("llm") for slot in call.used if slot.role == "tools"]
    assert [slot.name for slot in slots] == ["look", "look"]
    texts = [content.value(slot)["function"]["description"] for slot in slots]
    assert texts == ["Look.", "Look it up."]


def test_a_constant_has_the_digest_of_its_dict(tracer: Tracer) -> None:
    fields = {"name": "look", "parameters": {"a": [1, "x" * 100]}}
    batch = Batch(tracer.gate)
    assert batch.part(constant.constant(fields)) == batch.part(fields)
    assert constant.constant(fields) is constant.constant(fields)


def test_a_completion_model_and_its_batch_are_one_span_each(tracer: Tracer) -> None:
    FakeListLLM(responses=["a", "b", "c"]).batch(["1", "2", "3"], traced())
    content = log(tracer)
    pairs = {content.values(call.used)["prompt"]: content.values(call.generated)["text"] for call in content.of("llm")}
    assert pairs == {"1": "a", "2": "b", "3": "c"}
    assert {call.attributes["gen_ai.operation.name"] for call in content.of("llm")} == {"text_completion"}


@pytest.mark.parametrize("is_async", [False, True])
def test_a_stream_that_its_reader_leaves_is_closed_early(tracer: Tracer, is_async: bool) -> None:
    chain = RunnableLambda(lambda text: [HumanMessage(text)]) | Model()

    async def leave() -> None:
        stream = chain.astream("h", traced())
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]

    if is_async:
        asyncio.run(leave())
    else:
        for _ in chain.stream("h", traced()):
            break
    content = log(tracer)
    call = content.one("llm")
    assert call.status == "closed_early"
    assert content.one("workflow").status == "closed_early"
    assert call.attributes["gen_ai.response.time_to_first_chunk"] >= 0
    assert context.enclosing() is None


def test_a_streamed_chain_records_its_input_when_it_is_known(tracer: Tracer) -> None:
    chain = RunnableLambda(lambda word: f"say {word}") | FakeListChatModel(responses=["yes"])
    assert "".join(str(chunk.content) for chunk in chain.stream("x", traced())) == "yes"
    content = log(tracer)
    root = content.one("workflow")
    assert content.values(root.used) == {"input": "x"}
    assert root.status == "ok"


def test_an_error_of_a_model_reaches_the_user_and_the_log(tracer: Tracer) -> None:
    with pytest.raises(ConnectionError):
        Model(fails=True).invoke("h", traced())
    call = log(tracer).one("llm")
    assert call.status == "error"
    assert call.attributes["exception.message"] == "provider is away"


def test_fallbacks_and_retries_leave_nothing_open(tracer: Tracer) -> None:
    chain = Model(fails=True).with_retry(stop_after_attempt=2, wait_exponential_jitter=False).with_fallbacks([Model()])
    assert chain.invoke("h", traced()).content == "one two"
    content = log(tracer)
    assert [call.status for call in content.of("llm")] == ["error", "error", "ok"]
    assert len(content.spans) == content.ended


def test_branches_of_a_parallel_are_told_apart_by_their_keys(tracer: Tracer) -> None:
    RunnableParallel(first=Model(), second=Model()).invoke("h", traced(run_name="both"))
    assert sorted(call.start.path for call in log(tracer).of("llm")) == ["both/m-1[first]", "both/m-1[second]"]


def test_a_tool_that_handles_its_own_error_ends_in_error(tracer: Tracer) -> None:
    @tool
    def look(key: str) -> str:
        """Look a thing up."""
        raise ToolException("not there")

    look.handle_tool_error = True
    look.invoke({"name": "look", "args": {"key": "k"}, "id": "c-1", "type": "tool_call"}, traced())
    content = log(tracer)
    span = content.one("tool", "look")
    assert span.status == "error"
    assert content.values(span.used)["arguments"] == {"key": "k"}
    assert content.values(span.generated)["message"]["tool_call_id"] == "c-1"


def test_documents_keep_rank_and_score(tracer: Tracer) -> None:
    class Library(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
            return [Document("first", id="1", metadata={"score": 0.9}), Document("second", id="2")]

    Library().invoke("what", traced())
    content = log(tracer)
    span = content.one("retriever", "Library")
    assert content.values(span.used)["query"] == "what"
    assert [content.value(slot) for slot in span.generated] == [
        {"text": "first", "metadata": {"score": 0.9}, "id": "1"},
        {"text": "second", "metadata": {}, "id": "2"},
    ]
    assert [slot.info for slot in span.generated] == [{"rank": 0, "score": 0.9}, {"rank": 1}]


def test_a_child_started_inside_a_users_span_nests_under_it(tracer: Tracer) -> None:
    def body(text: str) -> Any:
        with trace.get_tracer("user").start_as_current_span("mine"):
            return Model().invoke(text)

    RunnableLambda(body).invoke("h", traced())
    content = log(tracer)
    above = content.parent(content.one("llm"))
    assert above is not None
    assert above.name == "mine"
    root = content.parent(above)
    assert root is not None
    assert root.kind == "workflow"


def test_instrument_reaches_threads_and_later_classes(tracer: Tracer) -> None:
    clew.instrument()
    clew.instrument()

    class Later(Model):
        pass

    worker = threading.Thread(target=lambda: Later().invoke("h"))
    worker.start()
    worker.join()
    assert log(tracer).one("llm").status == "ok"


def test_uninstrument_takes_everything_back_and_instrument_works_again(tracer: Tracer) -> None:
    from langchain_core.runnables import config
    from langchain_core.tracers import context as hooks

    before = config._set_config_context, list(hooks._configure_hooks)
    for _ in range(2):
        clew.instrument()
        assert (config._set_config_context, hooks._configure_hooks) != before
        Model().invoke("h")
        clew.uninstrument()
        assert (config._set_config_context, hooks._configure_hooks) == before
        Model().invoke("h")
    assert len(log(tracer).spans) == 2


def test_the_callback_goes_on_after_uninstrument(tracer: Tracer) -> None:
    clew.instrument()
    clew.uninstrument()
    Model().invoke("h", traced())
    assert log(tracer).one("llm").status == "ok"


def test_a_moved_private_name_costs_nesting_only(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    from langchain_core.runnables import config

    from clew.integrations.langchain import context as carrying

    class Moved:
        __name__ = config.__name__

    monkeypatch.setattr(carrying, "langchain_config", Moved())
    RunnableLambda(lambda text: Model().invoke(text)).invoke("h", traced())
    content = log(tracer)
    call = content.one("llm")
    assert content.parent(call) is content.one("workflow")
    assert [where for lost in content.lost for where in lost.counts] == ["LangChain context moved"]


def test_a_fault_of_our_own_never_reaches_the_program(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError("our fault")

    from clew.integrations.langchain import inference

    monkeypatch.setattr(inference, "answer", broken)
    assert Model().invoke("h", traced()).content == "one two"
    assert log(tracer).one("llm").status == "ok"
    assert "LangChain on_llm_end" in tracer.faults.take()


def test_where_clew_is_switched_off_the_callback_does_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLEW_DISABLED", "1")
    monkeypatch.chdir(tmp_path)
    try:
        Model().invoke("h", traced())
        clew.instrument()
        Model().invoke("h")
        assert init.active() is None
        assert not open_runs._spans
        assert list(tmp_path.iterdir()) == []
    finally:
        clew.shutdown()


def test_without_langchain_the_error_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['langchain_core'] = None\n"
        "import clew\n"
        "for call in (clew.callback, clew.instrument):\n"
        "    try: call()\n"
        "    except ImportError as error: assert 'clew[langchain]' in str(error), error\n"
        "    else: raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_a_decision_model_is_an_llm_span(tracer: Tracer) -> None:
    decisions = pytest.importorskip("langchain_core.decisions", reason="langchain-core before 1.8 has none")

    class Judge(decisions.BaseDecisionModel):  # type: ignore[name-defined,misc]
        @property
        def _provider(self) -> str:
            return "judges"

        def _classify(self, state: Any, questions: Any) -> Any:
            answers = {name: {"type": "noul", "noul": 0.75} for name in questions}
            usage = {"input_tokens": 8, "output_tokens": 1, "total_tokens": 9}
            return decisions.ClassifierResponse(model="j-1-b", answers=answers, usage=usage)

    questions = {"kind": decisions.Noul(instructions="Is it kind?")}
    Judge(model="j-1").invoke({"state": "hello", "questions": questions}, traced())
    content = log(tracer)
    span = content.one("llm", "j-1")
    assert span.status == "ok"
    assert span.attributes["gen_ai.provider.name"] == "judges"
    assert span.attributes["gen_ai.usage.input_tokens"] == 8
    assert content.values(span.generated)["message"].fields["answers"]["kind"].fields["noul"] == 0.75
