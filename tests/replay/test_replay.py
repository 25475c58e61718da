"""A run again with its recorded answers: strict, hybrid and plan, in the process that runs the program."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import InjectedState

import clew
from clew.store.errors import NotFound, NotRecorded, OverBudget, ReplayMiss
from tests.replay.conftest import LIVE, Counted, Recorded, live, program
from tests.replay.test_planner import CALLS, CASES, WAYS, awaited, invoked, streamed_async


def asked() -> int:
    return sum(LIVE.values())


# -- the planner


@pytest.fixture(scope="module")
def planner() -> ModuleType:
    return program("planner_agent")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("case", CASES)
def test_only_what_the_change_touches_goes_live(
    planner: ModuleType, recorded: Recorded, monkeypatch: pytest.MonkeyPatch, case: str, way: Callable[[Any], str]
) -> None:
    before, changed, expected = planner.EXPECTED[case]
    is_async = way in (awaited, streamed_async)
    if case == "clock":
        monkeypatch.setattr(planner, "NOW", clew.time_ns)

    def answer(config: Any) -> str:
        planner.LIVE.clear()
        return way(planner.build(config, is_async=is_async))

    with recorded():
        plain = answer(changed) if case != "clock" else None
        with clew.run("answer") as run:
            first = answer(before)
        assert sum(planner.LIVE.values()) == CALLS
        with clew.replay(run, mode="hybrid") as again:
            told = answer(changed)
        assert told == (first if plain is None else plain)
        assert sum(planner.LIVE.values()) == expected == len(again.certificate.live)
        with clew.replay(run, mode="plan") as plan:
            answer(changed)
        assert not planner.LIVE
        assert len(plan.plan) == (expected > 0)  # what is surely live: the first of each path
        if expected:
            with pytest.raises(ReplayMiss), clew.replay(run):
                answer(changed)
        else:
            with clew.replay(run) as again:
                assert answer(changed) == first
            assert again.certificate.holds
        assert not planner.LIVE


def test_a_plan_recorded_in_one_process_is_replayed_in_another(planner: ModuleType, recorded: Recorded) -> None:
    with recorded(), clew.run("answer") as run:
        first = invoked(planner.build())
    planner.LIVE.clear()
    with recorded(), clew.replay(run.id) as again:  # nothing is remembered from the first one
        assert invoked(planner.build()) == first
    assert not planner.LIVE
    assert again.certificate.served == {"llm": 16, "retriever": 6, "tool": 7}


def test_calls_that_went_live_and_changed_nothing_are_told(planner: ModuleType, recorded: Recorded) -> None:
    before, changed, _ = planner.EXPECTED["planner prompt, same plan"]
    with recorded():
        with clew.run("answer") as run:
            invoked(planner.build(before))
        with clew.replay(run, mode="hybrid") as again:
            invoked(planner.build(changed))
    assert again.certificate.cut_offs == 1
    assert again.certificate.equal
    assert again.certificate.divergence is not None
    assert "messages[0].content: “plan” → “plan (please)”" in again.certificate.divergence.why


# -- what is served


def test_what_follows_a_miss_is_refused_although_the_program_goes_on(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            Counted().invoke("one")
        with pytest.raises(ReplayMiss, match="differs from the recorded call in messages"), clew.replay(run) as again:
            for question in ("two", "one"):
                try:
                    Counted().invoke(question)
                except ReplayMiss:
                    continue
    assert LIVE["llm"] == 1
    assert again.certificate.error is not None


def test_a_miss_tells_each_thing_that_was_asked_otherwise(recorded: Recorded) -> None:
    talk = [HumanMessage(f"message {number}") for number in range(6)]
    calls = {
        'messages: messages[1]: nothing → {"content": "new", "role": "user"}': (
            Counted(temperature=0.0),
            [talk[0], HumanMessage("new"), *talk[1:]],
            ["a", "b"],
        ),
        'messages: messages[3]: {"content": "message 3", "role": "user"} → nothing; messages[4]': (
            Counted(temperature=0.0),
            talk[:3],
            ["a", "b"],
        ),
        "model: parameters.temperature: 0.0 → 0.1": (Counted(temperature=0.1), talk, ["a", "b"]),
        "options: order of tools: “a, b” → “b, a”": (Counted(temperature=0.0), talk, ["b", "a"]),
        'options: tools.a: {"function": {"name": "a"}, "type": "function"} → nothing; order': (
            Counted(temperature=0.0),
            talk,
            ["b"],
        ),
    }

    def call(model: Counted, messages: list[Any], names: list[str]) -> None:
        model.invoke(messages, tools=[{"type": "function", "function": {"name": name}} for name in names])

    with recorded():
        with clew.run("answer") as run:
            call(Counted(temperature=0.0), talk, ["a", "b"])
        for told, given in calls.items():
            with pytest.raises(ReplayMiss, match=re.escape(f"differs from the recorded call in {told}")):  # noqa: SIM117
                with clew.replay(run):
                    call(*given)
        with pytest.raises(ReplayMiss, match=r"; and 3 more$"), clew.replay(run):
            call(Counted(temperature=0.0), [HumanMessage(one.text.upper()) for one in talk], ["a", "b"])


def test_samples_stay_apart_and_more_of_them_are_a_miss(recorded: Recorded) -> None:
    model = Counted(temperature=1.0)
    with recorded():
        with clew.run("answer") as run:
            first = [model.invoke("say").text for _ in range(3)]
        assert len(set(first)) == 3
        with clew.replay(run):
            assert [model.invoke("say").text for _ in range(3)] == first
        with pytest.raises(ReplayMiss, match="asked here 4 times, recorded 3"), clew.replay(run):
            for _ in range(4):
                model.invoke("say")
    assert LIVE["llm"] == 3


def test_what_is_no_sample_may_be_asked_more_often(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            first = Counted().invoke("say").text
        with clew.replay(run):
            assert [Counted().invoke("say").text for _ in range(3)] == [first] * 3
    assert LIVE["llm"] == 1


def test_a_stream_comes_again_in_its_chunks(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            chunks = [chunk.text for chunk in Counted().stream("a b c")]
        with clew.replay(run):
            assert [chunk.text for chunk in Counted().stream("a b c")] == chunks
        with clew.replay(run):
            assert Counted().invoke("a b c").text == "".join(chunks)
        with clew.replay(run):
            assert asyncio.run(_astreamed("a b c")) == chunks
    assert LIVE["llm"] == 1


async def _astreamed(text: str) -> list[str]:
    return [chunk.text async for chunk in Counted().astream(text)]


class Failing(Counted):
    """Fails each time."""

    def _answer(self, messages: list[Any]) -> AIMessage:
        live("llm")
        raise ConnectionResetError(104, "gone")


class Odd(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, first: str, second: Any) -> None:
        super().__init__(first)
        self.second = second


def test_what_was_raised_is_raised_again(recorded: Recorded) -> None:
    @tool
    def odd(x: int) -> int:
        """Fail oddly."""
        live("tool")
        raise Odd("so", x)

    with recorded():
        with clew.run("answer") as run:
            with pytest.raises(ConnectionResetError):
                Failing().invoke("say")
            with pytest.raises(Odd):
                odd.invoke({"x": 7})
        with clew.replay(run) as again:
            with pytest.raises(ConnectionResetError, match="gone") as raised:
                Failing().invoke("say")
            with pytest.raises(Odd) as other:
                odd.invoke({"x": 7})
    assert raised.value.errno == 104
    assert other.value.second == 7
    assert LIVE == {"llm": 1, "tool": 1}
    assert again.certificate.holds


def test_tools_that_say_nothing_are_served_each_for_its_time(recorded: Recorded) -> None:
    balance = iter([100, 50])

    @tool
    def look(account: str) -> int:
        """The balance."""
        return next(balance)

    with recorded():
        with clew.run("answer") as run:
            first = [look.invoke({"account": "a"}) for _ in range(2)]
        with clew.replay(run):
            assert [look.invoke({"account": "a"}) for _ in range(2)] == first == [100, 50]
        with pytest.raises(ReplayMiss), clew.replay(run):
            look.invoke({"account": "b"})


def test_a_tool_that_sees_the_state_is_served(recorded: Recorded) -> None:
    class State(TypedDict):
        question: str
        messages: list[Any]

    @tool
    def count(word: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
        """Count."""
        return f"{live('tool')} {word} {state['question']}"

    def call(state: State) -> dict[str, Any]:
        answer = Counted(tool="count").invoke([HumanMessage(state["question"])])
        made = count.invoke(
            {
                "type": "tool_call",
                "name": "count",
                "id": answer.tool_calls[0]["id"],
                "args": {"word": "w", "state": {**state, "messages": [answer]}},
            }
        )
        return {"messages": [made]}

    graph = StateGraph(State)
    graph.add_node("call", call)
    graph.add_edge(START, "call")
    graph.add_edge("call", END)
    agent = graph.compile()
    with recorded():
        with clew.run("answer") as run:
            first = agent.invoke({"question": "Q", "messages": []})["messages"][0].text
        with clew.replay(run) as again:
            assert agent.invoke({"question": "Q", "messages": []})["messages"][0].text == first
        assert any("found by what can be seen" in note for note in again.certificate.notes)
        with pytest.raises(ReplayMiss), clew.replay(run):
            agent.invoke({"question": "other", "messages": []})
    assert LIVE["tool"] == 1


class Vectors(Embeddings):
    """One number for each text: which call it was."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(live("embedding"))] for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(live("embedding"))]


