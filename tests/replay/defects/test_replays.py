"""Wrong answers that replays of others served: by position, by name, or by a part of what was asked. And what they executed."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.tools import tool

import clew
from clew.store.errors import ReplayMiss
from tests.replay.conftest import LIVE, Recorded, live
from tests.replay.defects.provider import Provider, sent

temperatures = pytest.mark.parametrize("temperature", [0.0, None], ids=["exact", "sampled"])


def asked(answer: dict[str, Any]) -> str:
    """The text that an answer is an answer to."""
    return str(answer["messages"][-1][1])


@temperatures
def test_vcrpy_calls_in_another_order_get_their_own_answers(recorded: Recorded, temperature: Any) -> None:
    """vcrpy 9.4.2 with its default matcher: recorded A, B; asked B, A; got A, B."""
    model = Provider(temperature=temperature)
    with recorded():
        with clew.run("agent") as run:
            first = {text: sent(model, text) for text in ("A", "B")}
        with clew.replay(run) as replayed:
            again = {text: sent(model, text) for text in ("B", "A")}
    assert [asked(again[text]) for text in ("B", "A")] == ["B", "A"]
    assert again == first
    assert replayed.certificate.unasked == 0
    assert LIVE == {"llm": 2}


def test_vcrpy_what_differs_in_the_body_alone_is_another_request(recorded: Recorded) -> None:
    """vcrpy 9.4.2: `match_on` has no body, so two posts to one address were one request."""

    @tool
    def post(url: str, body: dict[str, Any]) -> str:
        """Post."""
        return f"{live('post')}: {body['question']}"

    def posted(*questions: str) -> list[str]:
        return [post.invoke({"url": "https://api.example/v1", "body": {"question": one}}) for one in questions]

    with recorded():
        with clew.run("agent") as run:
            posted("A", "B")
        with clew.replay(run):
            assert posted("B", "A") == ["2: B", "1: A"]
        with pytest.raises(ReplayMiss, match="“A” → “C”"), clew.replay(run):
            posted("C")
    assert LIVE == {"post": 2}


@temperatures
@pytest.mark.parametrize("upstream", ["dbos", "temporal"])
def test_a_prompt_that_was_changed_never_gets_the_old_answer(
    recorded: Recorded, temperature: Any, upstream: str
) -> None:
    """DBOS 3.4.0 tells a step by its counter and its function's name, and Temporal compares no inputs of activities
    (community.temporal.io/t/12249): with another prompt both served the old answer."""
    models = {
        "dbos": Provider(temperature=temperature),
        "temporal": Provider(temperature=temperature, model="activity"),
    }
    model = models[upstream]
    with recorded():
        with clew.run("workflow") as run:
            sent(model, "be brief")
        with pytest.raises(ReplayMiss, match="be brief"), clew.replay(run):
            sent(model, "be long")
        assert LIVE == {"llm": 1}
        with clew.replay(run, mode="hybrid") as again:
            assert asked(sent(model, "be long")) == "be long"
        with clew.replay(run, mode="plan") as plan:
            sent(model, "be long")
    assert LIVE == {"llm": 2}
    assert [one.kind for one in again.certificate.live] == [one.kind for one in plan.plan] == ["llm"]
    assert not again.certificate.holds


@pytest.mark.parametrize("name", ["date", "timestamp", "created", "nonce"])
def test_agenttape_no_argument_is_left_out_for_its_name(recorded: Recorded, name: str) -> None:
    """agenttape 0.1.8 drops arguments of these names: recorded for January, asked for July, it got January."""
    made: dict[str, Any] = {}
    exec(f"def weather({name}: str) -> str:\n    'Tell.'\n    return told({name})", {"told": lambda when: when}, made)
    weather = tool(made["weather"])
    with recorded():
        with clew.run("agent") as run:
            assert weather.invoke({name: "2026-01-01"}) == "2026-01-01"
        with pytest.raises(ReplayMiss, match=f"arguments.{name}: .*2026-01.* → .*2026-07"), clew.replay(run):
            weather.invoke({name: "2026-07-01"})
        with clew.replay(run, mode="hybrid"):
            assert weather.invoke({name: "2026-07-01"}) == "2026-07-01"


def _in_a_run_of_its_own(body: Callable[[], Any]) -> Any:
    with clew.run("of its own"):
        return body()


@pytest.mark.parametrize("around", [lambda body: body(), _in_a_run_of_its_own], ids=["bare", "with a run of its own"])
def test_agenttape_a_call_without_context_is_not_executed(
    recorded: Recorded, around: Callable[[Callable[[], Any]], Any]
) -> None:
    """agenttape 0.1.8 executed what was reached without its run's context: in a raw thread, or an executor."""

    @tool
    def act(what: str) -> str:
        """Act."""
        return f"{live('act')}: {what}"

    def lost() -> None:
        try:
            contextvars.Context().run(around, lambda: act.invoke({"what": "it"}))
        except ReplayMiss as miss:
            raised.append(miss)

    raised: list[ReplayMiss] = []
    with recorded():
        with clew.run("agent") as run:
            act.invoke({"what": "it"})
        for mode in ("strict", "plan"):
            replay = clew.replay(run, mode=mode)
            try:
                with replay:
                    thread = threading.Thread(target=lost)
                    thread.start()
                    thread.join()
            except ReplayMiss:
                assert mode == "strict"
            assert len(replay.certificate.live) == 1
    assert len(raised) == 2
    assert LIVE == {"act": 1}


