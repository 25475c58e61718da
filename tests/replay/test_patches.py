"""One thing is another than it was: what the change touches goes live, and nothing else; spans tell what was asked."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import Generation, LLMResult
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool, tool
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode
from pydantic import Field

import clew
from clew.lineage.reader import Reader
from clew.replay.playback.certificate import Certificate
from clew.replay.playback.outcome import counted
from clew.replay.playback.patch import Patch, _in_force, from_dict, in_force
from clew.replay.playback.prompt import SeenPrompt, prompts
from clew.replay.playback.replay import installed
from clew.replay.playback.replayer import Replayer
from clew.replay.playback.surroundings import Surroundings
from clew.replay.playback.terms import Terms
from clew.replay.recording.recording import load
from clew.store.errors import Ambiguous, NotFound, ReplayMiss
from clew.tracer.init import Tracer
from tests.replay.conftest import LIVE, Counted, live, program

Recording = Callable[[], AbstractContextManager[Tracer]]


@pytest.fixture
def recording(request: pytest.FixtureRequest) -> Recording:
    """`with recording() as tracer`: the `recorded` of the other tests; here that is what was."""
    return request.getfixturevalue("recorded")  # type: ignore[no-any-return]


def recorded(body: Callable[[], Any]) -> Any:
    with clew.run("recorded") as run:
        body()
    LIVE.clear()
    return run


def seen(tracer: Tracer, run: Any) -> list[SeenPrompt]:
    tracer.flush()
    with clew.open(tracer.folder.path) as opened:
        return prompts(opened, run)


def spans(tracer: Tracer, run: str | None, kind: str) -> list[Any]:
    tracer.flush()
    return [span for span in clew.open(tracer.folder.path).spans(run) if span.kind == kind]


def hybrid(run: Any, patch: Any, body: Callable[[], Any], **options: Any) -> tuple[Any, Certificate, Any]:
    """What the program gave with this patch, the certificate, and the replay."""
    with clew.replay(run, mode="hybrid", patch=patch, **options) as again:
        given = body()
    return given, again.certificate, again


# -- the planner agent, whose prompts are literal system messages


@pytest.fixture(scope="module")
def planner() -> ModuleType:
    module = program("planner_agent")
    sys.modules["planner_agent"] = module
    return module


STATE = {"question": "Q"}
WAYS: dict[str, Callable[[Any], str]] = {
    "invoked": lambda graph: graph.invoke(STATE)["answer"],
    "awaited": lambda graph: asyncio.run(graph.ainvoke(STATE))["answer"],
    "streamed": lambda graph: list(graph.stream(STATE, stream_mode=["messages", "values"]))[-1][1]["answer"],
    "streamed_async": lambda graph: asyncio.run(_collected(graph))[-1][1]["answer"],
}


async def _collected(graph: Any) -> list[Any]:
    return [part async for part in graph.astream(STATE, stream_mode=["messages", "values"])]


CHANGES = {  # prompt: as the program would be told, the new text, calls that go live
    "conclude-3": ({"final_prompt": "final v2"}, "final v2", 1),
    "plan": ({"plan_prompt": "plan v2"}, "plan v2", 23),
    "research": ({"branch_prompts": dict.fromkeys(range(6), "sceptic")}, "sceptic", 22),
}


@pytest.mark.parametrize("way", WAYS)
def test_prompts_of_the_planner_are_patched_by_name(planner: ModuleType, recording: Recording, way: str) -> None:
    ask, is_async = WAYS[way], way in ("awaited", "streamed_async")
    plain = {
        name: ask(planner.build(planner.Config(**fields), is_async=is_async))
        for name, (fields, _, _) in CHANGES.items()
    }
    with recording() as tracer:
        run = recorded(lambda: ask(planner.build(is_async=is_async)))
        names = {one.name: (one.text, one.calls) for one in seen(tracer, run)}
        assert names == {
            "plan": ("plan", 1),
            "research": ("You are a researcher", 6),
            "conclude-1": ("merge", 1),
            "conclude-2": ("criticise", 1),
            "conclude-3": ("final", 1),
        }
        for name, (_, text, expected) in CHANGES.items() if way == "invoked" else list(CHANGES.items())[:2]:
            planner.LIVE.clear()
            given, certificate, _ = hybrid(run, clew.Prompt(name, text), lambda: ask(planner.build(is_async=is_async)))
            assert (given, sum(planner.LIVE.values())) == (plain[name], expected)
            assert len(certificate.live) == expected
            assert certificate.patches == [f"prompt {name!r}: {'6 times' if name == 'research' else '1 time'}"]
            assert not any("met nothing" in note for note in certificate.notes)


def test_a_patch_ends_with_its_replay(planner: ModuleType, recording: Recording) -> None:
    with recording():
        run = recorded(lambda: planner.build().invoke(STATE))
        methods = [(BaseChatModel, "generate"), (BaseTool, "run"), (ChatPromptTemplate, "format_messages")]
        before = [vars(cls)[name] for cls, name in methods]
        with clew.replay(run, mode="hybrid", patch=clew.Prompt("plan", "plan v2")):
            assert all(vars(cls)[name] is not one for (cls, name), one in zip(methods, before, strict=True))
            planner.build().invoke(STATE)
        assert [vars(cls)[name] for cls, name in methods] == before
        assert in_force(clew.Prompt) == [] == _in_force
        planner.LIVE.clear()
        with clew.replay(run) as again:
            planner.build().invoke(STATE)
        assert again.certificate.holds
        assert not planner.LIVE


def test_an_unknown_prompt_is_an_error_that_lists_what_there_is(planner: ModuleType, recording: Recording) -> None:
    with recording():
        run = recorded(lambda: planner.build().invoke(STATE))
        with pytest.raises(NotFound, match=r"no prompt 'plans'; close: plan; its prompts: plan, research, conclude-1"):
            clew.replay(run, patch=clew.Prompt("plans", "x")).__enter__()
        with pytest.raises(Ambiguous, match="fits 3 prompts of this run: conclude-1, conclude-2, conclude-3"):
            clew.replay(run, patch=clew.Prompt("conclude", "x")).__enter__()
        with pytest.raises(ValueError, match="is a system message"):
            clew.replay(run, patch=clew.Prompt("plan", [("user", "x")])).__enter__()


# -- templates


class State(TypedDict, total=False):
    topic: str
    outline: str
    text: str


CHAT = ChatPromptTemplate.from_messages(
    [("system", "Write about {topic}"), MessagesPlaceholder("history", optional=True), ("user", "{outline}, please")]
)


def graph(*, is_async: bool = False, named: bool = False) -> Any:
    """outline (a text template) -> write (a chat template), with a model of words."""
    text = PromptTemplate.from_template("Outline of {topic}")
    chat = CHAT.with_config(run_name="writer") if named else CHAT
    model = Counted(says="words")

    def outline(state: State) -> State:
        return {"outline": (text | model).invoke({"topic": state["topic"]}).text}

    async def aoutline(state: State) -> State:
        return {"outline": (await (text | model).ainvoke({"topic": state["topic"]})).text}

    def write(state: State) -> State:
        return {"text": (chat | model).invoke(dict(state)).text}

    async def awrite(state: State) -> State:
        return {"text": (await (chat | model).ainvoke(dict(state))).text}

    built = StateGraph(State)
    built.add_node("outline", aoutline if is_async else outline)
    built.add_node("write", awrite if is_async else write)
    built.add_edge(START, "outline")
    built.add_edge("outline", "write")
    built.add_edge("write", END)
    return built.compile()


def write(*, is_async: bool = False) -> None:
    built = graph(is_async=is_async)
    asyncio.run(built.ainvoke({"topic": "tea"})) if is_async else built.invoke({"topic": "tea"})


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_template_says_something_else_and_its_spans_tell_so(recording: Recording, is_async: bool) -> None:
    with recording() as tracer:
        run = recorded(lambda: write(is_async=is_async))
        assert [(one.name, one.kind) for one in seen(tracer, run)] == [("outline", "template"), ("write", "template")]
        patch = clew.Prompt("write", "Write a poem about {topic}")
        _, certificate, again = hybrid(run, patch, lambda: write(is_async=is_async))
        assert LIVE == {"llm": 1}
        assert "messages[0].content: “Write about tea” → “Write a poem about tea”" in certificate.live[0].why
        assert certificate.patches == ["prompt 'write': 1 time"]
        rendered = spans(tracer, again.id, "prompt")[-1]
        assert rendered.used[0].value["messages"][0] == ["system", "Write a poem about {topic}"]
        assert rendered.generated[0].value[0]["content"] == "Write a poem about tea"
        assert spans(tracer, again.id, "llm")[-1].used[0].value[0]["content"] == "Write a poem about tea"


def test_a_text_template_and_all_messages_of_a_chat_template(recording: Recording) -> None:
    with recording() as tracer:
        run = recorded(write)
        hybrid(run, clew.Prompt("outline", "Three points on {topic}"), write)
        assert LIVE == {"llm": 1}  # the outline says the same words, so that the text is served
        pairs = [("placeholder", "history"), ("user", "{topic}: {outline}"), ("user", "a {{brace}}")]
        _, _, again = hybrid(run, clew.Prompt("write", pairs), write)
        asked = spans(tracer, again.id, "llm")[-1].used[0].value
        assert [(one["role"], one["content"]) for one in asked] == [("user", "tea: words"), ("user", "a {brace}")]


def test_a_template_is_known_by_the_name_the_program_gave_it(recording: Recording) -> None:
    with recording() as tracer:
        run = recorded(lambda: graph(named=True).invoke({"topic": "tea"}))
        assert [one.name for one in seen(tracer, run)] == ["outline", "writer"]
        _, certificate, _ = hybrid(
            run, clew.Prompt("writer", "Sing of {topic}"), lambda: graph(named=True).invoke({"topic": "tea"})
        )
        assert certificate.patches == ["prompt 'writer': 1 time"]


def test_a_variable_that_the_old_prompt_was_not_given_is_an_error_before_anything_runs(recording: Recording) -> None:
    with recording():
        run = recorded(write)
        with pytest.raises(ValueError, match=r"is given history, outline, topic, and the new one needs mood"):
            clew.replay(run, patch=clew.Prompt("write", "Write {mood} about {topic}")).__enter__()
        with pytest.raises(ValueError, match="a brace stands alone"):
            clew.replay(run, patch=clew.Prompt("write", "Write {topic")).__enter__()
        assert LIVE == {}


def test_which_message_of_a_template_a_text_replaces(recording: Recording) -> None:
    said = ChatPromptTemplate.from_messages([("user", "one {x}"), ("assistant", "two")])
    fixed = ChatPromptTemplate.from_messages([SystemMessage("{as it is}"), ("user", "one {x}")])

    def body() -> list[str]:
        return [one.invoke({"x": "x"}).to_string() for one in (said, fixed)]

    with recording() as tracer:
        run = recorded(body)
        first, second = (one.name for one in seen(tracer, run))
        with pytest.raises(ValueError, match="has 2 messages, 0 of them of the system: give all as"):
            clew.replay(run, patch=clew.Prompt(first, "x")).__enter__()
        given, _, _ = hybrid(run, clew.Prompt(second, "{braces}"), body)
        assert given == ["Human: one x\nAI: two", "System: {braces}\nHuman: one x"]
        digest = seen(tracer, run)[0].digest
        given, _, _ = hybrid(run, clew.Prompt(digest[:20], [("user", "{x}")]), body)
        assert given[0] == "Human: x"


def test_templates_of_another_format(recording: Recording) -> None:
    mustache = ChatPromptTemplate.from_messages(
        [("system", "About {{topic}}"), ("user", "go")], template_format="mustache"
    )

    def body() -> None:
        (mustache | Counted()).invoke({"topic": "tea"})

    with recording() as tracer:
        run = recorded(body)
        name = seen(tracer, run)[0].name
        _, _, again = hybrid(run, clew.Prompt(name, "Only {{topic}}"), body)
        assert spans(tracer, again.id, "llm")[0].used[0].value[0]["content"] == "Only tea"
        with (
            pytest.raises(ValueError, match="the new one needs mood"),
            clew.replay(run, patch=clew.Prompt(name, "{{mood}}")),
        ):
            body()


def test_a_template_is_told_from_a_part_of_another_one(recording: Recording) -> None:
    """The human message of the chat template has the text of the other template, and is none of its uses."""
    alone = PromptTemplate.from_template("{outline}, please")

    def body() -> list[Any]:
        return [CHAT.invoke({"topic": "tea", "outline": "a"}).to_string(), alone.invoke({"outline": "a"}).to_string()]

    with recording() as tracer:
        run = recorded(body)
        name = next(one.name for one in seen(tracer, run) if len(one.messages) == 1)
        given, certificate, _ = hybrid(run, clew.Prompt(name, "{outline}!"), body)
        assert given == ["System: Write about tea\nHuman: a, please", "a!"]
        assert certificate.patches == [f"prompt {name!r}: 1 time"]


def test_a_template_that_is_formatted_directly(recording: Recording) -> None:
    def body() -> list[str]:
        CHAT.invoke({"topic": "tea", "outline": "a"})  # so that it is seen
        values = {"topic": "tea", "outline": "a"}
        awaited = asyncio.run(CHAT.aformat_messages(**values))
        return [CHAT.format_messages(**values)[0].text, awaited[0].text, CHAT.format(**values).splitlines()[0]]

    with recording() as tracer:
        run = recorded(body)
        given, _, _ = hybrid(run, clew.Prompt(seen(tracer, run)[0].name, "On {topic}"), body)
        assert given == ["On tea", "On tea", "System: On tea"]


def test_a_system_message_of_blocks_keeps_what_else_it_says(recording: Recording) -> None:
    block = {"type": "text", "text": "Be brief", "cache_control": {"type": "ephemeral"}}

    def body() -> None:
        Counted().invoke([SystemMessage([block]), HumanMessage("x")])

    with recording() as tracer:
        run = recorded(body)
        assert [one.text for one in seen(tracer, run)] == ["Be brief"]
        _, _, again = hybrid(run, clew.Prompt(seen(tracer, run)[0].name, "Be long"), body)
        assert spans(tracer, again.id, "llm")[0].used[0].value[0]["content"] == [{**block, "text": "Be long"}]


def test_what_is_asked_outside_the_replay_stays(recording: Recording) -> None:
    def body() -> str:
        return Counted().invoke([SystemMessage("Be brief"), HumanMessage("x")]).text

    with recording() as tracer:
        run = recorded(body)
        name = seen(tracer, run)[0].name
        with clew.replay(run, mode="hybrid", patch=clew.Prompt(name, "Be long")):
            outside = in_a_thread_without_context(
                lambda: Counted().invoke([SystemMessage("Be brief"), HumanMessage("y")])
            )
            body()
        asked = {one.used[0].value[1]["content"]: one.used[0].value[0]["content"] for one in spans(tracer, None, "llm")}
        assert outside.text
        assert asked == {"x": "Be long", "y": "Be brief"}


def in_a_thread_without_context(body: Callable[[], Any]) -> Any:
    import _thread
    import queue

    answers: queue.Queue[Any] = queue.Queue()
    _thread.start_new_thread(lambda: answers.put(body()), ())
    return answers.get(timeout=30)


@pytest.mark.parametrize("way", ["stream", "astream", "v3"])
def test_a_streamed_chain_of_a_template_and_a_model(recording: Recording, way: str) -> None:
    def body() -> str:
        chain = CHAT | Counted(says="some words")
        values = {"topic": "tea", "outline": "a"}
        if way == "stream":
            return "".join(one.text for one in chain.stream(values)).strip()
        if way == "v3":
            asked = CHAT.invoke(values)
            return "".join(Counted(says="some words").stream_events(asked, version="v3").text).strip()

        async def joined() -> str:
            return "".join([one.text async for one in chain.astream(values)]).strip()

        return asyncio.run(joined())

    with recording() as tracer:
        run = recorded(body)
        name = seen(tracer, run)[0].name
        patch = [clew.Prompt(name, "Sing of {topic}"), clew.Model("Counted", says="other words")]
        given, certificate, again = hybrid(run, patch, body)
        assert given == "other words"
        assert LIVE == {"llm": 1}
        assert [one.rpartition(": ")[2] for one in certificate.patches] == ["1 time", "1 time"]
        assert spans(tracer, again.id, "llm")[0].used[0].value[0]["content"] == "Sing of tea"


def test_a_plan_with_a_patch_names_what_would_go_live(planner: ModuleType, recording: Recording) -> None:
    with recording():
        run = recorded(lambda: planner.build().invoke(STATE))
        planner.LIVE.clear()
        with clew.replay(run, mode="plan", patch=clew.Prompt("conclude-3", "final v2")) as again:
            planner.build().invoke(STATE)
        assert not planner.LIVE
        assert [one.path for one in again.plan] == ["Planner/conclude/brain-1"]


def test_a_patch_in_the_replay_of_a_whole_process(recording: Recording, tmp_path: Path) -> None:
    """What `clew replay` does in a process of its own: two runs, each with its prompt, and no run around them."""

    def body(tracer: Tracer) -> list[str]:
        given = []
        for name in ("first", "second"):
            with clew.run(name):
                given.append(Counted().invoke([SystemMessage(f"Be {name}"), HumanMessage("x")]).text)
        tracer.flush()
        return given

    with recording() as tracer:
        before = body(tracer)
    LIVE.clear()
    with recording() as tracer:
        reader = Reader(tracer.folder.path)
        found = load(reader, "second", whole=True)
        replayer = Replayer(tracer, found, reader.store, Terms("hybrid"), None)
        name = next(one.name for one in prompts(reader, "second") if one.text == "Be second")
        patch = from_dict({"patch": "prompt", "name": name, "new": "Be third"})
        with installed(tracer, replayer), patch.applied(tracer, replayer):
            after = body(tracer)
        assert after[0] == before[0]
        assert LIVE == {"llm": 1}
        assert counted(replayer, Surroundings(replayer, reader)).patches == [f"prompt {name!r}: 1 time"]


# -- models


class Sized(Counted):
    """A model with a name."""

    model_name: str = "small"


def chain() -> str:
    """A model that is bound, and another one."""
    bound = Sized().bind(tools=[{"type": "function", "function": {"name": "look"}}], temperature=0.5)
    said = bound.invoke("one").text
    return said + Counted().invoke("two").text


def test_a_model_with_other_fields(recording: Recording) -> None:
    with recording() as tracer:
        run = recorded(chain)
        _, certificate, again = hybrid(run, clew.Model("small", top_k=7, temperature=0.25), chain)
        assert LIVE == {"llm": 1}
        assert "model" in certificate.live[0].why
        assert certificate.patches == ["model 'small' (top_k=7, temperature=0.25): 1 time"]
        asked = spans(tracer, again.id, "llm")[0]
        assert asked.attributes["gen_ai.request.temperature"] == 0.25  # though the program's binding says 0.5


@pytest.mark.parametrize("renamed", [{"model_name": "large"}, {"model_name": "large", "says": "other words"}])
def test_a_model_of_another_name_is_asked_where_the_recorded_one_was(
    recording: Recording, renamed: dict[str, Any]
) -> None:
    """A span path ends with the model's name, and so would be another place."""
    body = lambda: Sized().invoke([HumanMessage(Sized().invoke("one").text)]).text  # noqa: E731
    with recording():
        run = recorded(body)
        for mode, same in (("plan", None), ("hybrid", "says" not in renamed)):
            with clew.replay(run, mode=mode, patch=clew.Model("small", **renamed)) as again:
                body()
            live = again.certificate.live
            assert [(one.path, one.name) for one in live] == [("small", "large")] * 2
            assert "model.model: “small” → “large”" in live[0].why
            assert again.certificate.error is None
            assert live[0].same is same


