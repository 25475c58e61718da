"""Several indexers of one store: whoever indexed the beginning of a run, its lineage is what one indexer makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool

import clew
from clew.lineage import index, rebuild
from clew.lineage.graph import Lineage
from clew.lineage.index import Indexer
from clew.store import backend, segment
from clew.store.folder import Folder
from clew.store.store import Store
from tests.lineage.lineage_bed import (
    QUESTION,
    ROOT,
    Fake,
    Given,
    agent,
    documents,
    numbered,
    prose,
    rows,
    rows_of,
    traced,
    used,
)

Step = Callable[[], None]


def text_of(number: int) -> str:
    return str(rows()[number]["body"])


def model(step: Step, says: object) -> Fake:
    """A model during whose call somebody may index."""

    def reply(messages: list[Any]) -> str:
        step()
        return prose(says)

    return Fake(reply=reply)


# -- programs that say where somebody may index


def asked(step: Step) -> None:
    """A retrieval, a prompt that holds what was found, an answer, and its last sentence as what the run says."""
    handbook = rows()
    clew.dataset("handbook", handbook)
    step()
    with clew.run("ask") as run:
        step()
        found = Given(found=documents(handbook[:3])).invoke("x")
        step()
        said = model(step, "said").invoke([HumanMessage(numbered(found[1:2]))])
        step()
        run.output(f"In the end: {said.content}")
    step()


def in_parts(step: Step) -> None:
    """Documents that hold their rows in part, or are declared to be made of them, in a prompt with a text of the code."""
    handbook = clew.dataset("handbook", rows())
    step()
    declared = [one.to_langchain() for one in handbook.documents(text=lambda row: str(row["body"]).upper())]
    parts = [Document(f"Page {number}. {text_of(number)[:120]}") for number in range(3)]
    with clew.run("ask") as run:
        step()
        found = Given(found=[*parts, *declared[4:6]]).invoke("x")
        step()
        instruction = "You are a careful clerk who answers from what stands below and from nothing else at all."
        prompt = f"{instruction}\n{found[2].page_content}\n{found[4].page_content}"
        said = model(step, "said").invoke([HumanMessage(prompt)])
        run.output(said.content)


def by_a_graph(step: Step) -> None:
    """Nodes that read and write channels of a state."""
    handbook = rows()
    clew.dataset("handbook", handbook)

    def keep(document: Document) -> bool:
        step()
        return document.id == "h1"

    agent(Given(found=documents(handbook[:3])), model(step, "said"), keep=keep).invoke({"question": QUESTION})


def in_turns(step: Step) -> None:
    """A second turn, whose prompt holds the first one's answer and a row of a dataset that came later."""
    handbook = rows()
    clew.dataset("handbook", handbook[:2])
    with clew.run("first", session="s") as run:
        found = Given(found=documents(handbook[:1])).invoke("x")
        step()
        said = model(step, "first").invoke([HumanMessage(numbered(found))])
        run.output(said.content)
    step()
    clew.dataset("more", handbook[2:])
    with clew.run("second", session="s") as run:
        step()
        found = Given(found=documents(handbook[2:4])).invoke("x")
        step()
        context = f"{said.content}\n{found[0].page_content}"
        run.output(model(step, "second").invoke([HumanMessage(context)]).content)


def nested(step: Step) -> None:
    """Runs inside a run, the second of which works on what the first one said."""
    handbook = rows()
    with clew.run("outer") as outer:
        clew.dataset("handbook", handbook)
        step()
        with clew.run("inner one") as run:
            found = Given(found=documents(handbook[:2])).invoke("x")
            step()
            said = model(step, "one").invoke([HumanMessage(numbered(found[:1]))])
            run.output(said.content)
        step()
        with clew.run("inner two") as run:
            step()
            again = model(step, "two").invoke([HumanMessage(f"Sum up: {said.content}")])
            run.output(again.content)
        step()
        outer.output(again.content)


