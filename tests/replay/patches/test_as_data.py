"""Patches as data, and those that met nothing."""

from __future__ import annotations

import json

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

import clew
from clew.replay.playback.patch import Patch
from clew.replay.playback.patches import from_dict
from clew.replay.playback.reference import Reference
from clew.store.errors import Unpatchable
from tests.replay.patches.bed import Library, Recording, Sized, cited, looked_up, recorded, spans


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


def test_a_tool_that_is_named_is_data() -> None:
    patch = from_dict(clew.Tool("search", "json:dumps").to_dict())
    assert isinstance(patch, clew.Tool)
    assert patch.reference == Reference(module="json", function="dumps")
    assert patch.instead is json.dumps
    installed = clew.Tool("search", "langchain_core.tools:tool")
    assert from_dict(installed.to_dict()).instead is tool  # type: ignore[attr-defined]
    assert installed.title == "tool 'search' (langchain_core.tools:tool)"
    assert clew.Tool("search", tool).reference is None
    with pytest.raises(Unpatchable, match="json:nothing cannot be imported: AttributeError"):
        _ = clew.Tool("search", Reference(module="json", function="nothing")).instead
    for text in ("json", "json:", ":dumps", "a b:c", "../json:dumps"):
        with pytest.raises(ValueError, match="names no function"):
            clew.Tool("search", text)


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