def test_models_of_other_names_are_told_apart_by_their_own(recording: Recording) -> None:
    patch = [clew.Model("small", model_name="large"), clew.Model("tiny", model_name="large")]

    def body() -> list[str]:
        return [Sized(model_name=name).invoke("one").text for name in ("small", "tiny")]

    with recording():
        run = recorded(body)
        with clew.replay(run, mode="plan", patch=patch) as again:
            body()
        assert [one.path for one in again.certificate.live] == ["small", "tiny"]
        with clew.replay(run, mode="plan", patch=clew.Model("smal", top_k=3)) as again:
            body()
        assert (
            "the patch of model 'smal' (top_k=3) met nothing; recorded are calls of small, tiny"
            in again.certificate.notes
        )
        with clew.replay(
            run, mode="plan", patch=[clew.Model("small", model_name="mid"), clew.Model("mid", top_k=3)]
        ) as again:
            body()
        assert [one.path for one in again.certificate.live] == ["small"]
        assert again.certificate.patches == [
            "model 'small' (model_name='mid'): 1 time",
            "model 'mid' (top_k=3): 1 time",
        ]


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream", "batch", "generate"])
def test_another_model_in_its_place_however_it_is_called(recording: Recording, way: str) -> None:
    other = Sized(model_name="large", says="grand words")

    def body() -> str:
        model = Sized()
        match way:
            case "ainvoke":
                return str(asyncio.run(model.ainvoke("x")).content)
            case "stream":
                return "".join(one.text for one in model.stream("x")).strip()
            case "astream":

                async def joined() -> str:
                    return "".join([one.text async for one in model.astream("x")]).strip()

                return asyncio.run(joined())
            case "batch":
                return str(model.batch(["x"])[0].content)
            case "generate":
                return model.generate([[HumanMessage("x")]]).generations[0][0].text
        return str(model.invoke("x").content)

    with recording() as tracer:
        run = recorded(body)
        given, certificate, again = hybrid(run, clew.Model("small", other), body)
        assert given == "grand words"
        assert certificate.patches == ["model 'small' (Sized): 1 time"]
        assert [one.used[1].name for one in spans(tracer, again.id, "llm")] == ["large"]


