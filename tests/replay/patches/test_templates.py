"""Patches of prompt templates: whatever way they are formatted, and spans tell what was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langgraph.graph import END, START, StateGraph

import clew
from tests.replay.conftest import LIVE, Counted
from tests.replay.patches.bed import Recording, hybrid, recorded, seen, spans


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
