"""Which distributions brought a module: what `importlib.metadata` says, and what it does not."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clew.replay.code import owner
from clew.replay.code.owner import owners


def forget() -> None:
    owner._by_top.cache_clear()
    owners.cache_clear()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for distributions, and nothing else on the path: who knows what is installed there."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    forget()
    yield tmp_path
    forget()


def installed(folder: Path, name: str, **files: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    for file, text in files.items():
        (info / file).write_text(text)


def test_every_module_has_the_owners_that_importlib_names() -> None:
    told = {top: frozenset(names) for top, names in importlib.metadata.packages_distributions().items()}
    assert {top: owners(top) for top in told} == told


def test_what_record_names_is_owned(packages: Path) -> None:
    installed(
        packages,
        "Kit-One",
        RECORD=(
            "kit/__init__.py,sha256=a,1\nkit/deep/part.py,sha256=b,2\nalone.py,sha256=c,3\n"
            '"quoted/a, b.py",sha256=d,4\nfast.abi3.so,sha256=e,5\nshared/one.txt,sha256=f,6\n'
            "../../../bin/kit,sha256=g,7\nkit.libs/libx.so,sha256=h,8\nKit_One-1.0.dist-info/METADATA,sha256=i,9\n"
            "notes.txt,sha256=j,10\n/usr/bin/kit,sha256=k,11\n"
        ),
    )
    installed(packages, "other", RECORD="shared/two.py,sha256=a,1\n")
    for top in ("kit", "alone", "quoted", "fast"):
        assert owners(top) == {"Kit-One"}
    assert owners("shared") == {"Kit-One", "other"}
    for top in ("..", ".", "", "bin", "kit.libs", "notes", "deep", "absent"):
        assert owners(top) == frozenset()


def test_what_is_declared_stands_for_the_record(packages: Path) -> None:
    installed(packages, "kit", RECORD="hidden/__init__.py,sha256=a,1\n", **{"top_level.txt": "said\nalso\n"})
    assert owners("said") == owners("also") == {"kit"}
    assert owners("hidden") == frozenset()


def test_no_metadata_is_read_of_what_owns_nothing_of_it(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading that of every distribution takes a third of a second, in each process that makes a key."""
    installed(packages, "kit", RECORD="kit/__init__.py,sha256=a,1\n")
    read = []
    metadata = importlib.metadata.Distribution.metadata.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(
        importlib.metadata.Distribution, "metadata", property(lambda self: read.append(self) or metadata(self))
    )
    assert owners("kit") == {"kit"}
    assert len(read) == 1
