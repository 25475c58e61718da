"""Patches of what a tool or a model does itself: its recorded answer depends on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import SystemMessage
from langchain_core.outputs import ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool

import clew
from clew.store.errors import ReplayMiss
from tests.replay.conftest import LIVE, Counted, Recorded, live
from tests.replay.patches.bed import Library, Recording, hybrid, recorded, search, spans

TEMPLATE = ChatPromptTemplate.from_messages([("system", "Be kind."), ("human", "{claim}")])


@tool
def judge(claim: str) -> str:
    """Look a claim up, and have a model judge it."""
    live("judge")
    found = [search.invoke({"query": claim}), Library().invoke(claim)[0].page_content]
    literal = Counted().invoke([SystemMessage("Be short."), ("human", claim)]).text
    return " / ".join([*found, (TEMPLATE | Counted()).invoke({"claim": claim}).text, literal])


class Asks(BaseChatModel):
    """A model that has another one answer."""

    @property
    def _llm_type(self) -> str:
        return "asks"

    def _generate(self, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        live("asks")
        return Counted()._generate([Counted().invoke(messages)])


def judged() -> list[str]:
    return [judge.invoke({"claim": "a"}), judge.invoke({"claim": "b"}), Counted().invoke("c").text]


def answered(tracer: Any, run: Any) -> clew.Answer:
    """The patch of the first answer of a model; it is given in a tool."""
    return clew.Answer(spans(tracer, run.id, "llm")[0], "OTHER")


PATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "template": lambda tracer, run: clew.Prompt("judge-1", "OTHER {claim}"),
    "system message": lambda tracer, run: clew.Prompt("judge-2", "OTHER"),
    "model": lambda tracer, run: clew.Model("Counted", says="OTHER"),
    "tool": lambda tracer, run: clew.Tool("search", lambda query: "OTHER"),
    "document": lambda tracer, run: clew.Retrieved("d1", "OTHER"),
    "answer": answered,
}
REACHED = {"model": 3, "answer": 1}  # calls at the top that depend on it; else both of the tool


@pytest.mark.parametrize("what", PATCHES)
def test_a_tool_that_does_what_is_patched_is_asked_again(recording: Recording, what: str) -> None:
    with recording() as tracer:
        run = recorded(judged)
        patch = PATCHES[what](tracer, run)
        with pytest.raises(ReplayMiss, match="what it does itself is patched"), clew.replay(run, patch=patch) as again:
            judged()
        assert not LIVE
        assert not again.certificate.holds
        given, certificate, _ = hybrid(run, patch, judged)
        tops = [one for one in certificate.live if one.path.count("/") == 0]
        assert len(tops) == REACHED.get(what, 2)
        assert LIVE["judge"] == min(len(tops), 2)
        assert certificate.patches
        if what not in ("template", "system message"):
            assert "OTHER" in given[0]


def test_a_model_that_asks_the_one_that_is_patched(recording: Recording) -> None:
    def body() -> str:
        return Asks().invoke("a").text

    with recording():
        run = recorded(body)
        _, certificate, _ = hybrid(run, clew.Model("Counted", says="OTHER"), body)
        assert LIVE["asks"] == 1
        assert {one.name for one in certificate.live} == {"Asks", "Counted"}


def test_a_tool_that_writes_is_not_run_for_what_it_does_itself(recording: Recording) -> None:
    @tool
    def pay(claim: str) -> str:
        """Pay."""
        live("pay")
        return Library().invoke(claim)[0].page_content

    clew.effect("write", idempotency_key=lambda arguments: arguments["claim"])(pay)

    def body() -> Any:
        return pay.invoke({"claim": "a"})

    with recording():
        run = recorded(body)
        patch = clew.Retrieved("d1", "OTHER")
        with pytest.raises(ReplayMiss, match="allow it by its name"):
            hybrid(run, patch, body)
        assert not LIVE
        assert hybrid(run, patch, body, allow=["pay"])[0] == "OTHER"


def test_a_replay_of_a_replay_knows_what_the_first_run_did(recording: Recording) -> None:
    with recording():
        run = recorded(lambda: [*judged(), (TEMPLATE | Counted()).invoke({"claim": "d"}).text])
        with clew.replay(run) as second:
            judged()
            (TEMPLATE | Counted()).invoke({"claim": "d"})
        for patch in (clew.Prompt("replay of recorded", "OTHER {claim}"), clew.Tool("search", lambda query: "OTHER")):
            LIVE.clear()
            _, certificate, _ = hybrid(second.id, patch, judged)
            assert [one.name for one in certificate.live if one.kind == "tool"].count("judge") == 2
            assert LIVE["judge"] == 2


def test_a_plan_lists_a_tool_that_does_what_is_patched(recording: Recording) -> None:
    with recording():
        run = recorded(judged)
        with clew.replay(run, mode="plan", patch=clew.Retrieved("d1", "OTHER")) as plan:
            judged()
        assert [one.name for one in plan.plan] == ["judge", "judge"]
        assert not LIVE


@pytest.mark.parametrize("what", ["answer", "document", "tool"])
def test_what_a_patched_replay_makes_is_not_in_the_cache(recorded: Recorded, what: str) -> None:
    @tool
    def look(claim: str) -> str:
        """Look."""
        live("look")
        model = Counted(temperature=1.0).invoke(claim)  # a sample, and so what is recorded is served
        return " / ".join([search.invoke({"query": claim}), Library().invoke(claim)[0].page_content, model.text])

    @clew.cached(version="1")
    def function(claim: str) -> str:
        return str(look.invoke({"claim": claim}))

    clew.effect("pure", version="1")(look)

    def body(claim: str) -> list[str]:
        return [look.invoke({"claim": claim}), function(claim)]

    with recorded(cache=True) as tracer:
        with clew.run("answer") as run:
            body("a")
        patch = PATCHES[what](tracer, run)
        hybrid(run, patch, lambda: body("b"))
        assert not [text for text in body("b") if "OTHER" in text]
        assert "OTHER" in hybrid(run, patch, lambda: body("a"))[0][0]
        assert not [text for text in body("a") if "OTHER" in text]