def test_a_model_in_the_place_of_one_that_it_asks_itself(recording: Recording) -> None:
    class Around(Counted):
        inner: Any = None

        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            return self.inner._generate([HumanMessage(self.inner.invoke(messages).text)])

        _stream = Counted._stream

    with recording():
        run = recorded(lambda: Sized().invoke("x"))
        _, certificate, _ = hybrid(
            run, clew.Model("small", Around(inner=Sized(says="inner"))), lambda: Sized().invoke("x")
        )
        assert certificate.patches == ["model 'small' (Around): 1 time"]


def test_fields_that_a_model_does_not_have(recording: Recording) -> None:
    with recording():
        run = recorded(lambda: Sized().invoke("x"))
        for patch, told in (
            (clew.Model("small", temprature=0), "Sized has no field temprature; it has .*temperature"),
            (clew.Model("Sized", top_k="many"), "valid integer"),
        ):
            with pytest.raises(ValueError, match=told), clew.replay(run, mode="hybrid", patch=patch):
                Sized().invoke("x")
    assert clew.Model("small", api_key="hidden").title == "model 'small' (api_key=…)"
    with pytest.raises(ValueError, match="by fields, such as temperature=0, or by another instance"):
        clew.Model("small")


class Reached(Sized):
    """A model that holds a client, and whose name has an alias, as a provider's has."""

    model_name: str = Field("small", alias="model")
    client: Any = Field(default_factory=threading.Lock)
    kept: int = 0


