"""The recorded program runs again from its recorded code, whatever was done to the working tree since."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from clew.replay.stage import changed_files, differences, launch, working_tree
from tests.replay.stage import CLEW, Bench, put

BEGIN = "import clew; clew.init('tests'); clew.flush()\n"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name in ("CLEW_STORE", "CLEW_CATALOG", "CLEW_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    return Bench(tmp_path)


def project(bench: Bench) -> None:
    """A script with a helper, a package with data, a link, and names with spaces and letters."""
    put(bench.project, "helper.py", "WORD = 'recorded'\n")
    put(bench.project, "shop/__init__.py", "")
    put(bench.project, "shop/price list.txt", "äpfel 3")
    put(bench.project, "shop/größe.py", "SIZE = 'groß'\n")
    put(
        bench.project,
        "shop/job.py",
        BEGIN + "import sys, helper\nfrom shop.größe import SIZE\nprint(helper.WORD, SIZE, *sys.argv[1:])\n",
    )
    (bench.project / "prices.txt").symlink_to("shop/price list.txt")
    put(
        bench.project,
        "my job.py",
        BEGIN
        + "import os, sys, pathlib, helper\nfrom shop.größe import SIZE\n"
        + "here = pathlib.Path(__file__).parent\n"
        + "print(helper.WORD, SIZE, (here / 'prices.txt').read_text(), os.getcwd(), *sys.argv[1:])\n",
    )


def edit(bench: Bench) -> None:
    """What a day's work does to the project."""
    put(bench.project, "helper.py", "WORD = 'edited'\n")
    put(bench.project, "shop/größe.py", "SIZE = 'klein'\n")
    put(bench.project, "shop/price list.txt", "pears 9")
    put(bench.project, "my job.py", "print('edited')\n")
    put(bench.project, "shop/job.py", "print('edited')\n")


COMMAND = BEGIN + "import sys, helper\nfrom shop.größe import SIZE\nprint(helper.WORD, SIZE, *sys.argv[1:])"


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        (("my job.py", "an argument", "ä", ""), "edited"),
        (("my job.py", "-m"), "deleted"),
        (("-m", "shop.job", "-c", "x"), "edited"),
        (("-m", "shop.job"), "deleted"),
        (("-c", COMMAND, "-m", "y"), "edited"),
        (("-O", "-X", "utf8", "-W", "ignore::SyntaxWarning", "-Bsm", "shop.job"), "edited"),
        (("-I", "my job.py"), "edited"),
    ],
)
def test_the_recorded_code_runs_although_the_working_tree_changed(
    bench: Bench, arguments: tuple[str, ...], change: str
) -> None:
    project(bench)
    if "-I" in arguments:
        text = (bench.project / "my job.py").read_text()
        put(bench.project, "my job.py", f"import sys; sys.path[:0] = [{str(bench.project)!r}, {str(CLEW)!r}]\n" + text)
    recorded = bench.record(*arguments)
    assert "recorded groß" in recorded
    if change == "edited":
        edit(bench)
    else:
        for file in ("helper.py", "shop/größe.py", "shop/job.py", "my job.py"):
            (bench.project / file).unlink()
    assert bench.replay() == recorded


def test_a_tree_under_git_brings_its_links_to_folders(bench: Bench) -> None:
    put(bench.project, "data/word.txt", "recorded")
    (bench.project / "current").symlink_to("data")
    put(
        bench.project,
        "jobs/job.py",
        BEGIN + "import pathlib\nprint(pathlib.Path(__file__, '../../current/word.txt').resolve().read_text())\n",
    )
    subprocess.run(["git", "init", "-q", bench.project], check=True)
    assert bench.record("jobs/job.py") == "recorded\n"
    put(bench.project, "data/word.txt", "edited")
    (bench.project / "current").unlink()
    assert bench.replay() == "recorded\n"


def test_the_root_is_the_process_own_although_the_same_code_ran_elsewhere(bench: Bench) -> None:
    """What the catalog knows of a tree is of the first process that had it."""
    put(bench.project, "job.py", BEGIN)
    bench.record("job.py")
    put(bench.folder, "clone/job.py", BEGIN)
    bench.record("job.py", cwd=bench.folder / "clone")
    with bench.reading() as (_, recorded):
        assert recorded.root == os.path.realpath(bench.folder / "clone")