def by_functions(step: Step) -> None:
    """Traced functions that hand on what they were given."""

    @clew.trace(kind="retriever")
    def look_up(query: str) -> list[str]:
        return [text_of(0), text_of(1)]

    @clew.trace
    def chosen(texts: list[str]) -> str:
        step()
        return f"We found this: {texts[1]}"

    clew.dataset("handbook", rows())
    with clew.run("ask") as run:
        step()
        texts = look_up("x")
        step()
        told = chosen(texts)
        step()
        run.output(told)


def by_a_tool(step: Step) -> None:
    """A tool's result, told by the id of its call."""
    handbook = rows()
    clew.dataset("handbook", handbook)

    @tool
    def look_up(query: str) -> str:
        """Look something up."""
        found = Given(found=documents(handbook[:3])).invoke(query)
        step()
        return found[2].page_content

    with clew.run("ask") as run:
        call: Any = {"name": "look_up", "args": {"query": "x"}, "id": "call-1", "type": "tool_call"}
        asks = Fake(reply=lambda messages: AIMessage("", tool_calls=[call])).invoke([HumanMessage("Well, tell me?")])
        step()
        result = look_up.invoke(call)
        assert isinstance(result, ToolMessage)
        step()
        said = model(step, "said").invoke([HumanMessage("Well, tell me?"), asks, result])
        step()
        run.output(said.content)


PROGRAMS: dict[Callable[[Step], None], list[str]] = {
    asked: ["h1"],
    in_parts: ["h2", "h5"],
    by_a_graph: ["h1"],
    in_turns: ["h0", "h2"],
    nested: ["h0"],
    by_functions: ["h1"],
    by_a_tool: ["h2"],
}


# -- who indexes


class Hands:
    """Takes turns: at each step the process's own indexer, another one of this store, or nobody catches up."""

    def __init__(self, store: Path, turns: str) -> None:
        self.folder = Folder(store)
        self.turns = turns
        self.steps = 0
        self.other = Store(self.folder)
        self.others = Indexer(self.other)

    def step(self) -> None:
        who = self.turns[self.steps % len(self.turns)]
        self.steps += 1
        if who == "o":
            index.index_store(self.folder)
        elif who == "x":
            with backend.exclusive(self.other.engine, self.folder.lock, "index"):
                self.others.catch_up(segment.stems(self.folder.log))


def plain(lineage: Lineage) -> str:
    """All that a lineage says, in an order that does not depend on who indexed first."""
    return json.dumps(lineage.to_dict(), sort_keys=True, indent=1)


@pytest.mark.parametrize("turns", ["x", "xo", "-x", "oox", "---x"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_run_that_several_indexers_followed_has_the_lineage_that_one_makes(
    program: Callable[[Step], None], turns: str, tmp_path: Path
) -> None:
    with traced(tmp_path) as store:
        hands = Hands(store, turns)
        program(hands.step)
        lineage = clew.why()
        hands.other.close()
    assert hands.steps >= 4
    assert used(lineage) == PROGRAMS[program]
    index.forget(hands.folder)
    rebuild.rebuild(hands.folder)
    with clew.open(store) as reader:
        assert plain(reader.why(lineage.root)) == plain(lineage)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_an_indexer_that_lets_go_of_ended_runs_makes_the_same_lineage(
    program: Callable[[Step], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clew.lineage.runs._KNOWN_RUNS", 0)
    with traced(tmp_path) as store:
        program(Hands(store, "o").step)
        lineage = clew.why()
        for _ in range(20):
            with clew.run("more"):
                pass
        again = clew.why(lineage.root)
    assert used(lineage) == PROGRAMS[program]
    assert plain(again) == plain(lineage)
    assert len(index.shared(Folder(store))[1]._runs) < 5


def test_a_run_goes_on_after_another_process_indexed_its_beginning(tmp_path: Path) -> None:
    def query() -> None:
        words = [sys.executable, "-c", "import sys, clew; print(len(clew.open(sys.argv[1]).spans()))", str(store)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        counts.append(int(done.stdout))

    counts: list[int] = []
    with traced(tmp_path) as store:
        in_turns(query)
        lineage = clew.why()
    assert counts == sorted(counts)
    assert counts[-1] > counts[0] > 0
    assert used(lineage) == ["h0", "h2"]
    assert rows_of(lineage, "considered") == ["h3"]
