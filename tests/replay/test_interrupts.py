"""Graphs that ask a person: what is asked again, which answer counts, and what the certificate says of it."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send, interrupt

import clew
from clew.store.errors import ReplayMiss
from tests.replay.conftest import LIVE, Counted, Recorded, live


class State(TypedDict):
    said: Annotated[list[str], operator.add]


CONFIG: Any = {"configurable": {"thread_id": "t"}}


def graph(*nodes: Callable[[Any], Any], **options: Any) -> Any:
    """The nodes one after another, on a saver in memory."""
    built: Any = StateGraph(State)
    built.add_sequence(list(nodes))
    built.add_edge(START, nodes[0].__name__)
    return built.compile(checkpointer=InMemorySaver(), **options)


def ask(text: str) -> str:
    return Counted().invoke(text).text


def twice(state: State) -> Any:
    """Asks a model, a person, and a model again."""
    before = ask("draft")
    first = interrupt({"approve": before})
    return {"said": [before, first, ask(f"revise {first}")]}


def thrice(state: State) -> Any:
    """Asks a person three times."""
    return {"said": [ask(f"{interrupt(f'question {n}')} {n}") for n in range(3)]}


def invoked(agent: Any, given: Any, config: Any = CONFIG) -> Any:
    return agent.invoke(given, config)


def awaited(agent: Any, given: Any, config: Any = CONFIG) -> Any:
    return asyncio.run(agent.ainvoke(given, config))


def streamed(agent: Any, given: Any, config: Any = CONFIG) -> Any:
    return [*agent.stream(given, config, stream_mode="values")][-1]


WAYS = [invoked, awaited, streamed]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_each_half_of_an_interrupted_run_is_replayed_by_itself(recorded: Recorded, way: Any) -> None:
    agent = graph(twice)
    with recorded() as tracer:
        way(agent, {"said": ["hello"]})
        last = way(agent, Command(resume="yes"))
        asked = sum(LIVE.values())
        assert asked == 3
        clew.flush()
        with clew.open(tracer.folder.path) as reader:
            second, first = (run.run_id for run in reader.runs())
        with clew.replay(first) as again:
            again_first = way(agent, {"said": ["hello"]})
        assert "__interrupt__" in again_first
        assert again.certificate.served == {"llm": 1}
        with clew.replay(second) as again:
            assert way(agent, Command(resume="yes"))["said"] == last["said"]
        assert again.certificate.served == {"llm": 2}
        assert again.certificate.holds
        assert not again.certificate.notes
    assert sum(LIVE.values()) == asked


@pytest.mark.parametrize("mode", ["strict", "hybrid"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_recorded_answer_of_the_person_counts(recorded: Recorded, way: Any, mode: str) -> None:
    def talk(agent: Any, says: str) -> Any:
        way(agent, {"said": ["hello"]})
        return way(agent, Command(resume=says))["said"]

    with recorded():
        with clew.run("talk") as run:
            first = talk(graph(twice), "yes")
        with clew.replay(run, mode=mode) as again:
            assert talk(graph(twice), "no") == first
        assert again.certificate.notes == ["LangGraph was resumed with the recorded answer in place of another one"]
        assert again.certificate.holds
    assert LIVE == {"llm": 3}


def test_several_questions_of_one_node(recorded: Recorded) -> None:
    def talk(agent: Any, says: str) -> Any:
        state = agent.invoke({"said": []}, CONFIG)
        for n in range(3):
            assert state["__interrupt__"][0].value == f"question {n}"
            state = agent.invoke(Command(resume=f"{says} {n}"), CONFIG)
        return state["said"]

    with recorded() as tracer:
        agent = graph(thrice)
        with clew.run("talk") as run:
            first = talk(agent, "yes")
        asked = sum(LIVE.values())
        with clew.replay(run) as again:
            assert talk(graph(thrice), "no") == first
        assert again.certificate.holds
        clew.flush()
        with clew.open(tracer.folder.path) as reader:
            inner = [one.run_id for one in reader.runs() if one.name == "LangGraph" and one.replay_of is None][:4]
        for n, one in enumerate(reversed(inner)):  # each turn by itself, although the thread is at its end
            given: Any = {"said": []} if n == 0 else Command(resume=f"yes {n - 1}")
            with clew.replay(one) as again:
                state = agent.invoke(given, CONFIG)
            assert again.certificate.holds
            if n < 3:
                assert state["__interrupt__"][0].value == f"question {n}"
    assert sum(LIVE.values()) == asked


def test_a_tool_that_asks_is_not_run_and_its_question_is_put_again(recorded: Recorded) -> None:
    @tool
    def book(hotel: str) -> str:
        """Book a hotel, if a person agrees."""
        live("tool")
        price = interrupt(f"price of {hotel}?")
        sure = interrupt(f"sure, for {price}?")
        return f"{hotel} for {price}, {sure}"

    def both(state: State) -> Any:
        first = book.invoke({"hotel": "Ritz"})
        between = interrupt("next?")
        return {"said": [first, between, book.invoke({"hotel": "Plaza"})]}

    def talk(agent: Any, says: str) -> tuple[list[str], list[str]]:
        state = agent.invoke({"said": []}, CONFIG)
        questions = []
        for n in range(5):
            questions.append(state["__interrupt__"][0].value)
            state = agent.invoke(Command(resume=f"{says}{n}"), CONFIG)
        return questions, state["said"]

    with recorded():
        agent = graph(both)
        with clew.run("talk") as run:
            first = talk(agent, "a")
        assert first[1] == ["Ritz for a0, a1", "a2", "Plaza for a3, a4"]
        count = LIVE["tool"]
        with clew.replay(run) as again:
            assert talk(graph(both), "b") == first
        assert again.certificate.holds
        assert {"tool": count} == LIVE


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def test_tools_of_one_message_that_ask_side_by_side(recorded: Recorded) -> None:
    @tool
    def look(x: int) -> str:
        """Ask a person what they see."""
        live("tool")
        return f"seen {interrupt(f'look {x}')}"

    @tool
    def count(x: int) -> str:
        """Count, and ask nobody."""
        return f"{x} is call {live('tool')}"

    def call(state: Chat) -> Any:
        answer = Counted().invoke(state["messages"])
        calls = [
            {"name": name, "args": {"x": x}, "id": f"call_{x}", "type": "tool_call"}
            for x, name in enumerate(["look", "count", "look"])
        ]
        return {"messages": [answer.model_copy(update={"tool_calls": calls})]}

    built = StateGraph(Chat)
    built.add_node("call", call)
    built.add_node("tools", ToolNode([look, count]))
    built.add_edge(START, "call")
    built.add_edge("call", "tools")
    built.add_edge("tools", END)

    def talk(says: str) -> list[str]:
        agent = built.compile(checkpointer=InMemorySaver())
        state = agent.invoke({"messages": [HumanMessage("go", id="1")]}, CONFIG)
        while "__interrupt__" in state:
            state = agent.invoke(Command(resume=says), CONFIG)
        return [message.text for message in state["messages"] if isinstance(message, ToolMessage)]

    with recorded():
        with clew.run("talk") as run:
            first = talk("a dog")
        assert [first[0], first[2]] == ["seen a dog"] * 2
        before = dict(LIVE)
        with clew.replay(run) as again:
            assert talk("a cat") == first
        assert again.certificate.holds
        assert before == LIVE


@pytest.mark.parametrize("reached", [[False, True, True], [False, False, True], [True, False, True]])
def test_how_far_an_interrupted_task_came_does_not_count(recorded: Recorded, reached: list[bool]) -> None:
    comes: list[bool] = []

    @tool
    def count(x: int) -> str:
        """Count."""
        return f"call {live('tool')}"

    def node(state: State) -> Any:
        counted = count.invoke({"x": 1}) if comes.pop(0) else ""
        interrupt("one?")
        interrupt("two?")
        return {"said": [counted]}

    def talk(*times: bool) -> str:
        comes[:] = times
        agent = graph(node)
        for given in ({"said": []}, Command(resume="yes"), Command(resume="yes")):
            state = agent.invoke(given, CONFIG)
        return state["said"][-1]

    with recorded():
        with clew.run("all") as whole:
            assert talk(True, True, True) == "call 3"
        with clew.replay(whole) as again:
            assert talk(*reached) == "call 3"
        assert again.certificate.holds
        with clew.run("some") as some:
            last = talk(*reached)
        with clew.replay(some) as again:
            assert talk(True, True, True) == last
        assert again.certificate.holds


def test_whether_a_question_was_answered_before_a_call_beside_it_does_not_count(recorded: Recorded) -> None:
    """Of what runs side by side, either may be first; here it is said which."""
    is_first = [True]

    @tool
    def count(x: int) -> str:
        """Count."""
        return f"call {live('tool')}"

    def node(state: State) -> Any:
        counted = count.invoke({"x": 1}) if is_first[0] else ""
        interrupt("one?")
        counted = counted or count.invoke({"x": 1})
        interrupt("two?")
        return {"said": [counted]}

    def talk() -> str:
        agent = graph(node)
        for given in ({"said": []}, Command(resume="yes"), Command(resume="yes")):
            state = agent.invoke(given, CONFIG)
        return state["said"][-1]

    with recorded():
        with clew.run("talk") as run:
            last = talk()
        is_first[0] = False
        with clew.replay(run) as again:
            assert talk() == last
        assert again.certificate.holds


@pytest.mark.parametrize("before", [0, 1])
def test_a_task_that_was_run_again_and_asks_more_than_it_did_is_not_answered(recorded: Recorded, before: int) -> None:
    times = [2]

    def sample() -> str:
        return Counted(temperature=1.0).invoke("say").text

    def node(state: State) -> Any:
        drafts = [sample() for _ in range(before)]
        interrupt("go on?")
        return {"said": [*drafts, *(sample() for _ in range(times[-1]))]}

    def talk() -> list[str]:
        agent = graph(node)
        agent.invoke({"said": []}, CONFIG)
        return agent.invoke(Command(resume="yes"), CONFIG)["said"]

    with recorded():
        with clew.run("talk") as run:
            first = talk()
        with clew.replay(run) as again:
            assert talk() == first
        assert again.certificate.holds
        times.append(3)
        with pytest.raises(ReplayMiss, match="asked here"), clew.replay(run):
            talk()
        asked = LIVE["llm"]
        with clew.replay(run, mode="hybrid") as again:
            assert talk() == [*first, f"answer {asked + 1} to say"]
        assert len(again.certificate.live) == 1


def test_branches_that_ask_side_by_side_are_answered_by_their_questions(recorded: Recorded) -> None:
    def fan(state: State) -> list[Send]:
        return [Send("branch", {"said": [], "topic": topic}) for topic in ("tea", "milk", "rum")]

    def branch(state: Any) -> Any:
        before = ask(f"draft {state['topic']}")
        return {"said": [before, interrupt(f"{state['topic']}?"), ask(f"revise {state['topic']}")]}

    def talk(says: str) -> list[str]:
        built: Any = StateGraph(State)
        built.add_node("branch", branch)
        built.add_conditional_edges(START, fan, ["branch"])
        agent = built.compile(checkpointer=InMemorySaver())
        state = agent.invoke({"said": []}, CONFIG)
        one, *others = state["__interrupt__"]
        agent.invoke(Command(resume={one.id: f"{says} {one.value}"}), CONFIG)
        given = {other.id: f"{says} {other.value}" for other in reversed(others)}
        return agent.invoke(Command(resume=given), CONFIG)["said"]

    with recorded():
        with clew.run("talk") as run:
            first = talk("yes")
        assert {"yes tea?", "yes milk?", "yes rum?"} < set(first)
        asked = LIVE["llm"]
        with clew.replay(run) as again:
            assert talk("no") == first
        assert again.certificate.holds
        assert {"llm": asked} == LIVE


def test_a_question_that_a_patch_changes_is_answered_by_the_program(recorded: Recorded) -> None:
    def branch(state: Any) -> Any:
        draft = ask(f"draft {state['topic']}")
        return {"said": [f"{state['topic']}: {interrupt({'draft': draft})}"]}

    def talk(says: str) -> list[str]:
        built: Any = StateGraph(State)
        built.add_node("branch", branch)
        built.add_conditional_edges(START, lambda _: [Send("branch", {"topic": one}) for one in ("tea", "rum")])
        agent = built.compile(checkpointer=InMemorySaver())
        state = agent.invoke({"said": []}, CONFIG)
        given = {one.id: f"{says} {one.value['draft'][:3]}" for one in state["__interrupt__"]}
        return agent.invoke(Command(resume=given), CONFIG)["said"]

    with recorded() as tracer:
        with clew.run("talk") as run:
            first = talk("yes")
        assert first == ["tea: yes ans", "rum: yes ans"]
        clew.flush()
        with clew.open(tracer.folder.path) as reader:
            models = [span for span in reader.spans(run) if span.kind == "llm"]
            drafts = [span.span_id for span in models if "tea" in str(span.used[0].value)]
        patches = [clew.Answer(span_id, "new") for span_id in drafts]
        with clew.replay(run, mode="hybrid", patch=patches) as again:
            assert talk("no") == ["tea: no new", "rum: yes ans"]
        assert (
            "LangGraph asked what was not asked in the recorded run, and took the program's answer"
            in again.certificate.notes
        )
    assert LIVE == {"llm": 4}


@pytest.mark.parametrize("when", ["interrupt_before", "interrupt_after"])
def test_a_breakpoint_is_passed_as_recorded(recorded: Recorded, when: str) -> None:
    def one(state: State) -> Any:
        return {"said": [ask("one")]}

    def two(state: State) -> Any:
        return {"said": [ask("two")]}

    agent = graph(one, two, **{when: ["two"] if when == "interrupt_before" else ["one"]})
    with recorded() as tracer:
        agent.invoke({"said": []}, CONFIG)
        last = agent.invoke(None, CONFIG)
        clew.flush()
        with clew.open(tracer.folder.path) as reader:
            runs = [run.run_id for run in reader.runs()]
        for run, given in zip(runs, [None, {"said": []}], strict=True):
            with clew.replay(run) as again:
                state = agent.invoke(given, CONFIG)
            assert again.certificate.served == {"llm": 1}
            assert again.certificate.holds
            assert state["said"] == (last["said"] if given is None else last["said"][:1])
    assert LIVE == {"llm": 2}


def test_a_tool_that_hands_over_to_another_node(recorded: Recorded) -> None:
    @tool
    def hand_over(x: int, tool_call_id: Annotated[str, InjectedToolCallId]) -> Any:
        """Hand over."""
        message = ToolMessage(f"handed over by call {live('tool')}", tool_call_id=tool_call_id)
        return Command(goto="other", graph=Command.PARENT, update={"messages": [message]})

    def ask_it(state: Chat) -> Any:
        return {"messages": [Counted(tool="hand_over").invoke(state["messages"])]}

    def other(state: Chat) -> Any:
        return {"messages": [Counted().invoke(state["messages"])]}

    inner = StateGraph(Chat)
    inner.add_node("ask_it", ask_it)
    inner.add_node("tools", ToolNode([hand_over]))
    inner.add_edge(START, "ask_it")
    inner.add_edge("ask_it", "tools")
    built = StateGraph(Chat)
    built.add_node("first", inner.compile(), destinations=("other",))
    built.add_node("other", other)
    built.add_edge(START, "first")
    agent = built.compile(checkpointer=InMemorySaver())

    def said() -> list[str]:
        return [one.text for one in agent.invoke({"messages": [HumanMessage("go")]}, CONFIG)["messages"]]

    with recorded():
        with clew.run("talk") as run:
            first = said()
        with clew.replay(run) as again:
            assert said() == first
        assert again.certificate.holds
        assert again.certificate.served == {"llm": 2, "tool": 1}
    assert LIVE == {"llm": 2, "tool": 1}
