"""A run again with its recorded answers: strict, hybrid and plan, in the process that runs the program."""

from __future__ import annotations

import contextvars
import random
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool

import clew
from clew.store.errors import NotFound, NotRecorded, OverBudget, ReplayMiss
from tests.replay.conftest import LIVE, Counted, Recorded, live, program
from tests.replay.test_planner import CALLS, CASES, WAYS, awaited, invoked, streamed_async

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


def test_a_call_without_context_that_goes_live_is_told_and_does_not_write(recorded: Recorded) -> None:
    @tool
    def pay(x: int) -> str:
        """Pay."""
        return f"paid {live('pay')}"

    clew.effect("write", idempotency_key=lambda arguments: arguments["x"])(pay)

    def body() -> list[str]:
        return contextvars.Context().run(lambda: [Counted().invoke("one").text, pay.invoke({"x": 1})])

    with recorded():
        with clew.run("answer") as run:
            body()
        with pytest.raises(ReplayMiss, match="allow it by its name"), clew.replay(run, mode="hybrid") as again:
            body()
        assert [(one.name, one.refused) for one in again.certificate.live] == [("Counted", False), ("pay", True)]
        assert LIVE == {"llm": 2, "pay": 1}
        with clew.replay(run, mode="hybrid", allow=["llm", "pay"]) as again:
            body()
        assert not again.certificate.holds
        assert "given no context" in again.certificate.live[0].why
    assert LIVE == {"llm": 3, "pay": 2}


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


def test_runs_with_seeds_and_their_replays_side_by_side(recorded: Recorded) -> None:
    def body(meet: threading.Barrier) -> list[str]:
        said = []
        for _ in range(3):
            meet.wait(10)
            asked = f"{random.random()} {np.random.rand()} {uuid.uuid4()} {clew.time_ns()}"
            said.append(Counted().invoke(asked).text)
        return said

    def side_by_side(*contexts: Any) -> list[tuple[Any, list[str]]]:
        meet, inside = threading.Barrier(len(contexts)), threading.Barrier(len(contexts))

        def one(entered: Any) -> tuple[Any, list[str]]:
            try:
                with entered as run:
                    inside.wait(10)
                    said = body(meet)
                    inside.wait(10)
                return run, said
            except Exception:
                meet.abort()
                inside.abort()
                raise

        with ThreadPoolExecutor(len(contexts)) as pool:
            return list(pool.map(one, contexts))

    with recorded():
        (first, said_first), (second, said_second) = side_by_side(clew.run("one", seed=7), clew.run("two", seed=8))
        for runs, said in [((first, second), [said_first, said_second]), ((second, first), [said_second, said_first])]:
            replays = side_by_side(*(clew.replay(run) for run in runs))
            assert [one for _, one in replays] == said
            assert all(again.certificate.holds for again, _ in replays)
        with clew.replay(first):
            assert body(threading.Barrier(1)) == said_first
    assert LIVE == {"llm": 6}


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
