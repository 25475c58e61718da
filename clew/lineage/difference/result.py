"""The difference of two runs: one shape in Python, in JSON and on the screen."""

from __future__ import annotations

import dataclasses
from typing import Any

from clew.lineage.difference.alignment import Pair
from clew.lineage.difference.change import Change
from clew.lineage.difference.divergence import STATES
from clew.lineage.difference.facet import Facet
from clew.lineage.difference.role import changes, roles
from clew.lineage.difference.step import Step
from clew.lineage.view import RunView

SCHEMA = "clew/1"
UNFINISHED = ("running", "killed", "unknown", "closed_early", "interrupted")


@dataclasses.dataclass
class Answer:
    """The answers of the two runs. `equal` is None where neither has one."""

    equal: bool | None
    changes: list[Change]


@dataclasses.dataclass
class Difference:
    """What differs between the runs `a` and `b`. `steps` are the pairs of the top level, each with those in it;
    `divergences` the first that differ; `notes` what limits the comparison."""

    a: RunView
    b: RunView
    steps: list[Pair]
    divergences: list[Pair]
    answer: Answer
    facets: list[Facet]
    notes: list[str]

    @property
    def equal(self) -> bool:
        """Whether the two did the same: every step asked and answered alike, in whatever order parallel ones ended.

        What they were made with (`facets`) may still differ, and times, token counts and minted ids always do."""
        return self.answer.equal is not False and all(pair.state == "equal" for pair in self.pairs())

    def __str__(self) -> str:
        return self.text()

    def pairs(self) -> list[Pair]:
        """All pairs, each before those in it."""
        return [pair for top in self.steps for pair in top.within()]

    @property
    def counts(self) -> dict[str, int]:
        """How many steps are in each state."""
        found = dict.fromkeys(STATES, 0)
        for pair in self.pairs():
            found[pair.state] += 1
        return found

    def to_dict(self, *, content: bool = False) -> dict[str, Any]:
        """The difference as it stands in the JSON:

            {"schema": "clew/1", "equal": bool,
             "a": run, "b": run,                       as in `clew runs --json`, with "tokens": [input, output] or null
             "answer": {"equal": bool or null, "changes": [change]},
             "divergences": [number],                  steps whose difference no earlier one explains, in their order
             "facets": [{"name": "code" "environment" "entry" "seeds" "session" "data",
                         "equal": bool or null (not captured), "changes": [change], "note"?: text}],
             "steps": [step], "counts": {state: number}, "notes": [text]}

            step: {"number", "parent": number or null, "kind", "name", "path", "state", "divergence": bool,
                   "a": side or null, "b": side or null,
                   "differs"?: {"request": [role], "answer": [role]},     roles, "name", "status", "error"
                   "follows"?: number      the difference before it that can explain this one; of several the first
                   "own"?: [role]          what differs in its request and came of no earlier step
                   "moved"?: true          the two stand in another order, or not in steps that are aligned
                   "changes"?: [change]}   of a divergence; with `content` of every step that differs, at most 200
            side: {"span_id", "run_id", "status", "start_ns", "duration_ns" or null, "tokens": [input, output] or null,
                   "cached"?: true}
            state: "equal"; "asked otherwise": its request differs; "answered otherwise": it was asked the same;
                   "added" or "removed": one run alone has it; "within": only what is inside differs
            change: {"side": "request", "answer" or a facet's name, "path", "a"?, "b"?, "diff"?: [line]}
                   a and b are the values, left out where that run has none; `diff` is unified, of two texts

        Minted ids are written "#0", "#1", ... in the order of their first use.
        """
        return {
            "schema": SCHEMA,
            "equal": self.equal,
            "a": {**self.a.to_dict(), "tokens": tokens(self.sides("a"))},
            "b": {**self.b.to_dict(), "tokens": tokens(self.sides("b"))},
            "answer": {"equal": self.answer.equal, "changes": [one.to_dict() for one in self.answer.changes]},
            "divergences": [pair.number for pair in self.divergences],
            "facets": [facet.to_dict() for facet in self.facets],
            "steps": [_step(pair, content) for pair in self.pairs()],
            "counts": self.counts,
            "notes": self.notes,
        }

    def sides(self, name: str) -> list[Step]:
        """The steps of the run "a" or "b"."""
        return [step for pair in self.pairs() if (step := getattr(pair, name)) is not None]

    def text(self, *, everything: bool = False) -> str:
        """The difference as plain text, 120 columns wide."""
        from clew.lineage.difference.telling import text  # rich is for who reads

        return text(self, everything=everything)


def tokens(steps: list[Step]) -> list[int] | None:
    """Input and output tokens of the models' calls among these."""
    counted = [step.tokens for step in steps if step.kind in ("llm", "embedding") and step.tokens is not None]
    return [sum(one[0] for one in counted), sum(one[1] for one in counted)] if counted else None


def _step(pair: Pair, content: bool) -> dict[str, Any]:
    step = pair.step
    found: dict[str, Any] = {
        "number": pair.number,
        "parent": pair.parent.number if pair.parent else None,
        "kind": step.kind,
        "name": step.name,
        "path": step.span.path,
        "state": pair.state,
        "divergence": pair.first,
        "a": _side(pair.a),
        "b": _side(pair.b),
    }
    if differing := roles(pair):
        found["differs"] = differing
    if pair.follows is not None:
        found["follows"] = pair.follows.number
    if pair.own:
        found["own"] = pair.own
    if pair.moved or pair.elsewhere:
        found["moved"] = True
    if differing and (pair.first or content):
        found["changes"] = [change.to_dict() for change in changes(pair)]
    return found


def _side(step: Step | None) -> dict[str, Any] | None:
    if step is None:
        return None
    found: dict[str, Any] = {
        "span_id": step.span.span_id,
        "run_id": step.span.run_id,
        "status": step.status,
        "start_ns": step.span.start_ns,
        "duration_ns": step.duration_ns,
        "tokens": step.tokens,
    }
    return {**found, "cached": True} if step.attributes.get("clew.cache.hit") is True else found
