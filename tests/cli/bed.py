"""A small store to run commands on: programs that are traced in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]

ANSWERS = """
import sys, clew
clew.init("docs-qa", store=sys.argv[1])
rows = [
    {"id": f"r{i}", "text": f"Paragraph {i} of the handbook, which says that {what} is due {i} days after it was asked for."}
    for i, what in enumerate(["leave", "a refund", "the travel report", "an invoice"])
]
handbook = clew.dataset("handbook", rows, text="text", key="id")
documents = list(handbook.documents())

@clew.trace("search", kind="retriever")
def search(question):
    return [document for document in documents if question in document.text]

@clew.trace("ask", kind="llm")
def ask(prompt):
    return "It says: " + prompt[-90:]

for question, session in (("a refund", "s-1"), ("an invoice", "s-2")):
    with clew.run("answer", session=session) as run:
        found = search(question)
        run.output(ask("Answer from this context alone:\\n" + "\\n".join(one.text for one in found)))

@clew.trace("divide", kind="tool")
def divide(number):
    return 1 / number

try:
    with clew.run("broken", session="s-3"):
        divide(0)
except ZeroDivisionError:
    pass
"""

PROMPTED = """
import sys, clew
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage, SystemMessage
clew.init("docs-qa", store=sys.argv[1])
clew.instrument()
with clew.run("answer"):
    for question in ("one", "two"):
        FakeListChatModel(responses=["x"]).invoke([SystemMessage("Be brief.\\nBe kind."), HumanMessage(question)])
"""

KILLED = """
import os, signal, sys, clew
clew.init("docs-qa", store=sys.argv[1])

@clew.trace("think", kind="llm")
def think(prompt):
    os.kill(os.getpid(), signal.SIGKILL)

with clew.run("doomed"):
    think("the input that must survive the death of its process")
"""

INTERRUPTED = """
import sys, clew
clew.init("docs-qa", store=sys.argv[1])
with clew.run("stopped"):
    raise KeyboardInterrupt
"""


def environment(**more: str) -> dict[str, str]:
    """Of a child that imports this checkout and has no store but the one it is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLEW_") and name != "COLUMNS"}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **more}


def program(source: str, store: Path) -> subprocess.CompletedProcess[str]:
    """Run a traced program in a folder of its own beside the store."""
    folder = store.parent / "program"
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text(source)
    return subprocess.run(
        [sys.executable, "main.py", str(store)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Server:
    """Runs commands in forks of a process that has imported them; see tests/cli/server.py."""

    def __init__(self, folder: Path) -> None:
        self.files = {"stdout": folder / "stdout", "stderr": folder / "stderr"}
        command = [sys.executable, "-m", "tests.cli.server"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, arguments: Sequence[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for file in self.files.values():
            file.write_bytes(b"")
        asked = {
            "arguments": arguments,
            "folder": str(cwd),
            "environment": environment(**variables),
            **{stream: str(file) for stream, file in self.files.items()},
        }
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        return subprocess.CompletedProcess(arguments, status, *(file.read_text() for file in self.files.values()))

    def close(self) -> None:
        self.process.communicate()


_servers: list[Server] = []


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[None]:
    """Have a server for all commands within."""
    _servers.append(Server(folder))
    try:
        yield
    finally:
        _servers.pop().close()


def clew(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own that has imported it already."""
    return _servers[-1].run(arguments, cwd or ROOT, **variables)


def started(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line as a user starts it: a new interpreter, which has imported nothing."""
    return subprocess.run(
        [sys.executable, "-m", "clew.cli", *arguments],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