def test_fields_by_their_alias_and_the_address_of_a_client(recording: Recording) -> None:
    with recording() as tracer:
        run = recorded(lambda: Reached().invoke("x"))
        _, _, again = hybrid(run, clew.Model("Reached", model="large", kept="3"), lambda: Reached().invoke("x"))
        assert LIVE == {"llm": 1}
        assert spans(tracer, again.id, "llm")[0].attributes["gen_ai.request.model"] == "large"
        patch = clew.Model("Reached", base_url="https://two.example")
        with pytest.raises(ValueError, match="was made with base_url: patch the model by another instance"):  # noqa: SIM117
            with clew.replay(run, mode="hybrid", patch=patch):
                Reached().invoke("x")


# -- tools


@tool
def search(query: str) -> str:
    """Look a thing up."""
    live("tool")
    return f"found {query}"


class Checker(BaseTool):
    name: str = "check"
    description: str = "Check it."

    def _run(self, claim: str) -> str:
        live("tool")
        return f"checked {claim}"


CALL = {"type": "tool_call", "id": "call_1", "args": {"query": "q"}, "name": "search"}


def looked_up() -> str:
    return str(search.invoke(CALL).content) + str(Checker().invoke({"claim": "c"}))


def test_another_implementation_of_a_tool_goes_live(recording: Recording) -> None:
    with recording() as tracer:
        run = recorded(looked_up)
        given, certificate, again = hybrid(run, clew.Tool("search", lambda query: f"other {query}"), looked_up)
        assert given == "other qchecked c"
        assert LIVE == {}
        assert [one.name for one in certificate.live] == ["search"]
        assert "differs from the recorded call in tool" in certificate.live[0].why
        assert spans(tracer, again.id, "tool")[0].used[0].value == spans(tracer, run.id, "tool")[0].used[0].value
        with (
            pytest.raises(ReplayMiss, match="tool search"),
            clew.replay(run, patch=clew.Tool("search", lambda query: "x")),
        ):
            looked_up()


