"""LangGraph's nodes: what one wrote is used again for an equal input and the same code."""

from __future__ import annotations

import asyncio
import operator
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy, Command, RetryPolicy, Send
from pydantic import BaseModel

import clew
from clew.lineage import index
from tests.replay.cache_bed import spans
from tests.replay.conftest import LIVE, Caching, live
from tests.replay.node_cache_bed import POLICY, State, answering, graph


def invoked(graph: Any, given: Any, config: Any = None, **more: Any) -> Any:
    return graph.invoke(given, config, **more)


def awaited(graph: Any, given: Any, config: Any = None, **more: Any) -> Any:
    return asyncio.run(graph.ainvoke(given, config, **more))


def streamed(graph: Any, given: Any, config: Any = None, **more: Any) -> Any:
    return list(graph.stream(given, config, stream_mode="values", **more))[-1]


ways = pytest.mark.parametrize("way", [invoked, awaited, streamed], ids=lambda way: way.__name__)


# -- what is served


@ways
def test_a_node_is_answered_with_what_it_wrote(caching: Caching, way: Any) -> None:
    with caching(None):
        first = way(graph(answering), {"question": "why", "found": [0]})
    with caching(None):
        assert way(graph(answering), {"question": "why", "found": [0]}) == first
        assert way(graph(answering), {"question": "who", "found": [0]})["answer"] == "answer 2 to who"
    assert first == {"question": "why", "found": [0, 1], "answer": "answer 1 to why"}
    assert LIVE == {"node": 2}


def test_a_graph_says_which_updates_were_cached(caching: Caching) -> None:
    with caching(None):
        updates = [list(graph(answering).stream({"question": "why"}, stream_mode="updates")) for _ in range(2)]
    assert "__metadata__" not in updates[0][0]
    assert updates[1][0]["__metadata__"] == {"cached": True}


def test_what_the_program_changes_is_not_changed_for_the_next_run(caching: Caching) -> None:
    def listing(state: State) -> State:
        live("node")
        return {"answer": ["a"]}

    with caching(None):
        for _ in range(3):
            found = graph(listing).invoke({"question": "x"})["answer"]
            assert found == ["a"]
            found.append("b")
    assert LIVE == {"node": 1}


def test_equal_inputs_have_one_key_whether_their_parts_are_shared_or_not(caching: Caching) -> None:
    """LangGraph's default: shared and separate objects have different pickles, and sets differ by process."""
    shared = ["x" * 50]
    with caching(None):
        for found in ([shared, shared], [["x" * 50], ["x" * 25 + "x" * 25]]):
            graph(answering).invoke({"question": "why", "found": found})
        assert clew.node_key({"a": 1, "b": {"x", "y"}}) == clew.node_key({"b": {"y", "x"}, "a": 1})
        others = [[1], (1,), {"a": 1}, [("a", 1)], 1, 1.0, True, "1", b"1", None, {1}, [[1]]]
        assert len({clew.node_key(one) for one in others}) == len(others)
    assert LIVE == {"node": 1}


@pytest.mark.parametrize("kind", ["send", "task"])
def test_sends_and_tasks_are_answered_one_by_one(caching: Caching, kind: str) -> None:
    if kind == "send":

        class Summed(TypedDict):
            question: str
            found: Annotated[list[Any], operator.add]

        builder = StateGraph(Summed)
        builder.add_node("one", lambda state: {"found": [live(state["question"])]}, cache_policy=POLICY)
        builder.add_conditional_edges(
            START, lambda state: [Send("one", {"question": letter}) for letter in state["question"]], ["one"]
        )
        made: Any = builder.compile(cache=clew.NodeCache())

        def ask(letters: str) -> Any:
            return made.invoke({"question": letters})["found"]
    else:

        @task(cache_policy=POLICY)
        def one(letter: str) -> int:
            return live(letter)

        @entrypoint(cache=clew.NodeCache())
        def ask_all(letters: str) -> list[int]:
            return [one(letter).result() for letter in letters]

        def ask(letters: str) -> Any:
            return ask_all.invoke(letters)

    with caching(None):
        assert ask("abc") == [1, 1, 1]
        assert ask("cbad") == [1, 1, 1, 1]
    assert dict.fromkeys("abcd", 1) == LIVE