def test_vectors_are_served_text_by_text(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            one, two = Vectors().embed_documents(["one", "two"])
        with clew.replay(run):
            assert Vectors().embed_documents(["two", "one"]) == [two, one]
        with pytest.raises(ReplayMiss), clew.replay(run):
            Vectors().embed_documents(["one", "three"])
        with clew.replay(run, mode="hybrid"):
            assert len(Vectors().embed_documents(["one", "three"])) == 2


class Shelf(BaseRetriever):
    """Finds what it holds."""

    holds: str

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(f"{self.holds} {live('retriever')}", id="d1", metadata={"n": 1})]


def test_a_retriever_with_other_contents_goes_live(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            first = Shelf(holds="a").invoke("q")
        with clew.replay(run):
            assert Shelf(holds="a").invoke("q") == first
        with clew.replay(run, mode="hybrid") as again:
            assert Shelf(holds="b").invoke("q") != first
    assert [one.kind for one in again.certificate.live] == ["retriever"]


def test_what_was_redacted_is_served_so_and_told(recorded: Recorded) -> None:
    secret = "sk-proj-" + "a1B2c3D4" * 6
    with recorded():
        with clew.run("answer") as run:
            assert secret in Counted(says=f"the key is {secret}").invoke("q").text
        with clew.replay(run) as again:
            assert secret not in Counted(says=f"the key is {secret}").invoke("q").text
    assert any("credential" in note for note in again.certificate.notes)


# -- terms


def test_what_may_go_live_is_bounded(recorded: Recorded) -> None:
    @tool
    @clew.effect("write", idempotency_key=lambda arguments: arguments["to"])
    def send(to: str) -> str:
        """Send."""
        return f"sent {live('tool')}"

    with recorded():
        with clew.run("answer") as run:
            Counted().invoke("one")
        with (
            pytest.raises(ReplayMiss, match="may not go live"),
            clew.replay(run, mode="hybrid", allow=["tool"]) as again,
        ):
            Counted().invoke("two")
        assert again.certificate.lines()[2] == "live     1 refused"
        with pytest.raises(OverBudget), clew.replay(run, mode="hybrid", max_calls=1):
            Counted().invoke("two")
            Counted().invoke("three")
        with (
            pytest.raises(OverBudget),
            clew.replay(run, mode="hybrid", budget=1e-6, prices={"counted": (1.0, 1.0)}) as again,
        ):
            Counted().invoke("two")
            Counted().invoke("three")
        assert again.certificate.money_spent == pytest.approx(1e-5)
        with pytest.raises(ReplayMiss, match="said to write"), clew.replay(run, mode="hybrid"):
            send.invoke({"to": "you"})
        with clew.replay(run, mode="hybrid", allow=["send"]):
            assert send.invoke({"to": "you"}) == "sent 1"
        with pytest.raises(ReplayMiss), clew.replay(run, mode="hybrid") as again:
            Counted().invoke("four")
            send.invoke({"to": "you"})
        assert again.certificate.lines()[2].startswith("live     1 went live, 1 refused")


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "loose"},
        {"allow": ["llm"]},
        {"budget": 1.0},
        {"mode": "hybrid", "budget": 1.0},
        {"mode": "hybrid", "allow": "llm"},
        {"pace": -1},
    ],
)
def test_terms_that_make_no_sense(recorded: Recorded, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a replay is|nothing does|needs prices|is a list|not negative"):
        clew.replay("x", **options)


def test_a_run_that_was_not_recorded(clean_tracing: None, tmp_path: Path) -> None:
    clew.init("tests", store=tmp_path)
    clew.instrument()
    with clew.run("answer") as run:
        Counted().invoke("one")
    with pytest.raises(NotRecorded, match="record=True"), clew.replay(run):
        pass
    with pytest.raises(NotFound), clew.replay("nothing of that name"):
        pass


def test_without_content_nothing_is_recorded(clean_tracing: None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="capture=False"):
        clew.init("tests", store=tmp_path, record=True, capture=False)


def test_a_call_without_context_fails_closed(recorded: Recorded) -> None:
    from opentelemetry import context

    with recorded():
        with clew.run("answer") as run:
            Counted().invoke("one")

        def lost() -> None:
            token = context.attach(context.Context())
            try:
                Counted().invoke("one")
            except ReplayMiss as miss:
                raised.append(miss)
            finally:
                context.detach(token)

        raised: list[ReplayMiss] = []
        with pytest.raises(ReplayMiss, match="given no context"), clew.replay(run):
            thread = threading.Thread(target=lost)
            thread.start()
            thread.join()
    assert len(raised) == 1
    assert LIVE["llm"] == 1


def test_a_replay_is_a_run_and_can_be_replayed(recorded: Recorded) -> None:
    with recorded() as tracer:
        with clew.run("answer") as run:
            first = Counted().invoke("one").text
        with clew.replay(run) as again:
            Counted().invoke("one")
        with clew.replay(again.id) as third:
            assert Counted().invoke("one").text == first
        clew.flush()
        with clew.open(tracer.folder.path) as reader:
            views = {view.run_id: view for view in reader.runs()}
            assert run.id is not None
            assert again.id is not None
            assert views[again.id].replay_of == run.id
            root = reader.spans(again.id)[0]
            assert [link[2] for link in root.links] == ["replay_of"]
            served = next(span for span in reader.spans(again.id) if span.kind == "llm")
            assert served.attributes["gen_ai.usage.input_tokens"] == 0
    assert third.certificate.run_id == again.id
    assert LIVE["llm"] == 1


def test_parallel_calls_end_in_the_recorded_order(recorded: Recorded) -> None:
    """Which of two branches is through first may decide what is asked next."""

    class Slow(Counted):
        def _answer(self, messages: list[Any]) -> AIMessage:
            if messages[-1].text == "slow":
                threading.Event().wait(0.5)
            return AIMessage(messages[-1].text)

    def race() -> None:
        threads = [threading.Thread(target=Slow().invoke, args=(text,)) for text in ("slow", "quick")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def ends(run: Any) -> list[str]:
        clew.flush()
        with clew.open(tracer.folder.path) as reader:
            spans = sorted((one for one in reader.spans(run) if one.kind == "llm"), key=lambda one: one.end_ns or 0)
            return [one.used[0].value[-1]["content"] for one in spans]

    with recorded() as tracer:
        Slow().invoke("quick")  # its code is known then, and neither call waits for that
        with clew.run("answer") as run:
            race()
        assert ends(run) == ["quick", "slow"]
        with clew.replay(run, ordered=True) as again:
            race()
        assert ends(again.id) == ["quick", "slow"]


def test_random_values_of_a_seeded_run_come_again(recorded: Recorded) -> None:
    import random
    import uuid

    def ask() -> str:
        prompt = [SystemMessage(str(uuid.uuid4())), HumanMessage(f"{random.random()} {clew.now()}")]
        return Counted().invoke(prompt).text

    with recorded():
        with clew.run("answer", seed=3) as run:
            first = ask()
        with clew.replay(run) as again:
            assert ask() == first
    assert again.certificate.holds
    assert {"random": 1, "uuid4": 1, "clock": 1}.items() <= again.certificate.draws.items()


def test_the_network_is_out_of_reach(recorded: Recorded) -> None:
    import socket

    from clew.store.errors import NetworkBlocked

    with recorded():
        with clew.run("answer") as run:
            Counted().invoke("one")
        with pytest.raises(NetworkBlocked), clew.replay(run) as again, socket.socket() as reaching:
            reaching.connect(("127.0.0.1", 9))
    assert again.certificate.blocked
    assert not again.certificate.holds


def test_the_answer_is_compared(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            run.output(Counted().invoke("one").text)
        with clew.replay(run) as again:
            again.output("another")
    assert again.certificate.equal is False
    assert again.certificate.answer == "another"


def test_what_is_served_is_an_object_of_its_own(recorded: Recorded) -> None:
    with recorded():
        with clew.run("answer") as run:
            Counted().invoke("one")
        with clew.replay(run):
            one, other = Counted().invoke("one"), Counted().invoke("one")
    assert one is not other
    assert one.text == other.text
