"""A process that has imported the command line already, and forks one child for each command that a test asks for.

A fresh interpreter spends a second on imports; a fork of this one begins at `clew.cli.main`. Run it as a module: a line
of JSON on stdin asks for a command, a line on stdout tells the status that it ended with.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
from typing import Any

from clew.cli import main

IMPORTED = (
    "clew.cli.app",
    "clew.lineage.difference",
    "clew.lineage.health",
    "clew.lineage.impact",
    "clew.lineage.rebuild",
    "clew.lineage.why",
    "langchain_core.runnables.config",  # `clew doctor` looks into frameworks
    "langgraph._internal._runnable",
    "pydantic.types",
    "rich.console",
    "typer._adapters",
)


def commands() -> dict[str, Any] | None:
    """In the server: None, when nothing more is asked. In each child: the one command that it is to run."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            return json.loads(line)  # type: ignore[no-any-return]
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def run(arguments: list[str], folder: str, environment: dict[str, str], stdout: str, stderr: str) -> None:
    """Be that command, and end as it ends."""
    signal.alarm(120)
    for descriptor, path in enumerate((os.devnull, stdout, stderr)):
        os.dup2(os.open(path, os.O_WRONLY if descriptor else os.O_RDONLY), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["clew", *arguments]
    main()


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # nor is what was imported copied by a child's collections
    command = commands()
    if command is not None:
        run(**command)