def test_what_was_imported_from_outside_is_as_recorded_and_what_was_not_recorded_is_named(bench: Bench) -> None:
    """A package elsewhere: what was loaded when the code was captured is in the record, what came later is not."""
    library = bench.folder / "library"
    put(library, "outer/__init__.py", "WORD = 'recorded'\n")
    put(library, "outer/deep/__init__.py", "")
    put(library, "outer/deep/late.py", "LATE = 'late'\n")
    put(bench.project, ".gitignore", "made.py\n")
    put(bench.project, "made.py", "MADE = 'made'\n")
    put(
        bench.project,
        "job.py",
        "import outer, outer.deep\n"
        + BEGIN
        + "import outer.deep.late as l, made\nprint(outer.WORD, l.LATE, made.MADE)\n",
    )
    subprocess.run(["git", "init", "-q", bench.project], check=True)
    path = f"{library}{os.pathsep}{CLEW}"
    assert bench.record("job.py", PYTHONPATH=path) == "recorded late made\n"
    put(library, "outer/__init__.py", "WORD = 'edited'\n")
    recorded, laid = bench.laid()
    launched = launch(recorded, laid)
    assert bench.output(launched) == "recorded late made\n"
    named = {one.module: one.file for one in launched.unrecorded()}
    assert named == {"outer.deep.late": str(library / "outer/deep/late.py"), "made": str(bench.project / "made.py")}
    assert all("is not in the record" in str(one) for one in launched.unrecorded())


def test_a_file_that_is_new_in_the_working_tree_does_not_stand_before_the_record(bench: Bench) -> None:
    """`-m` and `-c` put the working folder first; a helper that became a package there hides the recorded one."""
    put(bench.project, "helper.py", "WORD = 'recorded'\n")
    program = BEGIN + "import helper; print(helper.WORD)"
    assert bench.record("-c", program) == "recorded\n"
    (bench.project / "helper.py").unlink()
    put(bench.project, "helper/__init__.py", "WORD = 'edited'\n")
    put(bench.project, "json.py", "WORD = 'edited'\n")
    put(bench.project, "sitecustomize.py", "print('not recorded')\n")
    assert bench.replay() == "recorded\n"


