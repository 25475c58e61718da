"""`clew doctor` on stores that are well, damaged, read-only and full."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clew.store.blob import write_file
from clew.store.digest import Domain, digest
from clew.store.segment import SEALED_SUFFIX
from tests.cli import bed
from tests.cli.bed import clew

FAULTY = """
import sys, clew
tracer = clew.init("docs-qa", store=sys.argv[1])
for number in range(3):
    tracer.faults.add("start of llm span", f"no space left, attempt {number}")
with clew.run("answer"):
    pass
"""


def examined(store: Path, *arguments: str, code: int = 0) -> Any:
    finished = clew("doctor", *arguments, "--json", "--store", str(store))
    assert finished.returncode == code, finished.stderr
    return json.loads(finished.stdout)


def answers(store: Path) -> list[Any]:
    """All that a user can ask of a store."""
    questions = (["runs", "--all"], ["refs"], ["why", "answer"], ["impact", "dataset/handbook"], ["show", "broken"])
    return [json.loads(clew(*question, "--json", "--store", str(store)).stdout) for question in questions]


def test_a_store_that_is_well(store: Path) -> None:
    found = examined(store)
    assert found["schema"] == "clew/1"
    assert found["store"] == str(store)
    assert found["writable"] is True
    assert found["catalog"]["state"] == "sound"
    assert found["catalog"]["backend"] == "sqlite"
    assert found["counts"]["runs"] == 3
    assert found["counts"]["spans"] == 8
    assert found["counts"]["refs"] == 1
    assert found["counts"]["blobs"] > 8
    assert found["log"] == {
        "segments": 1, "sealed": 1, "writers": {"alive": 0, "ended": 1, "dead": 0, "unknown": 0}, "damaged": [],
    }  # fmt: skip
    assert found["faults"] == []
    assert found["size_bytes"]["total"] == sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert set(found["capture_cost_ms"]) == {"code", "environment", "entry", "principal"}
    assert "langchain-core" in {one["name"] for one in found["frameworks"]}
    assert [one["moved"] for one in found["frameworks"] if one["moved"]] == []


def test_a_writer_that_was_killed_is_told_from_those_that_ended(store: Path) -> None:
    assert bed.program(bed.KILLED, store).returncode < 0
    assert examined(store)["log"]["writers"] == {"alive": 0, "ended": 1, "dead": 1, "unknown": 0}


def test_faults_are_counted_and_their_last_error_told(store: Path) -> None:
    assert bed.program(FAULTY, store).returncode == 0
    (fault,) = examined(store)["faults"]
    assert (fault["place"], fault["count"]) == ("start of llm span", 3)
    assert fault["error"] == "no space left, attempt 2"
    text = clew("doctor", "--store", str(store)).stdout
    assert "start of llm span: 3 times, last " in text
    assert "no space left, attempt 2" in text


def test_what_no_query_indexed_yet_is_counted(store: Path) -> None:
    assert bed.program(bed.KILLED, store).returncode == -9
    found = examined(store)
    assert found["catalog"]["indexed_now"] > 0
    assert found["counts"]["runs"] == 4
    assert found["log"]["segments"] == 2
    assert found["log"]["sealed"] == 1


@pytest.fixture(scope="module")
def indexed(written: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A store that was asked all, and what it answered."""
    store = tmp_path_factory.mktemp("indexed") / "store"
    shutil.copytree(written, store)
    return store, answers(store)