def test_agenttape_threads_and_executors_are_given_the_context(recorded: Recorded) -> None:
    """agenttape 0.1.8 needed the program to copy contextvars into its threads."""
    model = Provider()

    def answers() -> set[str]:
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(asked(sent(model, "thread"))))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(4) as pool:
            return {*found, *(asked(one) for one in pool.map(lambda text: sent(model, text), "abcd"))}

    with recorded():
        with clew.run("agent") as run:
            first = answers()
        with clew.replay(run) as again:
            assert answers() == first
    assert again.certificate.served == {"llm": 5}
    assert LIVE == {"llm": 5}


@temperatures
@pytest.mark.parametrize("now", ["ABXC", "AC", "CAB", "XABC"], ids=["inserted", "removed", "moved", "in front"])
def test_positional_a_call_more_or_less_shifts_no_other(recorded: Recorded, temperature: Any, now: str) -> None:
    """reeltime 1.0.0, and counters of any kind: what follows a call that was put in, or taken out, got the next one's
    answer."""
    model = Provider(temperature=temperature)
    with recorded():
        with clew.run("agent") as run:
            first = {text: sent(model, text) for text in "ABC"}
        with clew.replay(run, mode="hybrid") as replayed:
            again = {text: sent(model, text) for text in now}
    assert {text: again[text] for text in now if text != "X"} == {text: first[text] for text in now if text != "X"}
    assert len(replayed.certificate.live) == now.count("X") == LIVE["llm"] - 3
    assert replayed.certificate.unasked == len(set("ABC") - set(now))


def test_prefix_forks_only_what_a_change_touches_goes_live(recorded: Recorded) -> None:
    """Forks by prefix run all again that comes after the first change, whether it is affected or not."""
    model = Provider()

    def agent(prompt: str) -> list[str]:
        plan = sent(model, "plan")
        branches = [asked(sent(model, f"{text} of {asked(plan)}")) for text in (prompt, "second", "third")]
        return [*branches, asked(sent(model, " ".join(branches)))]

    with recorded():
        with clew.run("agent") as run:
            agent("first")
        with clew.replay(run, mode="hybrid") as again:
            assert agent("other")[0] == "other of plan"
    assert again.certificate.served == {"llm": 3}
    assert [one.name for one in again.certificate.live] == ["model-1", "model-1"]  # the branch, and what joins them
    assert LIVE == {"llm": 7}