def test_where_it_goes_next_is_served_too(caching: Caching) -> None:
    def route(state: State) -> Any:
        live("node")
        return Command(update={"answer": "routed"}, goto="end")

    def fan(state: State) -> State:
        live("node")
        return {"found": [1]}

    def end(state: State) -> State:
        return {"found": [live("end")]}

    builder = StateGraph(State)
    builder.add_node("route", route, cache_policy=POLICY, destinations=("end",))
    builder.add_node("fan", fan, cache_policy=POLICY)
    builder.add_node("end", end)
    builder.add_edge(START, "route")
    builder.add_edge(START, "fan")
    builder.add_conditional_edges("fan", lambda state: Send("end", {"question": "sent"}), ["end"])
    with caching(None):
        found = [builder.compile(cache=clew.NodeCache()).invoke({"question": "x"}) for _ in range(2)]
    assert [sorted(one["found"]) for one in found] == [[1, 1, 2], [1, 3, 4]]
    assert LIVE == {"node": 2, "end": 4}


# -- what is not kept


class Opaque:
    """No class that may stand in an answer."""


def test_what_cannot_be_kept_runs_each_time_and_is_said_once(
    caching: Caching, caplog: pytest.LogCaptureFixture
) -> None:
    def opaque(state: State) -> State:
        live("node")
        return {"answer": Opaque()}

    cache = clew.NodeCache()
    with caching(None), caplog.at_level("INFO", "clew"):
        for _ in range(3):
            assert type(graph(opaque, cache=cache).invoke({"question": "x"})["answer"]) is Opaque
    assert sum("not cached: node opaque" in one.message for one in caplog.records) == 1
    assert LIVE == {"node": 3}


def test_an_input_that_has_no_form_runs_each_time(caching: Caching) -> None:
    with caching(None) as tracer:
        for _ in range(2):
            graph(answering).invoke({"question": "x", "found": [iter([])]})
        assert all("iterator" in span.attributes["clew.cache.bypass"] for span in spans(tracer, "node"))
    assert LIVE == {"node": 2}


def test_an_error_is_not_kept(caching: Caching) -> None:
    def failing(state: State) -> State:
        if live("node") == 1:
            raise ConnectionError("down")
        return {"answer": "up"}

    with caching(None):
        with pytest.raises(ConnectionError):
            graph(failing).invoke({"question": "x"})
        for _ in range(2):
            assert graph(failing).invoke({"question": "x"})["answer"] == "up"
    assert LIVE == {"node": 2}


def test_what_a_failed_attempt_wrote_is_not_kept(caching: Caching) -> None:
    def flaky(state: State) -> State:
        if live("node") == 1:
            raise ConnectionError("down")
        return {"answer": "up"}

    builder = StateGraph(State)
    retry = RetryPolicy(max_attempts=2, initial_interval=0.01)
    builder.add_node("flaky", flaky, cache_policy=POLICY, retry_policy=retry)
    builder.add_edge(START, "flaky")
    with caching(None):
        for _ in range(2):
            assert builder.compile(cache=clew.NodeCache()).invoke({"question": "x"})["answer"] == "up"
    assert LIVE == {"node": 2}


def test_an_answer_with_a_credential_is_not_kept(caching: Caching) -> None:
    key = "sk-proj-" + "aB3dE6gH9jK2" * 4

    def telling(state: State) -> State:
        live("node")
        return {"answer": f"the key is {key}"}

    with caching(None):
        for _ in range(2):
            assert graph(telling).invoke({"question": "x"})["answer"].endswith(key)
    assert LIVE == {"node": 2}


# -- time, clearing, switches


