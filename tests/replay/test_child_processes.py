"""A replay of a program that asks in child processes: their calls are not covered, and that is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import clew
from clew.replay.playback.descendant import NOT_COVERED

SCRIPT = """
import multiprocessing, sys
import clew
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from clew.store.errors import ReplayMiss

class Model(BaseChatModel):
    temperature: float = 1.0

    @property
    def _llm_type(self):
        return "model"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=AIMessage("re " + messages[-1].content))])

def work(text):
    start()
    try:
        with clew.run("part"):
            return Model().invoke(text).content
    except ReplayMiss:
        return "re " + text

def start():
    clew.init("parts", record=True)
    clew.instrument()

if __name__ == "__main__":
    start()
    with clew.run("whole") as run:
        Model().invoke("first")
        pool = multiprocessing.get_context(sys.argv[1]).Pool(1)
        run.output(pool.map(work, ["one", "two"]))
        pool.close()
        pool.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_a_child_process_asks_is_told_on_the_certificate(
    clean_tracing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setenv("CLEW_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PYTHONPATH", str(Path(clew.__file__).parents[1]))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "app.py").write_text(SCRIPT)
    subprocess.run([sys.executable, "app.py", method], cwd=folder, check=True, timeout=300)
    certificate = clew.rerun("whole", stdout=subprocess.DEVNULL)
    assert certificate.served == {"llm": 1}
    assert certificate.equal  # the program swallowed the misses of its children
    assert not certificate.holds
    assert [(one.name, one.refused) for one in certificate.live] == [("Model", True)]  # all after it is refused, too
    assert NOT_COVERED in certificate.live[0].why
    assert any(note.startswith("1 call of child processes") for note in certificate.notes)


def test_a_program_that_is_no_child_says_nothing_of_one(
    clean_tracing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was said in the process that started it, which may replay itself."""
    monkeypatch.setenv("CLEW_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PYTHONPATH", str(Path(clew.__file__).parents[1]))
    folder = tmp_path / "project"
    folder.mkdir()
    script = "import os\n" + SCRIPT.replace('"first"', 'os.environ["ASKED"]').replace('["one", "two"]', "[]")
    (folder / "app.py").write_text(script)
    monkeypatch.setenv("ASKED", "a")
    subprocess.run([sys.executable, "app.py", "fork"], cwd=folder, check=True, timeout=300)
    monkeypatch.setenv("ASKED", "b")
    monkeypatch.setenv("CLEW_REPLAY_PROCESS", "1")
    certificate = clew.rerun("whole", stdout=subprocess.DEVNULL)
    assert [NOT_COVERED in one.why for one in certificate.live] == [False]
    assert not any("child" in note for note in certificate.notes)
