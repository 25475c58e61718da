"""The recorded program runs again from its recorded code, whatever was done to the working tree since."""

from __future__ import annotations

from pathlib import Path

import pytest

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
