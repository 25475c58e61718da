"""Every command on a real store, in a process of its own as a user runs it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cli import bed
from tests.cli.bed import ROOT, clew, environment, started


def asked(*arguments: str, store: Path) -> Any:
    finished = clew(*arguments, "--json", "--store", str(store))
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)  # and nothing but JSON is there


def told(*arguments: str, store: Path) -> str:
    finished = clew(*arguments, "--store", str(store))
    assert finished.returncode == 0, finished.stderr
    assert "\x1b" not in finished.stdout
    return finished.stdout


def test_runs_are_a_list_newest_first(store: Path) -> None:
    runs = asked("runs", store=store)
    assert [run["name"] for run in runs] == ["broken", "answer", "answer"]
    assert [run["status"] for run in runs] == ["error", "ok", "ok"]
    assert [run["session"] for run in runs] == ["s-3", "s-2", "s-1"]
    for run in runs:
        assert len(run["run_id"]) == 32
        assert run["started_ns"] > 1e18
        assert run["duration_ns"] > 0


@pytest.mark.parametrize(
    "command",
    ["why answer", "impact handbook", "runs", "show broken", "refs", "doctor --verify", "cache stats", "gc --expired"],
)
def test_a_new_interpreter_says_what_one_says_that_has_imported_all(store: Path, command: str) -> None:
    """All other tests ask a process that has; see tests/cli/server.py."""
    arguments = [*command.split(), "--store", str(store)]
    clew(*arguments)  # what is new in the logs is indexed
    told = started(*arguments)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == clew(*arguments).stdout


def test_runs_with_all_holds_the_process_run(store: Path) -> None:
    processes = [run for run in asked("runs", "--all", store=store) if run["process"]]
    assert [run["name"] for run in processes] == ["main.py"]


def test_runs_of_a_session_and_a_limit(store: Path) -> None:
    assert [run["session"] for run in asked("runs", "--session", "s-1", store=store)] == ["s-1"]
    assert len(asked("runs", "--limit", "2", store=store)) == 2


def test_runs_of_a_status_and_of_a_name(store: Path) -> None:
    assert [run["name"] for run in asked("runs", "--status", "error", store=store)] == ["broken"]
    assert len(asked("runs", "--name", "answer", "--status", "ok", store=store)) == 2
    assert told("runs", "--name", "nobody", "--status", "ok", store=store).startswith(
        "no runs of name 'nobody' of status 'ok' in "
    )
    refused = clew("runs", "--status", "failed", "--store", str(store))
    assert refused.returncode == 2
    assert "'failed' is no status of a run; there are ok, error, " in refused.stderr


def test_runs_of_a_project_and_since(store: Path) -> None:
    names = ["broken", "answer", "answer"]
    assert [run["name"] for run in asked("runs", "--project", "docs-qa", store=store)] == names
    assert asked("runs", "--project", "docs", store=store) == []
    assert [run["name"] for run in asked("runs", "--since", "2d", store=store)] == names
    middle = asked("runs", store=store)[1]["started_ns"] // 1000 / 1e6
    for said in (
        datetime.fromtimestamp(middle).isoformat(),  # local
        datetime.fromtimestamp(middle, UTC).isoformat(),
    ):
        assert [run["name"] for run in asked("runs", "--since", said, store=store)] == names[:2]
    assert asked("runs", "--since", "2999-01-01", store=store) == []
    assert told("runs", "--since", "2999-01-01", store=store).startswith("no runs since 2999-01-01 00:00:00 in ")
    refused = clew("runs", "--since", "yesterday", "--store", str(store))
    assert refused.returncode == 2
    assert "'yesterday' is no age (2h, 3d, 1w) and no ISO time" in " ".join(refused.stderr.split())


def test_runs_that_used_everything_named(store: Path) -> None:
    used = asked("runs", "--used", "dataset/handbook@1[1]", store=store)
    assert [run["session"] for run in used] == ["s-1"]
    both = asked("runs", "--used", "dataset/handbook@1[1]", "--used", "dataset/handbook@1[3]", store=store)
    assert both == []
    assert "no runs that used all of these" in told("runs", "--used", "dataset/handbook@1[0]", store=store)


def test_runs_as_text_shows_whole_ids(store: Path) -> None:
    ids = [run["run_id"] for run in asked("runs", store=store)]
    text = told("runs", store=store)
    assert [line.split()[0] for line in text.splitlines()[1:]] == ids


@pytest.mark.parametrize("width", [80, 200])
def test_runs_in_a_terminal_tell_how_each_ended(store: Path, width: int) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    with open(ours, "rb", buffering=0) as terminal:
        command = [sys.executable, "-m", "clew.cli", "runs", "--store", str(store)]
        started = subprocess.Popen(command, stdout=theirs, env=environment(NO_COLOR="1", TERM="xterm"), cwd=ROOT)
        os.close(theirs)
        text = b""
        with contextlib.suppress(OSError):  # Linux tells the end of a terminal so
            while read := terminal.read(65536):
                text += read
        assert started.wait(timeout=120) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).splitlines()
    assert max(map(len, lines)) <= width
    rows = [line.split() for line in lines[1:]]
    assert [row[5] for row in rows] == ["error", "ok", "ok"]
    assert [row[6] for row in rows] == ["broken", "answer", "answer"]
    assert [row[7] for row in rows] == ["s-3", "s-2", "s-1"]
    for row, run in zip(rows, asked("runs", store=store), strict=True):
        assert run["run_id"].startswith(row[0])
        assert len(row[0]) >= 16


def test_why_leads_from_an_answer_to_its_row(store: Path) -> None:
    run = asked("runs", "--session", "s-1", store=store)[0]["run_id"]
    graph = asked("why", run, store=store)
    assert graph["schema"] == "clew/1"
    assert graph["root"] == run
    rows = [node["name"] for node in graph["nodes"].values() if node["kind"] == "row" and node["role"] == "lineage"]
    assert rows == ["dataset/handbook@1[1]"]
    assert "dataset/handbook@1[1]" in told("why", run, store=store)


def test_why_without_a_name_is_the_last_run(store: Path) -> None:
    assert asked("why", store=store)["root"] == asked("runs", store=store)[0]["run_id"]


def test_why_an_output_that_was_not_written_says_which_were(store: Path) -> None:
    finished = clew("why", "answer", "--output", "nonsense", "--store", str(store))
    assert finished.returncode == 1
    assert "wrote no output 'nonsense'; it wrote" in finished.stderr


def test_impact_leads_from_a_row_to_the_answer_that_used_it(store: Path) -> None:
    run = asked("runs", "--session", "s-2", store=store)[0]["run_id"]
    graph = asked("impact", "dataset/handbook@1[3]", store=store)
    assert [name for name, node in graph["nodes"].items() if node["kind"] == "workflow"] == [run]
    assert run in told("impact", "dataset/handbook@1[3]", store=store)


def test_a_row_goes_by_its_position_or_by_a_text_that_it_alone_holds(store: Path) -> None:
    wanted = asked("impact", "dataset/handbook@1[3]", store=store)
    for name in ("dataset/handbook@1[r3]", "handbook[r3]", "dataset/handbook[3]"):
        assert asked("impact", name, store=store)["nodes"].keys() == wanted["nodes"].keys()
    for name in ("dataset/handbook[r4]", "dataset/handbook[4]", "dataset/handbook[\u0664]"):
        finished = clew("impact", name, "--store", str(store))
        assert finished.returncode == 1
        assert "dataset/handbook has no row" in finished.stderr


def test_a_text_of_several_rows_names_none(tmp_path: Path) -> None:
    code = """
