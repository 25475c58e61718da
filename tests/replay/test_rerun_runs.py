"""Which run of a program is which, when it is run again: several have one name, and they may begin in any order."""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.replay.test_rerun import SCRIPT, again, project, run  # noqa: F401

MODEL = SCRIPT[: SCRIPT.index("clew.init(")].replace("temperature: float = 0.0", "temperature: float = 1.0")
SEVERAL = MODEL + textwrap.dedent("""
    clew.init("script", record=True)
    clew.instrument()
    with clew.run("ask"):
        pass
    questions = ["one", "two", "three"]
    if os.environ.get("ORDER") == "another":
        questions.reverse()
    for question in questions:
        with clew.run("ask") as run:
            answer = Model().invoke(prompt(question)).content
            run.output(answer)
        print(question, answer, run.id, flush=True)
    with clew.run("empty") as run:
        if os.environ.get("ORDER") is None:
            run.output("nothing was asked")
    print("empty", "-", "-", run.id)
""")


def test_runs_of_one_name_are_told_by_what_they_ask(project: Path, tmp_path: Path) -> None:  # noqa: F811
    """Runs that are concurrent begin in another order each time; one that asks nothing counts as well."""
    (project / "several.py").write_text(SEVERAL)
    lines = [line.split() for line in run(project, script="several.py").splitlines() if not line.startswith("LIVE")]
    ids = {line[0]: line[-1] for line in lines}
    certificate, out = again(ids["two"], tmp_path, store=tmp_path / "store", variables={"ORDER": "another"})
    assert certificate.holds, str(certificate)
    assert certificate.answer == "re hello two"
    assert [line.split()[:-1] for line in out.splitlines()][:3] == [
        ["three", "re", "hello", "three"],
        ["two", "re", "hello", "two"],
        ["one", "re", "hello", "one"],
    ]


def test_a_run_that_the_program_did_not_come_to_was_not_reproduced(project: Path, tmp_path: Path) -> None:  # noqa: F811
    (project / "several.py").write_text(SEVERAL.replace("questions.reverse()", "questions.pop()"))
    lines = [line.split() for line in run(project, script="several.py").splitlines() if not line.startswith("LIVE")]
    ids = {line[0]: line[-1] for line in lines}
    certificate, _ = again(ids["three"], tmp_path, store=tmp_path / "store", variables={"ORDER": "another"})
    assert certificate.replay_id is None
    assert not certificate.holds
    assert certificate.notes[0].startswith("the program did not come to this run")
