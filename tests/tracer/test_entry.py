"""How a process was started, asked in real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from clew.tracer.entry import Entry

CLEW = Path(__file__).parents[2]
PRINT = "import sys, msgspec; from clew.tracer.entry import capture; print(msgspec.json.encode(capture()).decode())"


def started(*arguments: str, cwd: Path, stdin: str | None = None, **variables: str) -> Entry:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(CLEW), **variables},
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        check=True,
        capture_output=True,
        text=True,
    )
    return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Entry)


def test_a_script_has_its_path_arguments_folder_and_search_path(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(PRINT)
    entry = started("job.py", "--k", "3", cwd=tmp_path)
    folder = os.path.realpath(tmp_path)
    assert (entry.kind, entry.path, entry.module) == ("script", f"{folder}/job.py", None)
    assert entry.argv == ["job.py", "--k", "3"]
    assert entry.orig_argv[1:] == ["job.py", "--k", "3"]
    assert entry.cwd == folder
    assert entry.sys_path[:2] == [folder, str(CLEW)]
    assert entry.executable == sys.executable


def test_a_module_has_the_name_that_followed_the_m(tmp_path: Path) -> None:
    (tmp_path / "shop" / "jobs").mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "index.py").write_text(PRINT)
    (tmp_path / "shop" / "jobs" / "__main__.py").write_text(PRINT)
    entry = started("-m", "shop.index", "x", cwd=tmp_path)
    assert (entry.kind, entry.module) == ("module", "shop.index")
    assert entry.path == os.path.realpath(tmp_path / "shop" / "index.py")
    assert started("-m", "shop.jobs", cwd=tmp_path).module == "shop.jobs"


def test_a_folder_with_a_main_is_a_script(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text(PRINT)
    entry = started("app", cwd=tmp_path)
    assert (entry.kind, entry.module) == ("script", None)
    assert entry.path == os.path.realpath(tmp_path / "app" / "__main__.py")


def test_a_command_keeps_its_code_in_the_original_arguments(tmp_path: Path) -> None:
    entry = started("-c", PRINT, "a", cwd=tmp_path)
    assert (entry.kind, entry.path) == ("command", None)
    assert entry.argv == ["-c", "a"]
    assert PRINT in entry.orig_argv


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_a_program_from_standard_input_says_so(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    entry = started(*arguments, cwd=tmp_path, stdin=PRINT)
    assert (entry.kind, entry.path) == ("stdin", None)


def test_an_interactive_session_is_a_repl(tmp_path: Path) -> None:
    assert started("-i", "-q", cwd=tmp_path, stdin=PRINT + "\n").kind == "repl"


def test_a_spawned_worker_names_the_main_file_of_its_parent(tmp_path: Path) -> None:
    (tmp_path / "fan.py").write_text(
        "import multiprocessing, msgspec\n"
        "from clew.tracer.entry import capture\n"
        "def show():\n"
        "    print(msgspec.json.encode(capture()).decode())\n"
        "if __name__ == '__main__':\n"
        "    child = multiprocessing.get_context('spawn').Process(target=show)\n"
        "    child.start(); child.join()\n"
    )
    entry = started("fan.py", cwd=tmp_path)
    assert (entry.kind, entry.path) == ("worker", os.path.realpath(tmp_path / "fan.py"))


@pytest.mark.parametrize(("variable", "seed"), [("0", 0), ("42", 42), ("random", None), ("", None)])
def test_the_hash_seed_is_the_number_or_none_when_random(tmp_path: Path, variable: str, seed: int | None) -> None:
    assert started("-c", PRINT, cwd=tmp_path, PYTHONHASHSEED=variable).hash_seed == seed


def test_flags_and_options_of_the_interpreter_are_kept(tmp_path: Path) -> None:
    entry = started("-O", "-X", "utf8", "-W", "error::SyntaxWarning", "-c", PRINT, cwd=tmp_path)
    assert entry.flags["optimize"] == 1
    assert entry.flags["utf8_mode"] == 1
    assert entry.x_options == {"utf8": True}
    assert "error::SyntaxWarning" in entry.warn_options


def test_arguments_that_are_not_utf8_are_recorded_as_escapes(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(PRINT)
    assert started("job.py", os.fsdecode(b"caf\xe9"), cwd=tmp_path).argv[1] == "caf\\xe9"


def test_a_deleted_working_folder_is_none(tmp_path: Path) -> None:
    program = "import os, tempfile; d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d); " + PRINT
    entry = started("-c", program, cwd=tmp_path)
    assert (entry.kind, entry.cwd) == ("command", None)
