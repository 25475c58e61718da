"""A recorded script again, from its recorded code, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import clew
from clew.lineage import index
from clew.lineage.reader import Reader
from clew.lineage.rebuild import rebuild
from clew.replay.playback.certificate import Certificate
from clew.replay.playback.examination import examine
from clew.store.errors import NotFound, NotRecorded, NotReplayable, ReplayTimeout, StoreUnwritable
from clew.store.folder import Folder
from tests.replay.conftest import BENCH

PROGRAMS = Path(__file__).parent / "programs"
ROOT = Path(clew.__file__).parents[1]
CALLS = 29

SCRIPT = """
import os, sys
import clew
from helper import prompt
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

class Model(BaseChatModel):
    temperature: float = 0.0

    @property
    def _llm_type(self):
        return "model"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        print("LIVE", messages[-1].content, flush=True)
        usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
        text = "re " + messages[-1].content
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text, usage_metadata=usage))])

clew.init("script", record=True)
clew.instrument()
with clew.run("answer") as run:
    first = Model().invoke("fixed").content
    run.output(Model().invoke(prompt(sys.argv[1])).content)
print("done", flush=True)
"""

CACHED = """
import clew
clew.init("script")

@clew.cached
def double(number):
    return 2 * number

with clew.run("cached") as run:
    run.output(double(2))
"""

RETRIEVED = """
import clew
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

class Library(BaseRetriever):
    def _get_relevant_documents(self, query, *, run_manager):
        return [Document("old", id="d1")]

clew.init("script", record=True)
clew.instrument()
with clew.run("retrieved") as run:
    found = [one.page_content for one in Library().invoke("q")]
    run.output(found)
print(found, flush=True)
"""

TOOLED = """
import clew
from helper import prompt
from langchain_core.tools import tool

@tool
def search(query: str) -> str:
    "Look a thing up."
    return prompt(query)

clew.init("script", record=True)
clew.instrument()
with clew.run("tooled") as run:
    run.output(search.invoke({"query": "q"}))