def test_tools_of_a_class_and_async_functions(recording: Recording) -> None:
    async def checked(claim: str) -> str:
        return f"async {claim}"

    def body() -> str:
        return asyncio.run(search.ainvoke(CALL)).content + asyncio.run(Checker().ainvoke({"claim": "c"}))  # type: ignore[no-any-return]

    with recording():
        run = recorded(body)
        patch = [clew.Tool("check", checked), clew.Tool("search", lambda query: f"other {query}")]
        given, certificate, _ = hybrid(run, patch, body)
        assert given == "other qasync c"
        assert certificate.patches == ["tool 'check': 1 time", "tool 'search': 1 time"]


def test_a_tool_object_brings_its_definition_and_may_ask_the_one_it_replaces(recording: Recording) -> None:
    @tool("search")
    def louder(query: str) -> str:
        """Look a thing up, loudly."""
        return str(search.invoke({"query": query})).upper()

    def body() -> str:
        from langchain_core.utils.function_calling import convert_to_openai_tool

        Counted().bind(tools=[convert_to_openai_tool(search)]).invoke("x")
        return str(search.invoke(CALL).content)

    with recording() as tracer:
        run = recorded(body)
        given, certificate, again = hybrid(run, clew.Tool("search", louder), body)
        assert given == "FOUND Q"
        assert {one.kind for one in certificate.live} == {"llm", "tool"}
        shown = next(slot for slot in spans(tracer, again.id, "llm")[0].used if slot.role == "tools")
        assert shown.value["function"]["description"] == "Look a thing up, loudly."


