"""Patches of prompts that are literal system messages: what the change touches goes live, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import BaseTool

import clew
from clew.lineage.reader import Reader
from clew.replay.playback.outcome import counted
from clew.replay.playback.patch import _in_force, in_force
from clew.replay.playback.patches import from_dict
from clew.replay.playback.prompt import prompts
from clew.replay.playback.replay import installed
from clew.replay.playback.replayer import Replayer
from clew.replay.playback.surroundings import Surroundings
from clew.replay.playback.terms import Terms
from clew.replay.recording.recording import load
from clew.store.errors import Ambiguous, NotFound
from clew.tracer.init import Tracer
from tests.replay.conftest import LIVE, Counted
from tests.replay.patches.bed import Recording, hybrid, recorded, seen

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