@pytest.mark.parametrize("damage", ["garbage", "pages", "a table is gone", "deleted", "empty"])
def test_a_damaged_catalog_is_made_again_from_the_logs_alone(
    indexed: tuple[Path, list[Any]], tmp_path: Path, damage: str
) -> None:
    whole, before = indexed
    store = tmp_path / "store"
    shutil.copytree(whole, store)
    catalog = store / "catalog.sqlite"
    match damage:
        case "garbage":
            catalog.write_bytes(b"no database at all, this is" * 100)
        case "pages":
            data = bytearray(catalog.read_bytes())
            data[4096 * 2 :] = bytes(range(256)) * ((len(data) - 4096 * 2) // 256)
            catalog.write_bytes(bytes(data))
        case "a table is gone":
            with contextlib.closing(sqlite3.connect(catalog)) as connection:
                connection.execute("DROP TABLE run")
        case "deleted":
            catalog.unlink()
        case "empty":
            catalog.write_bytes(b"")
    if damage not in ("deleted", "empty"):
        finished = clew("runs", "--store", str(store))
        assert finished.returncode == 1
        assert finished.stderr.count("\n") == 1
        assert "`clew doctor --rebuild`" in finished.stderr
        damaged = examined(store, code=1)
        assert damaged["catalog"]["state"] == "cannot be used"
        assert damaged["counts"]["runs"] == 3  # from the logs
    found = examined(store, "--rebuild", "--verify")
    assert found["rebuilt_records"] > 0
    assert found["catalog"]["state"] == "sound"
    assert answers(store) == before


def test_a_damaged_blob_is_named(store: Path) -> None:
    assert bed.program(bed.KILLED, store).returncode == -9
    clew("runs", "--store", str(store))  # indexed
    (log,) = (store / "log").glob("*.log")
    data = bytearray(log.read_bytes())
    place = data.index(b"the input that must survive")
    data[place] ^= 1
    log.write_bytes(bytes(data))
    name = str(digest(Domain.TEXT, b"the input that must survive the death of its process"))
    found = examined(store, "--verify", code=1)["verified"]
    assert [one["digest"] for one in found["damaged"]] == [name]
    shown = json.loads(clew("show", "doomed", "--content", "--json", "--store", str(store)).stdout)
    assert "missing" in shown["spans"][1]["used"][0]


def test_a_damaged_file_is_put_in_quarantine(store: Path) -> None:
    data = b"large" * 300_000
    name = digest(Domain.BYTES, data)
    write_file(store / "blob", Domain.BYTES, name, data)
    assert examined(store, "--verify")["verified"]["files"] == 1
    path = next((store / "blob").glob("??/*"))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    found = examined(store, "--verify", code=1)["verified"]
    assert [one["digest"] for one in found["damaged"]] == [str(name)]
    assert not path.exists()
    assert (store / "quarantine" / name.hex()).exists()
    assert examined(store, "--verify")["verified"]["damaged"] == []


def test_a_segment_cut_short_is_named_and_stops_nothing_else(store: Path) -> None:
    assert bed.program(bed.ANSWERS, store).returncode == 0
    broken = sorted((store / "log").glob(f"*{SEALED_SUFFIX}"))[1]
    broken.write_bytes(broken.read_bytes()[:1000])
    for path in store.glob("catalog.sqlite*"):  # a program that rests for a moment has indexed itself
        path.unlink()
    found = examined(store, code=1)
    assert [one["segment"] for one in found["log"]["damaged"]] == [broken.stem]
    assert len(json.loads(clew("runs", "--json", "--store", str(store)).stdout)) == 3


def test_a_log_file_that_cannot_be_opened_is_named_with_what_to_do(store: Path) -> None:
    (path,) = (store / "log").glob(f"*{SEALED_SUFFIX}")
    path.unlink()
    path.symlink_to(path)  # to root, a file without permissions is readable
    said = f"the log file {path} cannot be read: Too many levels of symbolic links; make it readable"
    finished = clew("runs", "--store", str(store))
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.startswith(f"clew: {said}")


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", folder], capture_output=True, check=False)
        subprocess.run(["umount", folder], check=True)


def test_a_read_only_store_is_reported_and_answers(store: Path, tmp_path: Path) -> None:
    assert bed.program(bed.KILLED, store).returncode == -9  # not indexed yet
    mount = tmp_path / "mount"
    with mounted(mount, "20m"):
        shutil.copytree(store, mount / "store")
        expected = json.loads(clew("runs", "--json", "--store", str(store)).stdout)
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        found = examined(mount / "store", "--verify")
        assert found["writable"] is False
        assert found["catalog"]["behind_records"] > 0
        assert found["counts"]["runs"] == 4
        assert found["verified"]["damaged"] == []
        assert json.loads(clew("runs", "--json", "--store", str(mount / "store")).stdout) == expected
        assert "dataset/handbook@1[" in clew("why", "answer", "--store", str(mount / "store")).stdout
        finished = clew("doctor", "--rebuild", "--store", str(mount / "store"))
        assert finished.returncode == 1
        assert finished.stderr.count("\n") == 1


def test_a_store_on_a_full_disk_is_reported(store: Path, tmp_path: Path) -> None:
    assert bed.program(bed.KILLED, store).returncode == -9
    mount = tmp_path / "mount"
    with mounted(mount, "4m"):
        shutil.copytree(store, mount / "store")
        with contextlib.suppress(OSError), open(mount / "filler", "wb", buffering=0) as filler:
            while filler.write(bytes(1024)):
                pass
        found = examined(mount / "store")
        assert found["counts"]["runs"] == 4
        assert found["catalog"]["behind_records"] > 0
