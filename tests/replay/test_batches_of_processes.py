"""Batches of several processes: each text is embedded once by one of them, and nobody waits for ever."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from clew.replay.flight import KeyLocks
from tests.replay.flight.bed import BACKSTOP
from tests.replay.flight.programs import said, tell

HEAD = """
import os, sys, threading, time
import clew
from langchain_core.embeddings import Embeddings

def say(word):
    print(word, flush=True)

def hear():
    return sys.stdin.readline().strip()

class Vectors(Embeddings):
    def embed_documents(self, texts):
        with open("embedded", "a") as file:
            file.write("".join(f"{text}\\n" for text in texts))
        if os.environ.get("WAITS"):
            say("asks")
            hear()
        return [[float(len(text))] for text in texts]

    def embed_query(self, text):
        return self.embed_documents([text])[0]

clew.init(store="store", cache=True)
clew.instrument()
model = Vectors()
"""


class Run(Protocol):
    """Starts a program; with `waits` its model says when it is asked, and answers when it is told."""

    def __call__(self, body: str, *, waits: bool = False) -> subprocess.Popen[str]: ...


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    running: list[subprocess.Popen[str]] = []

    def run(body: str, *, waits: bool = False) -> subprocess.Popen[str]:
        root = str(Path(__file__).parents[2])
        process = subprocess.Popen(
            [sys.executable, "-c", HEAD + body],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": root, "HOME": str(tmp_path), "WAITS": "1" if waits else ""},
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate(timeout=BACKSTOP)


def embedded(folder: Path) -> Counter[str]:
    return Counter((folder / "embedded").read_text().splitlines())


ASKS = 'say(sum(vector[0] for vector in model.embed_documents([f"text {n}" for n in range(%s)])))'


def test_what_another_process_asks_for_is_waited_for_and_the_rest_is_asked(run: Run, tmp_path: Path) -> None:
    first = run(ASKS % "10", waits=True)
    assert said(first) == "asks"
    second = run(ASKS % "5, 15", waits=True)
    assert said(second) == "asks"  # for 10 to 14, at once
    tell(second)
    third = run(ASKS % "7", waits=True)
    tell(first)
    assert said(first) == "60.0"
    assert said(second) == "65.0"
    assert said(third) == "42.0"
    assert embedded(tmp_path) == dict.fromkeys([f"text {n}" for n in range(15)], 1)


def test_where_the_one_that_asked_is_killed_the_next_one_asks(run: Run, tmp_path: Path) -> None:
    first = run(ASKS % "3", waits=True)
    assert said(first) == "asks"
    others = [run('say("up")\n' + ASKS % "3") for _ in range(2)]
    assert [said(other) for other in others] == ["up"] * 2
    first.send_signal(signal.SIGKILL)
    assert [said(other) for other in others] == ["18.0"] * 2
    assert set(embedded(tmp_path).values()) == {2}  # by who was killed, and by one of those that waited


def test_batches_that_overlap_in_other_orders_end(run: Run, tmp_path: Path) -> None:
    body = """
say("up")
hear()
def ask(part):
    texts = [f"text {n % 60}" for n in part]
    vectors = model.embed_documents(texts)
    assert vectors == [[float(len(text))] for text in texts]
parts = [range(0, 40), range(59, 20, -1), range(50, 70), range(0, 60, 3)]
threads = [threading.Thread(target=ask, args=(part,)) for part in parts]
for thread in threads: thread.start()
for thread in threads: thread.join()
say("done")
"""
    processes = [run(body) for _ in range(3)]
    assert [said(process) for process in processes] == ["up"] * 3
    for process in processes:
        tell(process)
    assert [said(process) for process in processes] == ["done"] * 3
    assert embedded(tmp_path) == dict.fromkeys([f"text {n}" for n in range(60)], 1)


def test_a_task_waits_for_another_process_and_its_event_loop_goes_on(run: Run, tmp_path: Path) -> None:
    first = run(ASKS % "3", waits=True)
    assert said(first) == "asks"
    second = run("""
import asyncio
async def main():
    asked = asyncio.create_task(model.aembed_documents(["text 0", "text 1"]))
    await asyncio.sleep(0.05)
    say("goes on" if not asked.done() else "done")
    return await asked
say(asyncio.run(main()))
""")
    assert said(second) == "goes on"
    tell(first)
    assert said(second) == "[[6.0], [6.0]]"
    assert set(embedded(tmp_path).values()) == {1}


def test_a_forked_child_holds_nothing_of_its_parent(run: Run, tmp_path: Path) -> None:
    process = run("""
model.embed_documents(["first"])
class Forking(Vectors):
    def embed_documents(self, texts):
        child = os.fork()
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        return super().embed_documents(texts)
say("up")
Forking().embed_documents(["a", "b"])
child = os.fork()
if child == 0:
    say(model.embed_documents(["c"]))
    os._exit(0)
os.waitpid(child, 0)
say(model.embed_documents(["c"]))
""")
    assert [said(process) for _ in range(3)] == ["up", "[[1.0]]", "[[1.0]]"]
    assert embedded(tmp_path)["c"] == 1


# -- the locks


def test_a_folder_that_cannot_be_used_is_told_once_and_all_is_free(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    faults: list[OSError] = []
    locks = KeyLocks(tmp_path / "file" / "folder", faults.append)
    keys = [bytes([number]) * 32 for number in range(40)]
    assert locks.take(keys) == keys
    assert locks.is_free(keys[0])
    locks.let_go(keys)
    assert len(faults) == 1


def test_what_is_too_much_to_lock_is_asked_for_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clew.replay.flight.keylock.MOST", 3)
    keys = [bytes([number]) * 32 for number in range(10)]
    locks = KeyLocks(tmp_path, pytest.fail)
    assert locks.take(keys) == keys
    body = """
import sys
from pathlib import Path
from clew.replay.flight import KeyLocks
taken = KeyLocks(Path(sys.argv[1]), print).take([bytes([number]) * 32 for number in range(10)])
print([key[0] for key in taken])
"""
    other = [sys.executable, "-c", body, str(tmp_path)]
    root = Path(__file__).parents[2]
    taken = subprocess.run(other, capture_output=True, text=True, cwd=root, timeout=BACKSTOP, check=True).stdout
    assert taken.strip() == "[3, 4, 5, 6, 7, 8, 9]"
    locks.let_go(keys)
    taken = subprocess.run(other, capture_output=True, text=True, cwd=root, timeout=BACKSTOP, check=True).stdout
    assert taken.strip() == "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"


def test_threads_that_open_one_file_at_once_have_one(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path, pytest.fail)
    barrier = threading.Barrier(8)

    def take() -> None:
        barrier.wait(BACKSTOP)
        locks.take([bytes(32)])

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["keys-0.lock"]
    assert len(locks._files) == 1
