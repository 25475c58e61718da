"""A fault inside clew never breaks the program, and is never hidden: full disk, lost folders, a corrupt catalog."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import clew
from clew.lineage import rebuild
from clew.store import catalog
from clew.store.errors import StoreError
from clew.store.folder import Folder
from clew.tracer.fault import Faults
from clew.tracer.init import Tracer

WORK = """
    import json, os, shutil, sys
    import clew
    from clew.store.errors import StoreError
    from clew.tracer import init

    def work(rounds):
        @clew.trace
        def answer(question):
            return question.upper()

        @clew.trace
        def stream(question):
            yield from question

        found = []
        for number in range(rounds):
            with clew.run(f"run {number}", session="s") as run:
                data = clew.dataset(f"d{number}", [{"id": i, "text": f"{number} {i} " * 50} for i in range(20)], "text")
                clew.artifact("model", {"n": number, "w": "x" * 2000}, f"m{number}")
                found.append(answer(f"question {number} " * 20))
                found.append("".join(stream("chunks")))
                found += [document.text[:9] for document in data.documents()][:2]
                run.output(found[-1])
        return found

    WANTED = [text for number in range(6) for text in (
        (f"question {number} " * 20).upper(), "chunks", (f"{number} 0 " * 50)[:9], (f"{number} 1 " * 50)[:9]
    )]

    def faults():
        return init.active().faults.counts
