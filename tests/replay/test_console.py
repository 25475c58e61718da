"""What a person types at the console: recorded, typed again, and never asked for in a strict replay."""

from __future__ import annotations

import builtins
import os
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import clew
from clew.store.errors import ReplayMiss
from tests.replay.conftest import LIVE, Counted, Recorded
from tests.replay.stage import CLEW, Bench


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`types("a", "b")`: what a person types from now on, and then closes the input."""

    def put(*lines: str) -> None:
        left: Iterator[str] = iter(lines)

        def read(prompt: object = "") -> str:
            for line in left:
                return line
            raise EOFError

        monkeypatch.setattr(builtins, "input", read)

    return put


def talk() -> list[str]:
    said = []
    while True:
        try:
            line = input("you: ")
        except EOFError:
            return said
        with clew.trace("turn"):
            said.append(Counted().invoke(line + input()).text)


def test_lines_are_typed_again_where_they_were(
    recorded: Recorded, types: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    types("one", "!", "two", "?")
    with recorded():
        with clew.run("talk") as run:
            first = talk()
        with clew.replay(run) as again:
            assert talk() == first
    assert capsys.readouterr().out == "you: " * 3
    assert again.certificate.holds
    assert again.certificate.draws["console"] == 5
    assert LIVE == {"llm": 2}


def test_nobody_is_asked_what_was_not_recorded(recorded: Recorded, types: Callable[..., None]) -> None:
    types("one", "later")
    with recorded():
        with clew.run("talk") as run:
            Counted().invoke(input())
        with pytest.raises(ReplayMiss, match="a person was asked 1 times"), clew.replay(run):
            Counted().invoke(input())
            input()
        with clew.replay(run, mode="hybrid"):
            assert [input(), input()] == ["one", "later"]


def test_without_a_recording_the_function_is_the_program_s_own(recorded: Recorded) -> None:
    before = builtins.input
    with recorded():
        assert builtins.input is not before
    assert builtins.input is before


def test_a_credential_that_was_typed_is_not_kept(recorded: Recorded, types: Callable[..., None]) -> None:
    secret = "sk-proj-" + "a1B2c3D4" * 6
    types(secret)
    with recorded() as tracer:
        with clew.run("talk") as run:
            assert input() == secret
            Counted().invoke("one")
        with clew.replay(run) as again:
            assert input() != secret
            Counted().invoke("one")
        assert any("console was given without a credential" in note for note in again.certificate.notes)
        log = b"".join(file.read_bytes() for file in tracer.folder.path.rglob("*") if file.is_file())
        assert secret.encode() not in log


SCRIPT = """
import sys
from typing import Annotated, Any, TypedDict

import clew
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt


class Model(BaseChatModel):
    temperature: float = 0.0

    @property
    def _llm_type(self):
        return "model"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        print("LIVE", flush=True)
        text = f"{len(messages)} messages, last {messages[-1].content}"
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def talk(state: Chat) -> Any:
    draft = Model().invoke(state["messages"])
    sure = interrupt(f"say {draft.text!r}?")
    return {"messages": [Model().invoke([*state["messages"], draft, HumanMessage(sure)])]}


def main(saver):
    built = StateGraph(Chat)
    built.add_node("talk", talk)
    built.add_edge(START, "talk")
    graph, config = built.compile(checkpointer=saver), {"configurable": {"thread_id": "t"}}
    line = input("you: ")
    while line:
        graph.invoke({"messages": [HumanMessage(line)]}, config)
        state = graph.invoke(Command(resume=input("sure? ")), config)
        print("said:", state["messages"][-1].text)
        line = input("you: ")


clew.init("script", record=True)
clew.instrument()
"""
MEMORY = SCRIPT + "from langgraph.checkpoint.memory import InMemorySaver\nmain(InMemorySaver())\n"
SQLITE = SCRIPT + textwrap.dedent(
    """
    from langgraph.checkpoint.sqlite import SqliteSaver
    with SqliteSaver.from_conn_string(sys.argv[1]) as saver:
        main(saver)
    """
)


def told(out: str) -> list[str]:
    return re.findall("said: .*", out)  # after what `input` prompted


def again(bench: Bench, process: str, tmp_path: Path) -> tuple[Any, str]:
    path = tmp_path / "out.txt"
    with path.open("wb") as out:
        certificate = clew.rerun(process, stdout=out, store=bench.store)
    return certificate, path.read_text()


def first_of_each_process(bench: Bench) -> list[str]:
    with clew.open(bench.store) as reader:
        found: dict[str, str] = {}
        for run in reversed(list(reader.runs())):
            found.setdefault(run.process_id, run.run_id)
        return list(found.values())


def test_a_script_talks_again_although_nobody_is_there(
    tmp_path: Path, clean_tracing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(CLEW))
    bench = Bench(tmp_path)
    (bench.project / "app.py").write_text(MEMORY)
    out = bench.record("app.py", stdin="hello\nyes\nmore\nno\n\n")
    assert out.count("LIVE") == 6
    [run] = first_of_each_process(bench)
    certificate, out_again = again(bench, run, tmp_path)
    assert certificate.holds, certificate.lines()
    assert "LIVE" not in out_again
    assert told(out_again) == told(out)
    assert certificate.draws["console"] == 5


def test_a_script_goes_on_from_the_thread_as_it_was(
    tmp_path: Path, clean_tracing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite", reason="langgraph-checkpoint-sqlite is not installed")
    installed = Path(sqlite.__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", f"{CLEW}{os.pathsep}{installed}")
    bench, threads = Bench(tmp_path), tmp_path / "threads.db"
    (bench.project / "app.py").write_text(SQLITE)
    variables = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    out = [
        bench.record("app.py", str(threads), stdin=f"{word}\nyes\n\n", **variables) for word in ("one", "two", "three")
    ]

    def contents() -> Any:
        with sqlite.SqliteSaver.from_conn_string(str(threads)) as saver:
            return [tuple(one) for one in saver.list({"configurable": {"thread_id": "t"}})]

    before = contents()
    for run, first in zip(first_of_each_process(bench), out, strict=True):
        certificate, out_again = again(bench, run, tmp_path)
        assert certificate.holds, certificate.lines()
        assert "LIVE" not in out_again
        assert told(out_again) == told(first)
    assert contents() == before