def test_an_answer_that_is_too_old_is_not_used(caching: Caching, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, now = CachePolicy(key_func=clew.node_key, ttl=60), time.time_ns
    with caching(None):
        made = graph(answering, policy=policy)
        for later, answer in ((0, 1), (59, 1), (61, 2)):
            monkeypatch.setattr(time, "time_ns", lambda later=later: now() + later * 10**9)
            assert made.invoke({"question": "x"})["answer"] == f"answer {answer} to x"
        monkeypatch.setattr(time, "time_ns", lambda: now() + 80 * 10**9)
        shorter = graph(answering, policy=CachePolicy(key_func=clew.node_key, ttl=10))
        assert shorter.invoke({"question": "x"})["answer"] == "answer 3 to x"


def test_an_answer_from_before_the_clock_was_set_back_is_not_used(
    caching: Caching, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, now = CachePolicy(key_func=clew.node_key, ttl=60), time.time_ns
    with caching(None):
        made = graph(answering, policy=policy)
        for later, answer in ((0, 1), (-3600, 2), (-3590, 2)):
            monkeypatch.setattr(time, "time_ns", lambda later=later: now() + later * 10**9)
            assert made.invoke({"question": "x"})["answer"] == f"answer {answer} to x"


@pytest.mark.parametrize("is_async", [False, True])
def test_what_is_cleared_runs_again_here_and_in_other_processes(caching: Caching, is_async: bool) -> None:
    def other(state: State) -> State:
        return {"found": [live("other")]}

    def clear(made: Any, nodes: Any) -> None:
        asyncio.run(made.aclear_cache(nodes)) if is_async else made.clear_cache(nodes)

    def ask() -> dict[str, int]:
        made.invoke({"question": "x"})
        return dict(LIVE)

    with caching(None):
        made = graph(answering, other)
        assert [ask(), ask()] == [{"node": 1, "other": 1}] * 2
        clear(made, ["other"])
        assert [ask(), ask()] == [{"node": 1, "other": 2}] * 2
    with caching(None):
        assert ask() == {"node": 1, "other": 2}
        clew.NodeCache().clear()
        assert [ask(), ask()] == [{"node": 2, "other": 3}] * 2


def test_inside_a_block_that_says_so_nothing_is_cached(caching: Caching) -> None:
    with caching(None):
        graph(answering).invoke({"question": "x"})
        with clew.caching(False):
            graph(answering).invoke({"question": "x"})
    assert LIVE == {"node": 2}


def test_recorded_runs_are_whole_and_replays_see_what_is_patched(clean_tracing: None, tmp_path: Path) -> None:
    """A node that is not run in a recorded run would be missing in its recording."""
    made = graph(answering)
    tracer = clew.init("tests", store=tmp_path / "store", record=True)
    assert tracer is not None
    clew.instrument()
    for expected in (1, 2):
        assert made.invoke({"question": "x"})["answer"] == f"answer {expected} to x"
    with clew.open(tracer.folder.path) as reader:
        recorded = next(iter(reader.runs())).run_id
    with clew.replay(recorded):
        assert made.invoke({"question": "x"})["answer"] == "answer 3 to x"
    clew.shutdown()
    index.forget(tracer.folder)
    tracer = clew.init("tests", store=tmp_path / "store")
    assert tracer is not None
    assert made.invoke({"question": "x"})["answer"] == "answer 2 to x"
    index.forget(tracer.folder)


def test_without_a_tracer_the_graph_runs(clean_tracing: None) -> None:
    for _ in range(2):
        graph(answering).invoke({"question": "x"})
    assert LIVE == {"node": 2}


def test_a_store_that_fails_does_not_stop_the_graph(
    caching: Caching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from clew.store.action import Actions

    def fail(*args: Any) -> Any:
        raise OSError("gone")

    with caching(None):
        monkeypatch.setattr(Actions, "look", fail)
        monkeypatch.setattr(Actions, "publish", fail)
        for _ in range(2):
            graph(answering).invoke({"question": "x"})
    assert [one.message.split(" failed")[0] for one in caplog.records] == ["clew: node cache"]
    assert LIVE == {"node": 2}


@pytest.mark.parametrize("state", ["pydantic", "default key"])
def test_other_states_and_keys_work_too(caching: Caching, state: str) -> None:
    class Model(BaseModel):
        question: str
        answer: str = ""

    def node(state: Model) -> Any:
        return {"answer": f"{live('node')} {state.question}"}

    def plain(state: State) -> State:
        return {"answer": f"{live('node')} {state['question']}"}

    with caching(None):
        for _ in range(2):
            if state == "pydantic":
                found = graph(node, state=Model).invoke({"question": "x"})
            else:
                found = graph(plain, policy=CachePolicy()).invoke({"question": "x"})
            assert found["answer"] == "1 x"


PROGRAM = textwrap.dedent(
    """
    import sys, clew
    from typing import TypedDict
    from langgraph.graph import START, StateGraph
    from langgraph.types import CachePolicy

    class State(TypedDict):
        question: str
        answer: set

    def helper(x):
        return x + EXTRA

    EXTRA = "!"

    def slow(state):
        print("ran", flush=True)
        return {"answer": helper(state["question"])}

    clew.init("tests", store=sys.argv[1])
    clew.instrument()
    builder = StateGraph(State)
    builder.add_node("slow", slow, cache_policy=CachePolicy(key_func=clew.node_key))
    builder.add_edge(START, "slow")
    graph = builder.compile(cache=clew.NodeCache())
    print(graph.invoke({"question": "x", "answer": {"a", "b", "c"}})["answer"], flush=True)
    """
)


def test_processes_share_it_until_the_code_changes(tmp_path: Path) -> None:
    def run(text: str) -> list[str]:
        program = tmp_path / "program.py"
        program.write_text(text)
        done = subprocess.run(
            [sys.executable, str(program), str(tmp_path / "store")],
            capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1]

    assert run(PROGRAM) == ["ran", "x!"]
    assert run(PROGRAM) == ["x!"]
    assert run(PROGRAM.replace('"!"', '"?"')) == ["ran", "x?"]
    assert run(PROGRAM) == ["x!"]