"""


def program(body: str, *arguments: object) -> dict[str, Any]:
    """Run a traced program in a process of its own. It must exit with 0; what it printed last, as JSON."""
    code = textwrap.dedent(WORK) + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {**found, "said": done.stderr}


def lost(path: Path) -> dict[str, int]:
    """What `doctor` shows: place -> how often."""
    with clew.open(path) as reader, reader.connection() as connection:
        rows = connection.execute(sa.select(catalog.lost.c.place, catalog.lost.c.count)).all()
    found: dict[str, int] = {}
    for place, count in rows:
        found[place] = found.get(place, 0) + count
    return found


@pytest.fixture
def store(clean_tracing: None, tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.mark.parametrize("room", [[], ["ext4", "xfs", "tmpfs"]], ids=["written", "mapped"])
def test_a_full_disk_changes_no_answer_and_is_told_when_there_is_space_again(store: Path, room: list[str]) -> None:
    said = program(
        """
        import resource
        from clew.store import tail
        tail._LASTING = frozenset(sys.argv[2:])
        clew.init("tests", store=sys.argv[1])
        first = work(6)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        second = work(6)
        while (counted := sum(count for count, _ in faults().values())) <= 10:  # until the room in the file is used up
            second = work(6)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        third = work(6)
        print(json.dumps({"right": first == second == third == WANTED, "counted": counted, "left": len(faults())}))
        """,
        store,
        *room,
    )
    assert said["right"]
    assert said["counted"] > 10
    assert said["left"] == 0
    assert said["said"].count("clew doctor") <= 12  # once for each place, not for each fault
    told = sum(lost(store).values())
    assert told >= said["counted"] if room else told == said["counted"]  # small ones found room, and told of large ones
    with clew.open(store) as reader:
        spans = reader.spans()
        assert len([span for span in spans if span.status == "ok"]) >= 36
        assert {span.status for span in spans} <= {"ok", "closed_early" if room else "ok"}  # whose end had no room
        assert [span.attributes["clew.kind"] for span in spans].count("workflow") >= 12


def test_a_disk_that_is_full_from_the_start_leaves_the_program_untraced(store: Path) -> None:
    said = program(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        clew.init("tests", store=sys.argv[1])
        print(json.dumps({"right": work(6) == WANTED}))
        """,
        store,
    )
    assert said["right"]
    assert "cannot make a store" in said["said"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB, where mounting one is permitted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mount is not permitted here ({mounted.stderr.strip()}); RLIMIT_FSIZE stands for it")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_small_file_system_that_runs_full_changes_no_answer(clean_tracing: None, small_disk: Path) -> None:
    said = program(
        """
        clew.init("tests", store=sys.argv[1])
        right = all(work(6) == WANTED for _ in range(3))
        with clew.run("large") as run:
            run.output(os.urandom(400_000).hex())
        try:
            clew.flush()
        except StoreError:
            pass
        print(json.dumps({"right": right}))
        """,
        small_disk / "store",
    )
    assert said["right"]
    assert "was left out of the trace" in said["said"]


def test_a_deleted_log_folder_changes_no_answer_and_is_told(store: Path) -> None:
    said = program(
        """
        from clew.store import log
        log.LOOK_SECONDS = 0.0
        clew.init("tests", store=sys.argv[1])
        first = work(6)
        init.active().process.wait()
        shutil.rmtree(sys.argv[1] + "/log")
        second = work(6)
        with clew.run("after") as run:
            run.output("question 1 " * 20)
        clew.flush()
        print(json.dumps({"right": first == second == WANTED}))
        """,
        store,
    )
    assert said["right"]
    assert lost(store)["log segment deleted while it was written"] == 1
    with clew.open(store) as reader:
        spans = [span for span in reader.spans() if span.name == "after"]
        assert spans[-1].generated[0].value == "question 1 " * 20  # content of the lost segment is written again


def test_a_deleted_store_changes_no_answer(store: Path) -> None:
    said = program(
        """
        from clew.store import log
        log.LOOK_SECONDS = 0.0
        clew.init("tests", store=sys.argv[1])
        first = work(6)
        shutil.rmtree(sys.argv[1])
        second = work(6)
        print(json.dumps({"right": first == second == WANTED, "faults": len(faults())}))
        """,
        store,
    )
    assert said["right"]
    assert said["faults"] > 0


@pytest.mark.parametrize("damage", [b"no database" * 500, b""])
def test_a_corrupt_catalog_changes_no_answer_and_a_rebuild_mends_it(store: Path, damage: bytes) -> None:
    Folder(store, create=True).catalog.write_bytes(damage)
    said = program(
        """
        clew.init("tests", store=sys.argv[1])
        print(json.dumps({"right": work(6) == WANTED, "faults": sorted(faults())}))
        """,
        store,
    )
    assert said["right"]
    if damage:
        with pytest.raises(StoreError, match="clew doctor --rebuild"):
            clew.open(store)
        rebuild.rebuild(Folder(store))
        assert lost(store)["clew.dataset"] == lost(store)["clew.artifact"] == 6
    with clew.open(store) as reader:
        assert len(reader.runs()) == 6
        assert {span.status for span in reader.spans()} == {"ok"}


def test_a_catalog_that_breaks_while_the_program_runs_changes_no_answer(store: Path) -> None:
    said = program(
        """
        clew.init("tests", store=sys.argv[1])
        first = work(6)
        clew.flush()
        for name in ("", "-wal", "-shm"):
            if os.path.exists(sys.argv[1] + "/catalog.sqlite" + name):
                with open(sys.argv[1] + "/catalog.sqlite" + name, "r+b") as file:
                    file.write(b"damaged " * 2000)
        second = work(6)
        told = ""
        try:
            clew.flush()
        except StoreError as error:
            told = str(error)
        print(json.dumps({"right": first == second == WANTED, "told": told}))
        """,
        store,
    )
    assert said["right"]
    assert "clew doctor --rebuild" in said["told"]
    rebuild.rebuild(Folder(store))
    with clew.open(store) as reader:
        assert len(reader.runs()) == 12


def test_a_read_only_store_changes_no_answer(store: Path) -> None:
    """Root may write anywhere, so the folder is one that nobody can write in: files where folders should be."""
    made = Folder(store, create=True)
    for place in (made.log, made.lock, made.blob):
        shutil.rmtree(place)
        place.write_text("")
    said = program(
        """
        clew.init("tests", store=sys.argv[1])
        right = work(6) == WANTED
        print(json.dumps({"right": right, "faults": sorted(faults())}))
        """,
        store,
    )
    assert said["right"]
    assert {"start of chain span", "end of workflow span", "clew.dataset", "clew.artifact"} <= set(said["faults"])


def test_a_store_that_cannot_be_written_any_more_is_told_in_one_line(store: Path) -> None:
    """Files where folders were stand for a folder that was made read-only, as root may write in any."""
    said = program(
        """
        from clew.store import log
        log.LOOK_SECONDS = 0.0
        clew.init("tests", store=sys.argv[1], cache=True)
        double = clew.cached(lambda number: 2 * number)
        right = work(6) == WANTED and double(1) == 2
        clew.flush()
        shutil.rmtree(sys.argv[1])
        open(sys.argv[1], "w").close()
        right = right and work(6) == WANTED and double(2) == 4
        print(json.dumps({"right": right, "faults": sorted(faults())}))
        """,
        store,
    )
    assert said["right"]
    assert {"start of chain span", "single-flight between processes"} <= set(said["faults"])  # each place is counted
    (line,) = [line for line in said["said"].splitlines() if line.startswith("clew: ")]
    assert line.startswith("clew: the store cannot be written, and what it did not take was left out of the trace: ")
    assert ".lock" not in said["said"]


# -- the counts themselves


def test_a_fault_is_logged_once_for_each_place_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults()
    for number in range(5):
        faults.add("here", ValueError(number))
    with faults.guard("there"):
        raise KeyError("x")
    assert faults.counts == {"here": (5, "ValueError: 4"), "there": (1, "KeyError: 'x'")}
    assert len(caplog.records) == 2
    taken = faults.take()
    faults.add("here", "again")
    faults.put_back(taken)
    assert faults.counts["here"][0] == 6
    assert faults.counts["there"][0] == 1


def test_an_error_that_cannot_be_read_is_named_by_its_type() -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    faults = Faults()
    faults.add("here", Unspeakable())
    faults.add("\ud800\0", "\ud800\0")
    assert faults.counts == {"here": (1, "Unspeakable"), "\\ud800\\x00": (1, "\\ud800\\x00")}


def test_only_failures_are_guarded_never_a_wish_to_stop() -> None:
    faults = Faults()
    with pytest.raises(KeyboardInterrupt), faults.guard("here"):
        raise KeyboardInterrupt
    assert faults.counts == {}


def test_faults_are_written_beside_the_run_that_met_them(tracer: Tracer) -> None:
    with clew.run("run"):
        tracer.faults.add("somewhere", "x" * 1000)
    assert tracer.faults.counts == {}
    assert lost(tracer.folder.path) == {"somewhere": 1}
    assert os.listdir(tracer.folder.log)
