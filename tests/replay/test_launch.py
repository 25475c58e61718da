"""The command line of a recorded program: what it was started with, what cannot be started again, and how it is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clew.replay.stage import launch
from clew.replay.stage.child import Launch
from clew.replay.stage.command import CommandLine, ignores_environment, options, parsed
from clew.replay.stage.recorded import Recorded, StoredCode
from clew.replay.stage.tree import Laid, Missing
from clew.store.errors import NotReplayable, ReplayTimeout
from clew.tracer import environment
from clew.tracer.entry import Entry
from tests.replay.stage import CLEW, put
from tests.tracer.test_entry import PRINT, started


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = (tmp_path / "project").resolve()
    folder.mkdir()
    return folder


def recorded(root: Path, *arguments: str, variables: dict[str, str] | None = None, **changes: Any) -> Recorded:
    """A process that really ran `job.py`, with some of its record changed."""
    if not (root / "job.py").exists():
        put(root, "job.py", PRINT)
    if "entry" in changes:
        entry = changes.pop("entry")
    else:
        entry = started("job.py", *arguments, cwd=root)
    then = msgspec.structs.replace(environment.capture(), variables=variables or {})
    return Recorded("00" * 16, msgspec.structs.replace(entry, **changes), StoredCode(files=[]), then, str(root))


@pytest.mark.parametrize(
    ("words", "program", "arguments"),
    [
        (["job.py", "-c", "x"], "job.py", ["-c", "x"]),
        (["-O", "-W", "ignore", "-X", "dev", "job.py"], "job.py", []),
        (["-Wignore", "-Xutf8", "-bb", "job.py", "-m"], "job.py", ["-m"]),
        (["-c", "code", "-c", "x"], "code", ["-c", "x"]),
        (["-Icode"], "ode", []),
        (["-Im", "shop.job", "a"], "shop.job", ["a"]),
        (["-mshop.job", "a"], "shop.job", ["a"]),
        (["--check-hash-based-pycs", "always", "job.py"], "job.py", []),
        (["-OWignore", "-c", "code"], "code", []),
        (["-", "a"], "-", ["a"]),
        (["-q"], None, []),
        ([], None, []),
    ],
)
def test_a_command_line_is_read_as_the_interpreter_reads_it(
    words: list[str], program: str | None, arguments: list[str]
) -> None:
    assert parsed(["python", *words]) == CommandLine(program, tuple(arguments))


OPTIONS = [
    ("-O",),
    ("-OO", "-B", "-s", "-P"),
    ("-bb", "-X", "dev"),
    ("-X", "utf8", "-X", "int_max_str_digits=9999", "-X", "no_debug_ranges"),
    ("-W", "error::SyntaxWarning", "-W", "ignore"),
]


@pytest.mark.parametrize("given", OPTIONS, ids=" ".join)
def test_the_options_recorded_are_those_of_the_program_that_runs_again(root: Path, given: tuple[str, ...]) -> None:
    put(root, "job.py", PRINT)
    entry = started(*given, "job.py", cwd=root)
    again = started(*options(entry), "job.py", cwd=root)
    assert again.flags == entry.flags
    assert {"utf8": True, **entry.x_options} == {"utf8": True, **again.x_options}  # the locale of this test sets it
    assert again.warn_options == entry.warn_options
    found = recorded(root, entry=entry)
    assert launch(found, Laid(root)).argv == (sys.executable, *options(entry), str(root / "job.py"))


@pytest.mark.parametrize("option", ["-E", "-I"])
def test_an_option_that_would_hide_the_stage_becomes_what_it_does(root: Path, option: str) -> None:
    put(root, "flags.py", f"import sys; sys.path.append({str(CLEW)!r})\n" + PRINT)
    entry = started(option, "flags.py", cwd=root)
    assert ignores_environment(entry)
    flags = started(*options(entry), "-c", PRINT, cwd=root).flags
    apart = {"ignore_environment": int(option == "-E" or option == "-I"), "isolated": int(option == "-I")}
    assert flags | apart == entry.flags


def test_a_program_that_ignored_its_environment_is_given_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/some/where")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    found = recorded(root)
    assert "/some/where" in launch(found, Laid(root)).environment()["PYTHONPATH"]
    hidden = msgspec.structs.replace(found.entry, flags={**found.entry.flags, "ignore_environment": 1})
    variables = launch(recorded(root, entry=hidden), Laid(root)).environment()
    assert "/some/where" not in variables["PYTHONPATH"]
    assert "PYTHONOPTIMIZE" not in variables


def test_variables_that_decide_about_results_are_as_recorded_and_others_are_todays(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TZ": "Asia/Tokyo", "LC_ALL": "C", "OMP_NUM_THREADS": "7", "PYTHONWARNINGS": "error"}.items():
        monkeypatch.setenv(name, value)
    then = {"TZ": "Europe/Berlin", "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", "LANG": "secret:" + "0" * 32}
    found = launch(recorded(root, variables=then), Laid(root), env={"CLEW_REPLAY": "/the/file"}).environment()
    assert (found["TZ"], found["OMP_NUM_THREADS"], found["PYTHONUTF8"]) == ("Europe/Berlin", "7", "1")
    assert found["CLEW_REPLAY"] == "/the/file"
    assert "LC_ALL" not in found
    assert "PYTHONWARNINGS" not in found
    assert found.get("LANG") == os.environ.get("LANG")


@pytest.mark.parametrize(("seed", "told"), [(42, "42"), (0, "0"), (None, "0")])
def test_the_hash_seed_is_the_recorded_one_and_zero_where_it_was_random(
    root: Path, seed: int | None, told: str
) -> None:
    assert launch(recorded(root, hash_seed=seed), Laid(root)).env["PYTHONHASHSEED"] == told


def test_arguments_are_those_of_the_command_line_whatever_the_program_made_of_them(root: Path) -> None:
    found = recorded(root, "--k", "3", "ä ö", argv=["job.py"])
    assert launch(found, Laid(root)).argv[-3:] == ("--k", "3", "ä ö")
    assert launch(found, Laid(root), arguments=["other"]).argv[-2:] == (str(root / "job.py"), "other")


def test_a_redacted_argument_is_asked_for(root: Path) -> None:
    hidden = "secret:" + "0123456789abcdef" * 2
    found = recorded(root, "--key", hidden)
    with pytest.raises(NotReplayable, match=r"argument 2 of the program held a secret.*arguments=\[\.\.\.\]"):
        launch(found, Laid(root))
    assert launch(found, Laid(root), arguments=["--key", "new"]).argv[-1] == "new"
    code = msgspec.structs.replace(
        found.entry, kind="command", orig_argv=["python", "-c", f"call('{hidden}')"], path=None
    )
    with pytest.raises(NotReplayable, match=r"the code after -c held a secret.*clew\.replay"):
        launch(recorded(root, entry=code), Laid(root))


@pytest.mark.parametrize("kind", ["stdin", "repl", "notebook", "worker", "embedded"])
def test_what_has_no_command_line_says_what_to_do_instead(root: Path, kind: str) -> None:
    with pytest.raises(NotReplayable, match=r"with clew\.replay\(run\)|Replay the run of the process that started it"):
        launch(recorded(root, kind=kind), Laid(root))


def test_a_script_that_could_not_be_laid_out_says_why(root: Path, tmp_path: Path) -> None:
    laid = Laid(tmp_path / "empty", missing=(Missing("job.py", "held a secret"),), notes=tmp_path / "notes")
    with pytest.raises(NotReplayable, match=r"job\.py, which the program was started with.*held a secret"):
        launch(recorded(root), laid)


def test_an_installed_programs_script_runs_as_it_is_here(root: Path, tmp_path: Path) -> None:
    script = put(tmp_path, "bin/tool", "print('tool')\n")
    found = recorded(root, path=str(script), orig_argv=["python", str(script), "run"])
    assert launch(found, Laid(root)).argv[-2:] == (str(script), "run")
    script.unlink()
    with pytest.raises(NotReplayable, match="tool, which the program was started with"):
        launch(found, Laid(root))


def test_a_folder_with_a_main_is_started_as_a_folder(root: Path) -> None:
    put(root, "app/__main__.py", PRINT)
    found = recorded(root, entry=started("app", "x", cwd=root))
    assert launch(found, Laid(root)).argv[-2:] == (str(root / "app"), "x")
    found = recorded(root, entry=started("app/__main__.py", cwd=root))
    assert launch(found, Laid(root)).argv[-1] == str(root / "app" / "__main__.py")


def test_a_working_folder_that_is_gone_is_asked_for(root: Path, tmp_path: Path) -> None:
    for gone in (str(tmp_path / "gone"), None):
        with pytest.raises(NotReplayable, match=r"folder that the program ran in is gone.*cwd="):
            launch(recorded(root, cwd=gone), Laid(root))
        assert launch(recorded(root, cwd=gone), Laid(root), cwd=tmp_path).cwd == str(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        launch(recorded(root), Laid(root), cwd=tmp_path / "gone")


def test_without_site_there_is_no_way_to_lead_imports(root: Path) -> None:
    found = recorded(root)
    with pytest.raises(NotReplayable, match="started with -S"):
        launch(recorded(root, entry=found.entry, flags={**found.entry.flags, "no_site": 1}), Laid(root))


def program(root: Path, text: str) -> Launch:
    """A launch of a program that knows nothing of clew."""
    (root / "job.py").unlink(missing_ok=True)
    found = recorded(root)
    put(root, "job.py", text)
    return launch(found, Laid(root))


def test_the_exit_status_is_the_programs_and_its_input_is_empty(root: Path) -> None:
    assert program(root, "import sys; sys.exit(3 if sys.stdin.read() == '' else 4)").run() == 3
    assert program(root, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)").run() == -signal.SIGKILL
    with pytest.raises(ValueError, match="reads no pipe"):
        program(root, "").run(stdout=subprocess.PIPE)


FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open("family.tmp", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename("family.tmp", "family")
time.sleep(600)
"""


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def ended(pid: int) -> None:
    """Wait until the system has taken a killed process away."""
    turns = threading.Event()
    for _ in range(3000):
        if not is_running(pid):
            return
        turns.wait(0.01)
    raise AssertionError(f"process {pid} goes on")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_an_interrupt_ends_the_program_and_its_children(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clew.replay.stage.child.GRACE_SECONDS", 0.2)
    launched = program(root, FAMILY)
    family = root / "family"
    main = threading.get_ident()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it

    def interrupt() -> None:
        while not family.exists():
            over.wait(0.02)
        signal.pthread_kill(main, signal.SIGINT)

    over = threading.Event()
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            launched.run()
    finally:
        signal.signal(signal.SIGINT, before)
    over.set()
    thread.join()
    for pid in family.read_text().split():
        ended(int(pid))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_a_program_that_runs_too_long_is_ended(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clew.replay.stage.child.GRACE_SECONDS", 0.2)
    launched = program(root, "import os, time\nopen('family', 'w').write(str(os.getpid()))\ntime.sleep(600)\n")
    with pytest.raises(ReplayTimeout, match="longer than 3 seconds") as caught:
        launched.run(timeout_seconds=3)
    assert isinstance(caught.value, TimeoutError)
    started_pid = (root / "family").read_text() if (root / "family").exists() else ""
    if started_pid:
        ended(int(started_pid))


def test_an_interpreter_that_did_not_enter_the_stage_is_not_taken_for_a_replay(root: Path, tmp_path: Path) -> None:
    found = recorded(root)
    put(root, "job.py", "")
    laid = Laid(root, notes=tmp_path / "notes")
    assert launch(found, laid).run() == 0
    (tmp_path / "notes").unlink()
    launched = launch(found, laid)
    blind = Launch((launched.argv[0], "-S", *launched.argv[1:]), launched.env, (), launched.cwd, launched.notes)
    with pytest.raises(NotReplayable, match="loaded no sitecustomize"):
        blind.run()


def test_a_stage_that_cannot_be_entered_stops_the_program(root: Path) -> None:
    launched = program(root, "raise SystemExit(0)")
    broken = Launch(launched.argv, {**launched.env, "CLEW_STAGE": "{}"}, (), launched.cwd, None)
    assert broken.run(stderr=subprocess.DEVNULL) != 0


def test_an_entry_survives_the_way_through_the_record(root: Path) -> None:
    found = recorded(root).entry
    assert msgspec.convert(msgspec.to_builtins(found), Entry) == found
