"""Answers by position: the n-th call was answered with what the n-th call was answered before, whatever it asks.

These are the forms that the cache alone shows; a replay has them once more.
"""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

import clew
from tests.replay.conftest import LIVE, Caching, live
from tests.replay.defects.provider import Provider, sent

temperatures = pytest.mark.parametrize("temperature", [0.0, None], ids=["exact", "sampled"])


def asked(answer: dict[str, Any]) -> str:
    """The text that an answer is an answer to."""
    return str(answer["messages"][-1][1])


@temperatures
def test_vcrpy_calls_in_another_order_get_their_own_answers(caching: Caching, temperature: Any) -> None:
    """vcrpy 9.4.2 with its default matcher: recorded A, B; asked B, A; got A, B."""
    model = Provider(temperature=temperature)
    with caching():
        with clew.run("agent"):
            first = {text: sent(model, text) for text in ("A", "B")}
        with clew.run("agent"):
            again = {text: sent(model, text) for text in ("B", "A")}
    assert [asked(again[text]) for text in ("A", "B")] == ["A", "B"]
    assert again == first
    assert LIVE == {"llm": 2}


def test_vcrpy_what_differs_in_the_body_alone_is_another_request(caching: Caching) -> None:
    """vcrpy 9.4.2: `match_on` has no body, so two posts to one address were one request."""

    @clew.cached
    def post(url: str, body: dict[str, Any]) -> str:
        return f"{live('post')}: {body['question']}"

    with caching():
        answers = [post("https://api.example/v1/chat", {"question": text}) for text in ("A", "B", "A")]
    assert answers == ["1: A", "2: B", "1: A"]


@temperatures
def test_dbos_a_prompt_that_was_changed_is_asked(caching: Caching, temperature: Any) -> None:
    """DBOS 3.4.0: a step is told by its counter and the name of its function: after a fork with another prompt, the old
    answer was served without a word."""

    def fork(prompt: str) -> list[Any]:
        model = Provider(temperature=temperature)
        with clew.run("workflow"):
            answers = [sent(model, [SystemMessage(prompt), HumanMessage(text)]) for text in ("one", "two")]
        return [answer["messages"][0][1] for answer in answers]

    with caching():
        assert [fork(prompt) for prompt in ("be brief", "be kind", "be brief")] == [
            ["be brief"] * 2,
            ["be kind"] * 2,
            ["be brief"] * 2,
        ]
    assert LIVE == {"llm": 4}


def test_temporal_other_inputs_are_another_activity(caching: Caching) -> None:
    """Temporal, by design (community.temporal.io/t/12249): inputs of an activity are not compared when it is replayed."""

    @clew.cached
    def activity(amount: int) -> str:
        return f"{live('activity')}: {amount}"

    def workflow(amount: int) -> str:
        with clew.run("workflow"):
            return activity(amount)

    with caching():
        assert [workflow(amount) for amount in (1, 2, 1)] == ["1: 1", "2: 2", "1: 1"]


@temperatures
def test_reeltime_a_call_more_or_less_moves_no_other(caching: Caching, temperature: Any) -> None:
    """reeltime 1.0.0: calls are matched by position, so one that is added or left out shifts the answers after it."""
    model = Provider(temperature=temperature)
    with caching():
        for texts in (["A", "B", "C"], ["X", "A", "B", "C"], ["B", "C"], ["C", "B", "A"]):
            with clew.run("agent"):
                assert [asked(sent(model, text)) for text in texts] == texts
    assert LIVE == {"llm": 4}


@temperatures
@pytest.mark.parametrize("is_async", [False, True], ids=["threads", "tasks"])
def test_reeltime_branches_that_come_in_another_order(caching: Caching, temperature: Any, is_async: bool) -> None:
    """reeltime 1.0.0, DBOS 3.4.0: of parallel branches whoever comes first got the first answer."""
    model = Provider(temperature=temperature)
    texts = [f"branch {number}" for number in range(8)]

    async def gathered(order: list[str]) -> list[Any]:
        return list(await asyncio.gather(*(model.ainvoke(text) for text in order)))

    def branches(order: list[str]) -> list[str]:
        if is_async:
            return [message.text for message in asyncio.run(gathered(order))]
        with ThreadPoolExecutor(4) as pool:
            return [message.text for message in pool.map(model.invoke, order)]

    chance = random.Random(5)
    with caching():
        for _ in range(3):
            chance.shuffle(texts)
            with clew.run("agent"):
                answers = branches(texts)
            assert all(f'"{text}"' in answer for text, answer in zip(texts, answers, strict=True))
    assert LIVE == {"llm": 8}


def test_samples_of_one_request_are_as_many_as_were_drawn(caching: Caching) -> None:
    """inspect_ai#2580, dspy#8745: n samples of one prompt became n copies of the first."""
    model = Provider(temperature=0.7)
    numbers = []
    with caching():
        for count in (2, 4):
            with clew.run("samples"):
                numbers.append([sent(model)["number"] for _ in range(count)])
    assert numbers == [[1, 2], [1, 2, 3, 4]]
