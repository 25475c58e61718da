"""Patches as data, and those that met nothing."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage

import clew
from clew.replay.playback.patch import Patch, from_dict
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