import clew
clew.init("p", store=STORE)
clew.dataset("d", [{"id": f"r{n}", "topic": "x" if n < 2 else "y"} for n in range(20)])
clew.shutdown()
"""
    store = tmp_path / "store"
    assert bed.program(f"STORE = {str(store)!r}" + code, store).returncode == 0
    told = {text: clew("impact", f"d[{text}]", "--store", str(store)).stderr for text in ("x", "y")}
    assert "'x' stands in several rows: d[0], d[1]" in told["x"]
    assert "d[2]" in told["y"]
    assert "and more" in told["y"]


def test_impact_goes_on_where_a_page_ended(store: Path) -> None:
    first = asked("impact", "dataset/handbook@1", "--limit", "1", store=store)
    assert first["complete"] is False
    second = asked("impact", "dataset/handbook@1", "--limit", "1", "--after", first["next"], store=store)
    runs = [name for page in (first, second) for name, node in page["nodes"].items() if node["kind"] == "workflow"]
    assert runs == [run["run_id"] for run in asked("runs", store=store) if run["name"] == "answer"]
    assert second["complete"] is True


def test_a_cursor_that_is_none_is_wrong_usage(store: Path) -> None:
    finished = clew("impact", "dataset/handbook", "--after", "nonsense", "--store", str(store))
    assert finished.returncode == 2
    assert "no cursor" in finished.stderr


def test_show_a_run_is_its_spans_as_a_tree(store: Path) -> None:
    run = asked("runs", "--session", "s-1", store=store)[0]
    shown = asked("show", run["run_id"], store=store)
    assert shown["schema"] == "clew/1"
    assert shown["run"] == run
    assert [(span["kind"], span["name"]) for span in shown["spans"]] == [
        ("workflow", "answer"),
        ("retriever", "search"),
        ("llm", "ask"),
    ]
    lines = told("show", run["run_id"], store=store).splitlines()
    assert lines[0].startswith("answer  ok")
    assert [line.split()[1] for line in lines[3:]] == ["retriever", "llm"]


def test_show_a_failed_run_names_the_error(store: Path) -> None:
    assert "ZeroDivisionError: division by zero" in told("show", "broken", store=store)


def test_show_a_span_with_content_has_its_values(store: Path) -> None:
    run = asked("runs", "--session", "s-1", store=store)[0]["run_id"]
    span = asked("show", run, store=store)["spans"][2]["span_id"]
    shown = asked("show", span, "--content", store=store)["span"]
    assert shown["span_id"] == span
    assert shown["used"][0]["value"].startswith("Answer from this context alone:\nParagraph 1")
    assert shown["generated"][0]["value"].startswith("It says: ")
    assert "value" not in asked("show", span, store=store)["span"]["used"][0]
    text = told("show", span, "--content", store=store)
    assert "Answer from this context alone:\nParagraph 1 of the handbook" in text
    assert "gen_ai.operation.name = chat" in text


def test_show_the_prompts_of_a_run(tmp_path: Path) -> None:
    made = bed.program(bed.PROMPTED, tmp_path / "store")
    assert made.returncode == 0, made.stderr
    found = asked("show", "answer", "--prompts", store=tmp_path / "store")["prompts"]
    assert [(one["name"], one["kind"], one["calls"]) for one in found] == [("answer", "system message", 2)]
    assert found[0]["messages"] == [["system", "Be brief.\nBe kind."]]
    assert found[0]["where"] == ["answer/FakeListChatModel"]
    text = told("show", "answer", "--prompts", store=tmp_path / "store")
    assert text.splitlines()[0].startswith("answer  system message  2 calls  b3:")
    assert text.splitlines()[0].endswith("  Be brief. Be kind.")
    assert "Be brief.\nBe kind." in told("show", "answer", "--prompts", "--content", store=tmp_path / "store")
    span = asked("show", "answer", store=tmp_path / "store")["spans"][0]["span_id"]
    refused = clew("show", span, "--prompts", "--store", str(tmp_path / "store"))
    assert refused.returncode == 1
    assert "prompts are a run's, and this is a span" in refused.stderr


def test_show_an_artifact_is_what_is_known_of_it(store: Path) -> None:
    shown = asked("show", "dataset/handbook@1[2]", "--content", store=store)["artifact"]
    assert shown["kind"] == "row"
    assert shown["value"]["id"] == "r2"


LONG_NUMBERS = """
import sys, clew
clew.init("docs-qa", store=sys.argv[1])
rows = [{"size": 10**5000, "text": f"Paragraph {i} of the handbook, which says what is due."} for i in range(2)]
documents = list(clew.dataset("numbers", rows, text="text").documents())
documents.append(clew.Document(documents[1].text, {"size": 10**5000}))