APPENDED = """
import sys
from importlib.util import spec_from_file_location
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "shop":
            return spec_from_file_location(name, {root!r} + "/shop/__init__.py", submodule_search_locations=[{root!r} + "/shop"])
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("layout", ["flat", "src", "inserted finder"])
def test_an_editable_install_does_not_bring_todays_code(bench: Bench, layout: str) -> None:
    """setuptools puts a finder behind Python's own for a flat layout and a path for `src`; meson-python's goes first."""
    environment = bench.folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = next(environment.glob("lib/python*/site-packages"))
    put(packages, "today.pth", sysconfig.get_path("purelib") + "\n")
    bench.python = str(environment / "bin" / "python")
    top = "src/" if layout == "src" else ""
    put(bench.project, f"{top}shop/__init__.py", "from shop.word import WORD\nTOP = 'recorded'\n")
    put(bench.project, f"{top}shop/word.py", "WORD = 'recorded'\n")
    put(bench.project, "scripts/job.py", BEGIN + "import shop\nprint(shop.TOP, shop.WORD)\n")
    put(
        bench.project,
        "pyproject.toml",
        "[project]\nname = 'shop'\nversion = '1'\n[tool.setuptools]\npackages = ['shop']\n"
        + ("package-dir = {'' = 'src'}\n" if top else ""),
    )
    subprocess.run(["git", "init", "-q", bench.project], check=True)
    if layout == "inserted finder":
        put(packages, "_shop_editable.py", APPENDED.format(root=str(bench.project)))
        put(packages, "shop-editable.pth", "import _shop_editable\n")
    else:
        pytest.importorskip("setuptools")
        build = "import sys; from setuptools import build_meta; build_meta.build_editable(sys.argv[1])"
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", build, bench.folder],
            cwd=bench.project,
            check=True,
            capture_output=True,
        )
        with zipfile.ZipFile(next(bench.folder.glob("*.whl"))) as wheel:
            wheel.extractall(packages)
    away = bench.folder / "away"
    away.mkdir()
    assert bench.record(str(bench.project / "scripts" / "job.py"), cwd=away) == "recorded recorded\n"
    put(bench.project, f"{top}shop/__init__.py", "from shop.word import WORD\nTOP = 'edited'\n")
    put(bench.project, f"{top}shop/word.py", "WORD = 'edited'\n")
    assert (
        bench.record(str(bench.project / "scripts" / "job.py"), cwd=away, CLEW_STORE=str(bench.folder / "other"))
        == "edited edited\n"
    )
    recorded, laid = bench.laid()
    launched = launch(recorded, laid, python=bench.python)
    assert bench.output(launched) == "recorded recorded\n"
    assert launched.unrecorded() == []


def test_a_program_that_puts_its_own_folders_first_still_gets_the_recorded_code(bench: Bench) -> None:
    put(bench.project, "lib/helper.py", "WORD = 'recorded'\n")
    put(
        bench.project,
        "job.py",
        f"import sys; sys.path.insert(0, {str(bench.project / 'lib')!r})\nimport helper\n"
        + BEGIN
        + "print(helper.WORD)\n",
    )
    bench.record("job.py")
    put(bench.project, "lib/helper.py", "WORD = 'edited'\n")
    assert bench.replay() == "recorded\n"


def test_the_interpreters_own_sitecustomize_runs_too(bench: Bench) -> None:
    put(bench.folder, "site/sitecustomize.py", "import builtins; builtins.CUSTOM = 'custom'\n")
    path = f"{bench.folder / 'site'}{os.pathsep}{CLEW}"
    put(bench.project, "job.py", BEGIN + "print(CUSTOM)\n")
    assert bench.record("job.py", PYTHONPATH=path) == "custom\n"
    assert bench.replay() == "custom\n"


def test_working_tree_of_today_runs_in_place_of_the_record_wherever_it_lies(bench: Bench) -> None:
    project(bench)
    recorded_output = bench.record("my job.py")
    shutil.copytree(bench.project, bench.folder / "clone", symlinks=True)
    put(bench.folder, "clone/helper.py", "WORD = 'cloned'\n")
    put(bench.project, "helper.py", "WORD = 'edited'\n")
    put(bench.project, "new.py", "")
    (bench.project / "shop" / "job.py").unlink()
    (bench.project / "prices.txt").unlink()
    (bench.project / "prices.txt").symlink_to("helper.py")
    put(bench.project, "shop/price list.txt", "äpfel 3")
    with bench.reading() as (reader, recorded):
        here = working_tree(recorded, bench.project / "shop")
        there = working_tree(recorded, bench.folder / "clone")
        assert [str(one) for one in changed_files(reader, recorded)] == [
            "helper.py was changed since",
            "new.py was added since",
            "prices.txt was changed since",
            "shop/job.py was deleted since",
        ]
        lines = [str(one) for one in differences(reader, recorded) if one.kind == "code"]
        assert len(lines) == 4
        assert re.fullmatch(r"code helper\.py: b3:[0-9a-f]{8}… -> changed \(the recorded code runs, .*\)", lines[0])
        changed = changed_files(reader, recorded, bench.folder / "clone")
        assert [one.to_dict() for one in changed] == [{"path": "helper.py", "change": "changed"}]
        with pytest.raises(ValueError, match=r"has my job\.py"):
            working_tree(recorded, bench.store)
    assert (here.root, here.recorded) == (bench.project.resolve(), False)
    (bench.project / "prices.txt").unlink()
    (bench.project / "prices.txt").symlink_to("shop/price list.txt")
    assert bench.output(launch(recorded, here)) == recorded_output.replace("recorded", "edited")
    assert bench.output(launch(recorded, there)) == recorded_output.replace("recorded", "cloned")


def test_the_store_that_is_read_is_no_data_beside_the_code(bench: Bench) -> None:
    project(bench)
    put(bench.project, "notes.sqlite", "data")
    bench.store = bench.project / "traces"
    bench.record("my job.py")
    _, laid = bench.laid()
    assert laid.lent == ("notes.sqlite",)
    assert not (laid.root / "traces").exists()
