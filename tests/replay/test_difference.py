"""What differs from the recorded circumstances is named before the program runs again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import msgspec
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore

import clew
from clew.lineage.reader import Reader
from clew.replay.stage import differences, recorded_process
from clew.replay.stage.difference import environment_differences
from clew.tracer import environment
from clew.tracer.distribution import Distribution
from clew.tracer.environment import Environment
from clew.tracer.gpu import Gpu
from clew.tracer.init import Tracer


@pytest.fixture(scope="module")
def now() -> Environment:
    return environment.capture()


def lines(then: Environment, now: Environment) -> list[str]:
    return [str(one) for one in environment_differences(then, now)]


def test_equal_environments_have_no_difference(now: Environment) -> None:
    assert lines(now, environment.capture()) == []


def test_python_platform_and_devices_are_compared(now: Environment) -> None:
    python = msgspec.structs.replace(now.python, version="3.9.1", implementation="PyPy", platform="win32")
    then = msgspec.structs.replace(now, python=python, gpus=[Gpu(name="Old card")])
    version, implementation, platform, gpu = environment_differences(then, now)
    assert str(version) == f"python version: 3.9.1 -> {now.python.version}"
    assert (implementation.recorded, implementation.now) == ("PyPy", now.python.implementation)
    assert (platform.kind, platform.recorded) == ("platform", "win32")
    assert (gpu.name, gpu.recorded) == ("gpu", "Old card")
    assert json.loads(json.dumps(version.to_dict()))["kind"] == "python"


def test_distributions_added_removed_and_changed_are_named(now: Environment) -> None:
    before = [
        Distribution(name="changed", version="1", digest="b3:1"),
        Distribution(name="edited", version="1", digest="b3:1"),
        Distribution(name="gone", version="2"),
        Distribution(name="same", version="1", digest="b3:1"),
        Distribution(name="untold", version="1"),
    ]
    after = [
        Distribution(name="changed", version="1.1", digest="b3:2"),
        Distribution(name="edited", version="1", digest="b3:2"),
        Distribution(name="new", version="", editable=True),
        Distribution(name="same", version="1", digest="b3:1"),
        Distribution(name="untold", version="1", digest="b3:1"),
    ]
    then = msgspec.structs.replace(now, distributions=before)
    assert lines(then, msgspec.structs.replace(now, distributions=after)) == [
        "distribution changed: 1 -> 1.1",
        "distribution edited: 1 -> 1 (the same version, other content)",
        "distribution gone: 2 -> nothing",
        "distribution new: nothing -> unknown",
    ]


def test_variables_that_a_replay_sets_as_they_were_are_no_difference(now: Environment) -> None:
    then = msgspec.structs.replace(
        now, variables={"TZ": "Asia/Tokyo", "OMP_NUM_THREADS": "1", "LANG": "secret:" + "0" * 32}
    )
    today = msgspec.structs.replace(now, variables={"OMP_NUM_THREADS": "2", "XLA_FLAGS": "x", "PYTHONHASHSEED": "1"})
    assert lines(then, today) == [
        f"variable LANG: secret:{'0' * 32} -> nothing",
        "variable OMP_NUM_THREADS: 1 -> 2",
        "variable XLA_FLAGS: nothing -> x",
    ]


def test_a_file_that_a_span_read_is_compared_where_it_was_read(tracer: Tracer, reader: Reader, tmp_path: Path) -> None:
    clew.instrument()
    embeddings = DeterministicFakeEmbedding(size=4)
    made = InMemoryVectorStore.from_documents([Document("a"), Document("b")], embeddings)
    for name in ("same.json", "edited.json", "gone.json", "written.json"):
        made.dump(str(tmp_path / name))
    with clew.run("load"):
        InMemoryVectorStore.load("same.json", embeddings)  # the working folder is `tmp_path`
        for name in ("edited.json", "gone.json"):
            InMemoryVectorStore.load(str(tmp_path / name), embeddings)
    tracer.flush()
    recorded = recorded_process(reader, tracer.process_id)
    before = {str(one) for one in differences(reader, recorded) if one.kind == "file"}
    assert before == set()
    (tmp_path / "edited.json").write_text("{}")
    (tmp_path / "gone.json").unlink()
    (tmp_path / "written.json").unlink()
    found = {one.name: one for one in differences(reader, recorded) if one.kind == "file"}
    assert set(found) == {str(tmp_path / "edited.json"), str(tmp_path / "gone.json")}
    assert found[str(tmp_path / "gone.json")].now is None
    edited = found[str(tmp_path / "edited.json")]
    assert edited.recorded is not None
    assert edited.now is not None
    assert edited.recorded.startswith("b3:")
    assert edited.now.startswith("b3:")
    assert "as it is now" in str(edited)


def test_a_folder_that_is_gone_a_random_seed_and_a_late_change_are_named(
    tracer: Tracer, reader: Reader, tmp_path: Path
) -> None:
    tracer.flush()
    recorded = recorded_process(reader, tracer.process_id)
    entry = msgspec.structs.replace(recorded.entry, cwd=str(tmp_path / "gone"), hash_seed=None)
    code = msgspec.structs.replace(recorded.code, changed_after_import=["helper.py"])
    shown = [str(one) for one in differences(reader, dataclasses.replace(recorded, entry=entry, code=code))]
    assert shown[0].startswith(f"folder working folder: {tmp_path / 'gone'} -> nothing")
    assert any(one.startswith("import helper.py") for one in shown)
    assert any(one.startswith("hash seed PYTHONHASHSEED: random -> 0") for one in shown)