@clew.trace("search", kind="retriever")
def search(number):
    return documents

with clew.run("long") as run:
    run.output(search(10**5000)[0].text)
    run.output(10**5000, "number")
    run.output({10**5000: (10**5000,)}, "pair")
print(len(clew.why(run)._repr_html_()))
"""


def test_a_number_of_more_digits_than_python_prints_is_shown_in_hexadecimal(store: Path) -> None:
    finished = bed.program(LONG_NUMBERS, store)
    assert finished.returncode == 0, finished.stderr
    outputs = asked("show", "long", "--content", store=store)["spans"][0]["generated"]
    number = {"int": hex(10**5000)}
    assert [output["value"] for output in outputs[1:]] == [number, {"items": [[number, [number]]]}]
    assert hex(10**5000)[:1000] in told("show", "long", "--content", store=store)
    assert f"“{hex(10**5000)[:40]}”" in told("why", "long", store=store)
    rows = [node for node in asked("why", "long", store=store)["nodes"].values() if node["kind"] == "row"]
    assert rows[0]["detail"]["fields"]["size"] == hex(10**5000)


def test_a_killed_run_is_shown_with_its_input(store: Path) -> None:
    assert bed.program(bed.KILLED, store).returncode == -9
    run = asked("runs", store=store)[0]
    assert (run["name"], run["status"], run["duration_ns"]) == ("doomed", "killed", None)
    text = told("show", "doomed", store=store)
    assert "llm think  killed" in text
    assert "the input that must survive the death of its process" in text
    spans = asked("show", "doomed", "--content", store=store)["spans"]
    assert [span["status"] for span in spans] == ["killed", "killed"]
    assert spans[1]["used"][0]["value"] == "the input that must survive the death of its process"


def test_refs_and_their_history(store: Path) -> None:
    refs = asked("refs", store=store)
    assert [(ref["name"], ref["version"], ref["kind"]) for ref in refs] == [("dataset/handbook", 1, "dataset")]
    again = "import sys, clew; clew.init('docs-qa', store=sys.argv[1]); clew.dataset('handbook', [{'text': 'new'}])"
    assert bed.program(again, store).returncode == 0
    assert [ref["version"] for ref in asked("refs", store=store)] == [2]
    for name in ("dataset/handbook", "handbook", "handbook@1"):
        assert [ref["version"] for ref in asked("refs", name, store=store)] == [1, 2]
    assert "dataset/handbook@2" in told("refs", store=store)


@pytest.mark.parametrize("command", ["why", "impact", "show", "refs"])
def test_a_name_that_nothing_has_is_one_line_and_no_traceback(store: Path, command: str) -> None:
    finished = clew(command, "dataset/hendbook", "--store", str(store))
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert finished.stderr.count("\n") == 1
    assert finished.stderr.startswith("clew: ")
    assert "'dataset/hendbook'" in finished.stderr
    assert "dataset/handbook" in finished.stderr or "`clew refs`" in finished.stderr


def test_the_store_is_named_by_option_variable_or_folder(store: Path, tmp_path: Path) -> None:
    expected = clew("runs", "--json", "--store", str(store)).stdout
    assert clew("runs", "--json", CLEW_STORE=str(store)).stdout == expected
    (tmp_path / "work").mkdir()
    store.rename(tmp_path / "work" / ".clew")
    assert clew("runs", "--json", cwd=tmp_path / "work").stdout == expected


def test_a_folder_without_a_store_is_told_in_one_line(tmp_path: Path) -> None:
    finished = clew("runs", "--store", str(tmp_path / "nothing"))
    assert finished.returncode == 1
    assert finished.stderr.startswith(f"clew: no clew store at {tmp_path / 'nothing'}")
    assert not (tmp_path / "nothing").exists()


def test_wrong_usage_ends_with_2() -> None:
    for arguments in (["runs", "--nonsense"], ["nonsense"], ["impact"], ["gc"], ["gc", "--older-than", "soon"]):
        assert clew(*arguments).returncode == 2


def test_version() -> None:
    assert started("--version").stdout == started("version").stdout == "clew 0.1.0\n"


def test_help_names_every_command() -> None:
    text = clew("--help").stdout
    for command in ("why", "impact", "runs", "show", "refs", "doctor", "gc", "version"):
        assert f"\n  {command} " in text
        assert "--json" in clew(command, "--help").stdout or command == "version"


def test_a_reader_that_goes_away_is_no_error(store: Path) -> None:
    shell = f"{sys.executable} -m clew.cli show --content --json --store {store} | true; exit ${{PIPESTATUS[0]}}"
    finished = subprocess.run(
        ["bash", "-c", shell],
        cwd=bed.ROOT,
        env=bed.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.stderr == ""
    assert finished.returncode in (0, 1)


def test_output_that_the_shell_closed_is_no_error(store: Path) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m clew.cli runs --store {shlex.quote(str(store))} >&-"
    finished = subprocess.run(
        ["sh", "-c", command], env=bed.environment(), cwd=bed.ROOT, capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stderr) == (0, "")


def test_an_age_of_any_length_is_one(store: Path) -> None:
    found = clew("gc", "--older-than", "9" * 400 + "w", "--dry-run", "--store", str(store))
    assert (found.returncode, found.stderr) == (0, "")


def test_output_survives_a_terminal_that_knows_only_ascii(store: Path) -> None:
    finished = started("why", "answer", "--store", str(store), PYTHONIOENCODING="ascii")
    assert finished.returncode == 0, finished.stderr
    assert "dataset/handbook@1" in finished.stdout


def test_values_that_json_lacks_are_named_by_their_type(store: Path) -> None:
    source = """
