"""Recorded conversations of a real agent: recorded through clew, replayed strictly where the world is silent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import clew
from clew.lineage.reader import Reader
from clew.store.errors import ReplayMiss

sys.path.insert(0, str(Path(__file__).parent / "programs"))
import airline

DATA = Path(os.environ.get("CLEW_DATA", Path(__file__).parents[3] / "shared" / "data")) / "taubench_airline_traces"
TRACES = DATA / "traces.jsonl"
COUNT = int(os.environ.get("CLEW_AIRLINE_TRACES", "12"))  # all 200 take minutes: CLEW_AIRLINE_TRACES=200
PROGRAM = Path(__file__).parent / "programs" / "airline.py"
ROOT = Path(clew.__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not TRACES.exists(), reason=f"the traces are not at {TRACES}; CLEW_DATA names their folder"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the conversations were recorded, by a process of its own; `first.jsonl` beside it has them."""
    folder = tmp_path_factory.mktemp("airline")
    run(folder, "first.jsonl", CLEW_RECORD="1")
    return folder / "store"


def run(folder: Path, out: str, *more: str, **variables: str) -> str:
    command = [sys.executable, str(PROGRAM), str(TRACES), str(COUNT), str(folder / out), *more]
    (folder / "world").mkdir(exist_ok=True)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CLEW_")}
    environment = plain | {
        "CLEW_STORE": str(folder / "store"),
        "PYTHONPATH": str(ROOT),
        airline.WORLD: str(folder / "world"),
        **variables,
    }
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A world that says nothing."""
    (tmp_path / "silent").touch()
    monkeypatch.setenv(airline.WORLD, str(tmp_path))


def test_all_of_them_come_again_and_nothing_is_asked(silence: None, store: Path, tmp_path: Path) -> None:
    with Reader(store) as reader:
        runs = [one for one in reader.runs() if one.name == "conversation" and one.replay_of is None]
        assert len(runs) == COUNT
    program = (store.parent / "first.jsonl").read_text().splitlines()
    calls = sum(one["role"] in ("assistant", "tool") for line in program for one in json.loads(line))
    again = [str(TRACES), str(COUNT), str(tmp_path / "again.jsonl")]
    certificate = clew.rerun(runs[0].run_id, store=store, arguments=again, stdout=subprocess.DEVNULL)
    assert certificate.holds, str(certificate)
    assert sum(certificate.served.values()) == calls
    assert not certificate.unasked
    assert airline.how_often() == 0
    replayed = (tmp_path / "again.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in replayed] == [json.loads(line) for line in program]


@pytest.fixture
def silent(clean_tracing: None, silence: None, store: Path) -> list[dict[str, object]]:
    """This process replays from the store, and its world says nothing; the traces."""
    clew.init("airline", store=store)
    clew.instrument()
    return airline.traces(TRACES, COUNT)


def test_one_answer_of_a_tool_is_another(silent: list[dict[str, object]], store: Path) -> None:
    """Every call before it is served; the first call that sees it goes live, or is a miss that names the message."""
    number = next(at for at, trace in enumerate(silent) if sum(m["role"] == "tool" for m in trace["messages"]) > 2)  # type: ignore[attr-defined]
    trace, graph = silent[number], airline.build(airline.tool_names(silent))
    session = trace["_id"]
    with Reader(store) as reader:
        of = next(one for one in reader.runs() if one.session == session and one.replay_of is None)
        spans = [one for one in reader.spans(of.run_id) if one.kind in ("llm", "tool")]
    tools = [at for at, one in enumerate(spans) if one.kind == "tool"]
    changed = tools[len(tools) // 2]
    patch = clew.Answer(spans[changed].span_id, "nothing is known of that")
    with (
        pytest.raises(ReplayMiss, match=r"messages\[\d+\]\.content: .*nothing is known of that") as miss,
        clew.replay(of.run_id, patch=patch) as strict,
    ):
        airline.live(graph, trace)
    assert "llm" in str(miss.value)
    assert sum(strict.certificate.served.values()) == changed + 1
    assert airline.how_often() == 0

    with (
        pytest.raises(AssertionError, match="the world was asked"),
        clew.replay(of.run_id, mode="hybrid", patch=patch) as hybrid,
    ):
        airline.live(graph, trace)
    assert [one.kind for one in hybrid.certificate.live] == ["llm"]
    assert sum(hybrid.certificate.served.values()) == changed + 1
    assert airline.how_often() == 1


def test_a_common_beginning_answers_for_none_but_its_own(silent: list[dict[str, object]], store: Path) -> None:
    """The four trials of a task may begin alike; each is given its own answers."""
    first = {}
    for line, trace in zip((store.parent / "first.jsonl").read_text().splitlines(), silent, strict=True):
        first[trace["_id"]] = json.loads(line)
    graph = airline.build(airline.tool_names(silent))
    alike: dict[str, list[dict[str, object]]] = {}
    for trace in silent:
        alike.setdefault(str(trace["messages"][0]["content"]), []).append(trace)  # type: ignore[index]
    chosen = [trace for group in alike.values() if len(group) > 1 for trace in group][:4] or silent[:2]
    with Reader(store) as reader:
        runs = {one.session: one.run_id for one in reader.runs() if one.replay_of is None}
    for trace in chosen:
        with clew.replay(runs[str(trace["_id"])]):
            assert airline.live(graph, trace) == first[trace["_id"]]
    assert airline.how_often() == 0