def test_a_tool_in_a_tool_node_that_is_given_the_graphs_state(recording: Recording) -> None:
    @tool
    def noted(query: str, state: Annotated[Any, InjectedState]) -> str:
        """Note it."""
        live("tool")
        return f"noted {query} of {len(state['messages'])}"

    def body() -> str:
        graph = StateGraph(MessagesState)
        graph.add_node("tools", ToolNode([noted]))
        graph.add_edge(START, "tools")
        graph.add_edge("tools", END)
        call = {"name": "noted", "args": {"query": "q"}, "id": "call_1", "type": "tool_call"}
        return str(graph.compile().invoke({"messages": [AIMessage("", tool_calls=[call])]})["messages"][-1].content)

    with recording():
        run = recorded(body)
        with clew.replay(run) as again:
            assert body() == "noted q of 1"
        assert again.certificate.holds
        patch = clew.Tool("noted", lambda query, state: f"other {query} of {len(state['messages'])}")
        given, certificate, _ = hybrid(run, patch, body)
        assert given == "other q of 1"
        assert LIVE == {}
        assert "it is patched, and it cannot be seen whether it is the same" in certificate.live[0].why


# -- documents


class Library(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        live("retriever")
        return [Document("old text", id="d1", metadata={"page": 1}), Document("other", id="d2")]


def cited() -> str:
    found = Library().invoke("q")
    return Counted().invoke(" / ".join(one.page_content for one in found)).text


@pytest.mark.parametrize("which", ["d1", "old text", "digest"])
def test_a_document_says_something_else_wherever_it_is_found(recording: Recording, which: str) -> None:
    with recording() as tracer:
        run = recorded(cited)
        if which == "digest":
            which = spans(tracer, run.id, "retriever")[0].generated[0].digest
        given, certificate, again = hybrid(run, clew.Retrieved(which, "new text", {"page": 2}), cited)
        assert given == "answer 1 to new text / other"
        assert LIVE == {"llm": 1}
        assert [one.kind for one in certificate.live] == ["llm"]
        assert any("not modelled" in note for note in certificate.notes)
        first, second = (slot.value for slot in spans(tracer, again.id, "retriever")[0].generated)
        assert (first["text"], first["metadata"], first["id"]) == ("new text", {"page": 2}, "d1")
        assert second["text"] == "other"


def test_a_document_found_live_in_a_vector_store_has_its_new_text_and_its_score(recording: Recording) -> None:
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=4))
    store.add_documents([Document("old text", id="d1")])

    class Scoring(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return [one for one, _ in store.similarity_search_with_score(query)]

    def body() -> list[str]:
        found = [one for one, _ in store.similarity_search_with_score("q")]
        found += [*Scoring().invoke("q"), *Scoring()._get_relevant_documents("q", run_manager=None)]
        return [one.page_content for one in found]

    with recording() as tracer:
        run = recorded(lambda: None)
        given, _, again = hybrid(run, [clew.Retrieved("d1", "new text"), clew.Retrieved("d9", "x")], body)
        assert given == ["new text"] * 3
        found = [slot for one in spans(tracer, again.id, "retriever") for slot in one.generated]
        assert [(slot.value["text"], "score" in slot.info) for slot in found] == [("new text", True)] * 3
        assert "the patch of document 'd9' met nothing" in again.certificate.notes


# -- answers


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


# -- as data, and what is met


@pytest.mark.parametrize(
    "patch",
    [
        clew.Prompt("planner", "new"),
        clew.Prompt("planner", [("system", "new"), ("user", "{x}")]),
        clew.Model("small", temperature=0, stop=["x"]),
        clew.Retrieved("d1", "text", {"page": 1}),
        clew.Answer("abcd", {"content": "x"}),
    ],
    ids=lambda patch: patch.title,
)
def test_patches_as_data(patch: Patch) -> None:
    again = from_dict(patch.to_dict())
    assert (type(again), vars(again)) == (type(patch), vars(patch))


def test_patches_that_are_no_data() -> None:
    for patch in (clew.Tool("search", looked_up), clew.Model("small", Sized()), clew.Answer("abcd", AIMessage("x"))):
        with pytest.raises(ValueError, match="another process"):
            patch.to_dict()
    for data in ({"patch": "code"}, {"patch": "prompt", "title": "x"}, {"patch": "model", "name": "x"}, {}):
        with pytest.raises(ValueError, match="patch"):
            from_dict(data)


def test_what_was_not_met_is_told(recording: Recording) -> None:
    with recording() as tracer:
        run = recorded(cited)
        span = spans(tracer, run.id, "llm")[0]
        patch = [
            clew.Model("huge", top_k=2),
            clew.Tool("nothing", len),
            clew.Retrieved("d7", "x"),
            clew.Answer(span, "x"),
        ]
        with clew.replay(run, patch=patch) as again:
            Library().invoke("q")
        assert again.certificate.patches == []
        assert again.certificate.notes == [
            f"the patch of model 'huge' (top_k=2) met nothing; recorded are calls of {span.name}",
            "the patch of tool 'nothing' met nothing",
            "the patch of document 'd7' met nothing",
            f"the patch of answer of span {span.span_id} met nothing",
        ]
        with pytest.raises(ValueError, match="a patch is a clew"):
            clew.replay(run, patch="planner")