import sys, clew
clew.init("docs-qa", store=sys.argv[1])
with clew.run("odd") as run:
    run.output({"nan": float("nan"), "set": {1, 2}, "bytes": b"ab", "pair": (1, 2), "key": {1: 2}, "lone": "\\ud800"})
"""
    assert bed.program(source, store).returncode == 0
    value = asked("show", "odd", "--content", store=store)["spans"][0]["generated"][0]["value"]
    assert value == {
        "nan": {"float": "nan"},
        "set": {"set": [1, 2]},
        "bytes": {"base64": "YWI="},
        "pair": [1, 2],
        "key": {"items": [[1, 2]]},
        "lone": "\ud800",
    }


def test_the_module_is_the_program() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "clew", "--version"], env=environment(), capture_output=True, text=True, check=False
    )
    assert (told.returncode, told.stdout) == (0, "clew 0.1.0\n")


def test_no_line_of_the_help_is_cut() -> None:
    assert not [line for line in clew("--help").stdout.splitlines()[1:] if line.endswith("...")]


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "(found a file)" in clew("runs", "--store", str(tmp_path / "file")).stderr


def test_an_error_without_a_text_is_its_type(tmp_path: Path) -> None:
    bed.program(bed.INTERRUPTED, tmp_path / "store")
    line = told("show", "stopped", store=tmp_path / "store").splitlines()[2]
    assert "  KeyboardInterrupt  " in line


def test_one_segment_is_one(tmp_path: Path) -> None:
    bed.program(bed.INTERRUPTED, tmp_path / "store")
    assert "log         1 segment, " in told("doctor", store=tmp_path / "store")
