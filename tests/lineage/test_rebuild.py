"""The catalog made again from the logs alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import clew
from clew.lineage.rebuild import rebuild
from clew.store import catalog, ref
from clew.store.folder import Folder
from tests.cli import bed

VERSIONS = """
import sys, clew
clew.init("names", store=sys.argv[1])
for number in range(3):
    clew.dataset("handbook", [{"text": f"version {number} of the handbook, a text of its own"}], text="text")
clew.artifact("prompt", "You are a reader.", "reader")
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    for source in (VERSIONS, bed.ANSWERS):
        finished = bed.program(source, path)
        assert finished.returncode == 0, finished.stderr
    assert bed.program(bed.KILLED, path).returncode == -9
    return path


def everything(store: Path) -> dict[str, Any]:
    with clew.open(store) as reader:
        runs = reader.runs(all=True)
        names = [one["name"] for one in ref.listing(reader.store)]
        return {
            "runs": runs,
            "why": {run.run_id: reader.why(run).to_dict() for run in reader.runs()},
            "spans": [span.to_dict(content=True) for span in reader.spans()],
            "refs": {name: ref.history_of(reader.store, name) for name in names},
            "impact": reader.impact("dataset/handbook").to_dict(),
        }


def test_the_same_answers_from_the_logs_alone(store: Path) -> None:
    before = everything(store)
    assert len(before["refs"]["dataset/handbook"]) == 4
    for file in store.glob("catalog.sqlite*"):
        file.unlink()
    assert rebuild(Folder(store)) > 0
    assert everything(store) == before


def test_a_catalog_that_is_in_use_is_filled_in_place(store: Path) -> None:
    before = everything(store)
    with clew.open(store) as reader, reader.connection() as connection:
        connection.execute(sa.select(catalog.run)).all()
    inode = (store / "catalog.sqlite").stat().st_ino
    rebuild(Folder(store))
    assert (store / "catalog.sqlite").stat().st_ino == inode
    assert everything(store) == before


def test_rebuilding_twice_changes_nothing(store: Path) -> None:
    first = rebuild(Folder(store))
    before = everything(store)
    assert rebuild(Folder(store)) == first
    assert everything(store) == before


def test_a_name_given_after_a_rebuild_gets_the_next_version(store: Path) -> None:
    rebuild(Folder(store))
    source = VERSIONS.replace("version {number}", "later {number}")
    assert bed.program(source, store).returncode == 0
    assert [one["version"] for one in everything(store)["refs"]["dataset/handbook"]] == [1, 2, 3, 4, 5, 6, 7]


def test_a_reader_that_was_open_meanwhile_reads_on(store: Path) -> None:
    with clew.open(store) as reader:
        before = [span.to_dict(content=True) for span in reader.spans()]
        finished = bed.started("doctor", "--rebuild", "--json", "--store", str(store))
        assert finished.returncode == 0, finished.stderr
        assert [span.to_dict(content=True) for span in reader.spans()] == before