print(search.invoke({"query": "q"}), flush=True)
"""


@pytest.fixture
def project(clean_tracing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a helper that makes the prompt."""
    folder = tmp_path / "a project"
    folder.mkdir()
    (folder / "app.py").write_text(SCRIPT)
    (folder / "helper.py").write_text('def prompt(text):\n    return f"hello {text}"\n')
    monkeypatch.setenv("CLEW_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("CLEW_CACHE", "CLEW_RECORD", "CLEW_DISABLED", "CLEW_REPLAY"):
        monkeypatch.delenv(name, raising=False)
    return folder


def run(folder: Path, *arguments: str, script: str = "app.py") -> str:
    done = subprocess.run(
        [sys.executable, script, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clew.cli", *arguments], capture_output=True, text=True, check=False, cwd=cwd
    )


def again(of: Any, tmp_path: Path, **options: Any) -> tuple[Certificate, str]:
    out = tmp_path / "out.txt"
    with out.open("wb") as file:
        certificate = clew.rerun(of, stdout=file, **options)
    return certificate, out.read_text()


def test_the_recorded_code_runs_whatever_was_edited(project: Path, tmp_path: Path) -> None:
    assert run(project, "you").count("LIVE") == 2
    (project / "helper.py").write_text('def prompt(text):\n    return f"goodbye {text}"\n')
    certificate, out = again("answer", tmp_path)
    assert certificate.holds
    assert certificate.equal
    assert certificate.code == "recorded"
    assert certificate.answer == "re hello you"
    assert out == "done\n"
    assert any("helper.py" in one for one in certificate.differences)

    plan, out = again("answer", tmp_path, mode="plan", patch=clew.Code(str(project)))
    assert "LIVE" not in out
    assert [one for one in plan.differences if "helper.py" in one]
    assert len(plan.live) == 1
    assert "“hello you” → “goodbye you”" in plan.live[0].why
    assert plan.served == {"llm": 1}

    changed, out = again("answer", tmp_path, mode="hybrid", patch=clew.Code(str(project)), prices={"model": (1, 2)})
    assert out.count("LIVE") == 1
    assert changed.equal is False
    assert changed.answer == "re goodbye you"
    assert changed.money_spent == pytest.approx(7e-6)


def test_the_program_of_the_command_line(project: Path, tmp_path: Path) -> None:
    run(project, "you")

    def clew_(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "clew.cli", *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
        )

    done = clew_("replay", "answer", "--json")
    assert done.returncode == 0, done.stderr
    certificate = json.loads(done.stdout)["certificate"]
    assert certificate["served"] == {"llm": 2}
    assert certificate["holds"]
    (project / "helper.py").write_text("def prompt(text):\n    return text\n")
    done = clew_("replay", "answer", "--code", str(project))
    assert done.returncode == 1
    assert "ReplayMiss" in done.stdout
    assert "messages[0].content: “hello you” → “you”" in done.stdout
    done = clew_("doctor", "replay", "answer")
    assert (done.returncode, done.stdout.splitlines()[0].split(" ", 2)[2]) == (0, "asks the same each time")
    assert clew_("replay", "nothing").returncode == 1


def test_a_mistake_on_the_command_line_is_said_before_anything_runs(project: Path, tmp_path: Path) -> None:
    run(project, "you")
    (project / "app.py").write_text(SCRIPT.replace("@property", "@property  # edited"))
    for arguments, status, told in (
        (["--mode", "sideways"], 2, "strict, hybrid or plan, not 'sideways'"),
        (["--max-calls", "1"], 2, "in a strict replay nothing does"),
        (["--model", "model=1"], 2, "'model' is no field of a model: write NAME.FIELD=VALUE"),
        (["--answer", "abcd=[1"], 2, "'[1' begins as JSON and is none"),
        (["--prompt", "planner=x"], 1, "this run has no prompt 'planner'"),
        (["--timeout", "-1"], 2, "more than 0 seconds, and not -1"),
        (["--mode", "hybrid", "--budget", "-1"], 2, "budget is not negative, and not -1"),
        (["--mode", "hybrid", "--budget", "nan", "--price", "model=1,1"], 2, "budget is not negative, and not nan"),
        (["--mode", "hybrid", "--budget", "1"], 2, "--price gpt-4o=2.5,10"),
        (["--price", "model=1,-1"], 2, "a price is not negative, and that of model is 1.0, -1.0"),
        (["--prompt", "x=@nowhere"], 2, "nowhere cannot be read"),
        (["--document", f"x=@{sys.executable}"], 2, "is no text in UTF-8"),
        (["--mode", "hybrid", "--allow", "nosuchkind"], 2, "no kind of call (llm, tool, retriever, embedding, chain)"),
        (["--host", ""], 2, "'' is no host"),
        (["--host", "https://example.com"], 2, "without a scheme or a port"),
        (["--answer", "abcd=x"], 1, "no recorded call of this run has the span 'abcd'"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "clew.cli", "replay", "answer", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert told in done.stderr
        assert "Traceback" not in done.stderr
        assert "differs" not in done.stderr  # what is told of the surroundings, before the program is started


def test_a_program_that_replays_itself_comes_again(project: Path, tmp_path: Path) -> None:
    """Both replays answer the same calls, and each counts them for itself."""
    text = SCRIPT.replace("temperature: float = 0.0", "temperature: float = 1.0")
    inner = 'with clew.replay(run):\n    Model().invoke("fixed")\n    Model().invoke(prompt(sys.argv[1]))\nprint("done"'
    (project / "app.py").write_text(text.replace('print("done"', inner))
    run(project, "you")
    certificate, out = again("answer", tmp_path)
    assert certificate.holds, str(certificate)
    assert out == "done\n"
    (project / "helper.py").write_text('def prompt(text):\n    return f"goodbye {text}"\n')
    certificate, out = again("answer", tmp_path, mode="hybrid", patch=clew.Code(str(project)))
    assert certificate.error is None
    assert out == "LIVE goodbye you\ndone\n"  # the inner replay has it from the run before it


def test_what_a_program_swallows_is_on_the_certificate(project: Path, tmp_path: Path) -> None:
    text = SCRIPT.replace(
        "    first = Model",
        "    first = ''\n    try:\n        Model().invoke(os.environ['ASKED'])\n    except Exception:\n        pass\n    first = Model",
    )
    (project / "app.py").write_text(text)
    os.environ["ASKED"] = "one"
    try:
        run(project, "you")
        os.environ["ASKED"] = "two"
        certificate, out = again("answer", tmp_path)
    finally:
        del os.environ["ASKED"]
    assert not certificate.holds
    assert certificate.error is not None
    assert "ReplayMiss" in certificate.error
    assert "LIVE" not in out


def test_runs_that_cannot_be_replayed(project: Path, tmp_path: Path) -> None:
    run(project, "you")
    with pytest.raises(NotFound):
        clew.rerun("nothing of that name")
    with pytest.raises(ValueError, match=r"one clew\.Code"):
        clew.rerun("answer", patch=[clew.Code("."), clew.Code("..")])
    with pytest.raises(ValueError, match=r"clew\.rerun"):
        clew.Code(".").applied(None, None)
    text = (project / "app.py").read_text()
    (project / "app.py").write_text(text.replace(", record=True", ""))
    run(project, "again")
    with pytest.raises(NotRecorded):
        clew.rerun("answer")
    (project / "app.py").write_text(CACHED)
    run(project)
    with pytest.raises(NotRecorded):
        clew.rerun("cached")


def test_a_store_that_cannot_be_written_takes_no_replay(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(project, "you")
    monkeypatch.setattr(Folder, "writable", False)  # root may write anywhere
    with pytest.raises(StoreUnwritable, match="cannot be written: copy it"):
        clew.rerun("answer")


def test_a_mistake_in_what_doctor_is_asked_is_no_traceback(project: Path, tmp_path: Path) -> None:
    run(project, "you")
    done = command("doctor", "replay", "answer", "--code", str(tmp_path / "nowhere"), cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere is no folder with code" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_document_is_patched_on_the_command_line(project: Path, tmp_path: Path) -> None:
    (project / "app.py").write_text(RETRIEVED)
    run(project)
    (tmp_path / "text").write_text("from a file")
    for said, shown in (("d1=new", "['new']"), ("d1=@text", "['from a file']")):
        done = command("replay", "retrieved", "--document", said, cwd=tmp_path)
        assert (done.returncode, done.stdout.splitlines()[0]) == (1, shown), done.stderr  # another answer than recorded
        assert "patched  document 'd1': 1 time" in done.stdout


def test_a_tool_is_patched_by_a_function_of_a_module_of_today(project: Path, tmp_path: Path) -> None:
    """Which imports the recorded code, and hides no module of it."""
    (project / "app.py").write_text(TOOLED)
    run(project)
    (project / "helper.py").write_text(
        'import helper\n\ndef louder(query):\n    return helper.prompt(query).upper()\n\ndef prompt(text):\n    return "today"\n'
    )
    asked = ("replay", "tooled", "--mode", "hybrid", "--tool")
    done = command(*asked, "search=helper:louder", cwd=project)
    assert done.stdout.splitlines()[0] == "HELLO Q", done.stdout + done.stderr
    assert "patched  tool 'search' (helper:louder): 2 times" in done.stdout
    for said, status, told in (
        ("search=helper", 2, "'helper' names no function: write module:function"),
        ("search=nowhere.at_all:louder", 2, "there is no module nowhere.at_all in "),
        ("search=helper:quieter", 2, "helper.py has no quieter"),
    ):
        done = command(*asked, said, cwd=project)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert told in done.stderr
    (project / "broken.py").write_text("def louder(query): return 1\n1 / 0\n")
    done = command(*asked, "search=broken:louder", cwd=project)
    assert "error    Unpatchable: broken:louder cannot be imported: ZeroDivisionError: division by zero" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_patch_that_meets_nothing_is_no_success(project: Path, tmp_path: Path) -> None:
    run(project, "you")
    done = command("replay", "answer", "--mode", "plan", "--model", "modle.temperature=1", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["certificate"]["unmet"] == ["model 'modle' (temperature=1)"]
    assert done.returncode == 1
    done = command("replay", "answer", "--mode", "plan", "--model", "model.temperature=1", cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_a_field_that_a_model_cannot_have_is_told_in_a_line(project: Path, tmp_path: Path) -> None:
    run(project, "you")
    for said, told in (
        ("Model.nosuch=0", "error    Unpatchable: Model has no field nosuch; it has "),
        ("Model.temperature=hot", "error    Unpatchable: the field temperature of Model cannot be 'hot': "),
    ):
        done = command("replay", "answer", "--mode", "hybrid", "--model", said, cwd=tmp_path)
        assert (done.returncode, done.stdout.count(told)) == (1, 1), done.stdout
        assert "Traceback" not in done.stderr


def test_what_may_go_live_is_a_kind_or_a_name_that_the_program_knows(project: Path, tmp_path: Path) -> None:
    run(project, "you")
    for name in ("llm", "Model", "prompt"):  # a kind, what was called, and a function that its code has
        assert clew.rerun("answer", mode="hybrid", allow=[name], stdout=subprocess.DEVNULL).holds
    with pytest.raises(ValueError, match="'promp' is no kind of call"):
        clew.rerun("answer", mode="hybrid", allow=["promp", "llm"])


def test_a_program_that_takes_too_long_is_ended(project: Path, tmp_path: Path) -> None:
    text = SCRIPT.replace(
        "import os, sys\n", "import os, sys, time\nif 'CLEW_REPLAY' in os.environ:\n    time.sleep(600)\n"
    )
    (project / "app.py").write_text(text)
    run(project, "you")
    with pytest.raises(ReplayTimeout):
        clew.rerun("answer", timeout_seconds=1)


def test_a_program_that_ends_early_has_no_certificate(project: Path) -> None:
    text = SCRIPT.replace("import os, sys\n", "import os, sys\nif 'CLEW_REPLAY' in os.environ:\n    os._exit(3)\n")
    (project / "app.py").write_text(text)
    run(project, "you")
    with pytest.raises(NotReplayable, match="status 3"):
        clew.rerun("answer")


def test_what_is_not_the_same_each_time_is_named(project: Path) -> None:
    text = SCRIPT.replace('Model().invoke("fixed")', 'Model().invoke(str({"a", "b", "c", "d", "e", "f"}))')
    (project / "app.py").write_text(text.replace("import os, sys", "import os, sys, time"))
    run(project, "you")
    found = examine("answer", stdout=subprocess.DEVNULL)
    assert [one.path for one in found.boundaries] == ["answer/Model"]
    assert not found.is_deterministic


def test_a_killed_replay_leaves_the_store_whole(project: Path, tmp_path: Path) -> None:
    text = SCRIPT.replace(
        "    run.output(",
        "    if 'CLEW_REPLAY' in os.environ:\n        print(os.getpid(), flush=True)\n        import time; time.sleep(60)\n    run.output(",
    )
    (project / "app.py").write_text(text)
    run(project, "you")
    replaying = subprocess.Popen(
        [sys.executable, "-m", "clew.cli", "replay", "answer"], cwd=project, stdout=subprocess.PIPE, text=True
    )
    assert replaying.stdout is not None
    os.kill(int(replaying.stdout.readline()), signal.SIGKILL)
    assert replaying.wait(60) == 1
    replaying.stdout.close()
    folder = Folder(tmp_path / "store")
    with Reader(folder.path) as reader:
        statuses = {one.status for one in reader.runs()}
        assert statuses == {"ok", "killed"}
    assert rebuild(folder) > 0
    index.forget(folder)
    (project / "app.py").write_text(SCRIPT)
    certificate, _ = again("answer", tmp_path, patch=clew.Code(str(project)))
    assert certificate.equal


@pytest.mark.skipif(not (BENCH / "planner_agent.py").exists(), reason=f"planner_agent.py is not in {BENCH}")
def test_every_case_of_the_planner(project: Path, tmp_path: Path) -> None:
    shutil.copy(PROGRAMS / "planned.py", project)
    (project / "changes.py").write_text("CHANGED = False\n")
    first = [json.loads(line) for line in run(project, str(BENCH), script="planned.py").splitlines()]
    assert len(first) == 32
    assert {live for *_, live in first} == {CALLS}
    with Reader(tmp_path / "store") as reader:
        of = reader.runs()[0].run_id
    strict, out = again(of, tmp_path)
    replayed = [json.loads(line) for line in out.splitlines()]
    assert strict.holds, strict
    assert [one[:3] for one in replayed] == [one[:3] for one in first]
    assert {live for *_, live in replayed} == {0}
    assert sum(strict.served.values()) == 32 * CALLS

    (project / "changes.py").write_text("CHANGED = True\n")
    changed = [json.loads(line) for line in run(project, str(BENCH), script="planned.py").splitlines()]
    hybrid, out = again(of, tmp_path, mode="hybrid", patch=clew.Code(str(project)))
    replayed = [json.loads(line) for line in out.splitlines()]
    expected = _expected()
    assert {(way, case): live for way, case, _, live in replayed} == {
        (way, case): expected[case] for way, case, *_ in replayed
    }
    assert len(hybrid.live) == 4 * sum(expected.values())
    told = {(way, case): answer for way, case, answer, _ in replayed if case != "clock"}
    assert told == {(way, case): answer for way, case, answer, _ in changed if case != "clock"}


def _expected() -> dict[str, int]:
    text = textwrap.dedent(
        """
        import json, sys
        sys.path.insert(0, sys.argv[1])
        import planner_agent
        print(json.dumps({case: live for case, (_, _, live) in planner_agent.EXPECTED.items()}))
        """
    )
    found = subprocess.check_output([sys.executable, "-c", text, str(BENCH)], text=True)
    return json.loads(found)  # type: ignore[no-any-return]
