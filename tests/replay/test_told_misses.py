"""Why a call is another one than what is stored or recorded: told is what its key is made of, and that first which somebody
meant."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool
from langchain_core.vectorstores import InMemoryVectorStore

import clew
from clew.replay.settings import Cache
from clew.store.errors import ReplayMiss
from tests.replay.conftest import Caching, Counted, Recorded
from tests.replay.test_explain import Letters, last, lines_of

ROOT = Path(__file__).parents[2]


def counted(text: str) -> AIMessage:
    """A message as a provider gives it: with its own ids, and tokens that were counted."""
    about = {"id": uuid.uuid4().hex, "created": uuid.uuid4().int % 10**9, "headers": {"x-request": uuid.uuid4().hex}}
    number = uuid.uuid4().int % 10**9
    usage = {"input_tokens": number, "output_tokens": 1, "total_tokens": number + 1}
    return AIMessage(text, id=f"run-{uuid.uuid4()}", response_metadata=about, usage_metadata=usage)


def talk(last: str) -> list[BaseMessage]:
    return [HumanMessage("go"), counted("I went."), counted("And I came."), HumanMessage(last)]


def missed(body: Callable[[str], Any], one: str = "one", other: str = "two") -> str:
    """What a strict replay tells of a call that was recorded with `one`, and asks with `other`."""
    with clew.run("answer") as run:
        body(one)
    with pytest.raises(ReplayMiss) as raised, clew.replay(run):
        body(other)
    return str(raised.value).partition("recorded call in ")[2]


def test_of_a_models_messages_what_was_counted_and_minted_is_not_told(recorded: Recorded, caching: Caching) -> None:
    def body(text: str) -> None:
        Counted().invoke(talk(text))

    with recorded():
        assert missed(body) == "messages: messages[3].content: “one” → “two”"
    with caching() as tracer:
        body("one")
        body("two")
        changed = [line for line in lines_of(last(tracer))["messages"] if line[0] in "+-"]
    assert changed == ["--- the other", "+++ this one", "-one", "+two"]


def test_what_only_says_how_a_model_is_reached_is_not_told(recorded: Recorded, caching: Caching) -> None:
    def body(text: str) -> None:
        Counted().invoke("hello", flavour=text, timeout=len(text), stream_options={"include_usage": text == "one"})

    with recorded():
        assert missed(body, "one", "three") == "options: model.parameters.flavour: “one” → “three”"
    with caching() as tracer:
        body("one")
        body("three")
        assert lines_of(last(tracer)) == {"options": ["flavour: “one” → “three”"]}


def test_a_search_with_another_query_says_nothing_of_its_index(recorded: Recorded) -> None:
    """The index was filled anew, under other ids, which are no part of what is asked."""

    def filled(*texts: str) -> InMemoryVectorStore:
        made = InMemoryVectorStore(Letters())
        made.add_documents([Document(text) for text in texts])
        return made

    texts = ["a", "bb", "ccc"]
    with recorded():
        for search in (
            lambda text: filled(*texts).similarity_search(text),
            lambda text: filled(*texts).as_retriever().invoke(text),
        ):
            assert missed(search).partition(": ")[2] == "query: “one” → “two”"
        with clew.run("answer") as run:
            filled(*texts).similarity_search("one")
        again = filled(*texts[:2])
        again.store["added"] = {"id": "added", "vector": [4.0], "text": "dddd", "metadata": {}}
        with pytest.raises(ReplayMiss, match=r"in store: index\.entries\[2\]\.id.*\[2\]\.text: “ccc” → “dddd”$"):  # noqa: SIM117
            with clew.replay(run):
                again.similarity_search("one")


def test_of_a_tools_arguments_what_somebody_meant_is_told_before_ids_and_counts(recorded: Recorded) -> None:
    @tool
    def count(messages: list[Any]) -> int:
        """Counts."""
        return len(messages)

    given = {text: talk(text) for text in ("one", "two")}
    same = {"one": [counted("x")], "two": [counted("x")]}
    with recorded():
        assert missed(lambda text: count.invoke({"messages": given[text]})) == (
            "arguments: arguments.messages[3].content: “one” → “two”"
        )
        told = missed(lambda text: count.invoke({"messages": same[text]}))
    assert "arguments.messages[0].extra.response_metadata.created: " in told  # they are part of the key
    assert told.endswith(" more")


def test_of_a_functions_arguments_what_somebody_meant_is_told_before_ids_and_counts(caching: Caching) -> None:
    @clew.cached
    def count(talked: list[Any]) -> int:
        return len(talked)

    with caching(Cache()) as tracer:
        count(talk("one"))
        count(talk("two"))
        assert lines_of(last(tracer, "chain")) == {"arguments": ["talked[3].content: “one” → “two”"]}
        count([counted("x")])
        count([counted("x")])
        found = lines_of(last(tracer, "chain"))["arguments"]
    assert any("usage_metadata.input_tokens" in line for line in found)


def test_of_what_has_no_key_ids_and_counts_are_never_told(recorded: Recorded) -> None:
    """It is found by what can be seen of it, and of messages as a provider could be sent them."""

    @clew.cached
    def count(talked: list[Any], held: list[Any]) -> int:
        return len(talked)

    held = {"one": [threading.Lock()], "two": [threading.Lock(), threading.Lock()]}
    with recorded():
        Counted().invoke("hello")  # from here messages are known
        told = missed(lambda text: count([counted("x")], held[text]))
    assert told.startswith("arguments: held[1]: nothing → ")
    assert "talked" not in told


FIRST = """
import sys, uuid, clew
from typing import Annotated, Any
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode

@tool
def count(x: int, state: Annotated[dict, InjectedState]) -> int:
    "Counts."
    return len(state["messages"])

graph = StateGraph(MessagesState)
graph.add_node("act", ToolNode([count]))
graph.add_edge(START, "act")
graph.add_edge("act", END)
graph = graph.compile()

def program() -> None:
    call = {"name": "count", "args": {"x": 1}, "id": f"call_{uuid.uuid4().hex}"}
    graph.invoke({"messages": [HumanMessage("go"), AIMessage("", tool_calls=[call])]})

clew.init(store=sys.argv[1], record=True)
clew.instrument()
with clew.run("answer") as run:
    program()
with clew.replay(run) as again:
    program()
print(again.certificate.holds)
"""


def test_a_tool_that_is_given_messages_is_known_again_where_no_model_was_asked_before(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(FIRST)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLEW_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "first.py", "store"],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "True"
