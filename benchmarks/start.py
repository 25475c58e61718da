"""Start: CPU of `import clew`, of `clew.init` and of the capture of code and environment, and what an install weighs.

    python benchmarks/start.py [--json] [--times 7] [--install]

Each time in a new process with warm files, in a project of one file in a folder of its own; the fastest counts, because
other programs only ever add. `--install` makes a virtual environment with the core alone, which needs a package index.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

from measure import ROOT, Bar, Result, child, program, report, scratch, spending

PROGRAM = """import json, sys, time

modules = set(sys.modules)
started = time.process_time()
import clew
imported = time.process_time()
loaded = len(set(sys.modules) - modules)
clew.callback  # what a program's first lines need
clew.run
traced = time.process_time()
tracer = clew.init(project="start", store=sys.argv[1])
begun = time.thread_time(), time.process_time()
tracer.process.wait()
print(json.dumps({
    "import_ms": (imported - started) * 1e3,
    "import_tracer_ms": (traced - imported) * 1e3,
    "init_ms": (begun[1] - traced) * 1e3,
    "capture_ms": sum(tracer.process.seconds.values()) * 1e3,
    "modules": loaded,
}))
"""


def start(times: int, install: bool) -> Result:
    """Start a program `times` times."""
    with scratch() as folder:
        path = folder / "project" / "program.py"
        path.parent.mkdir()
        path.write_text(PROGRAM)
        seen = [child(path, folder / f"store{number}", folder=path.parent) for number in range(times + 1)][1:]
        figures: dict[str, float | int] = {
            "import_cpu_s": round(min(one["import_ms"] for one in seen) / 1e3, 4),
            "import_modules": seen[0]["modules"],
            "import_tracer_cpu_s": round(min(one["import_tracer_ms"] for one in seen) / 1e3, 4),
            "init_cpu_s": round(min(one["init_ms"] for one in seen) / 1e3, 4),
            "capture_cpu_s": round(min(one["capture_ms"] for one in seen) / 1e3, 4),
        }
        bars = {"import_cpu_s": Bar(0.2)}
        if install:
            with spending() as spent:
                figures["install_mb"] = round(installed_bytes(folder / "venv") / 1e6, 1)
            figures["install_s"] = round(spent.wall, 1)
            bars["install_mb"] = Bar(75)
    return Result(figures, bars)


def installed_bytes(folder: Path) -> int:
    """Bytes that installing the core adds to an empty environment, `__pycache__` left out."""
    venv.create(folder, with_pip=True)
    before = size_bytes(folder)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", str(ROOT)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return size_bytes(folder) - before


def size_bytes(folder: Path) -> int:
    """Bytes of all files below a folder, without caches of bytecode."""
    return sum(
        os.lstat(os.path.join(root, name)).st_size
        for root, _, names in os.walk(folder)
        if "__pycache__" not in root
        for name in names
    )


if __name__ == "__main__":
    options = program(
        __doc__,
        ("--times", {"type": int, "default": 7}),
        ("--install", {"action": "store_true", "help": "also install the core alone and weigh it"}),
    ).parse_args()
    sys.exit(report("start", options.json, lambda: start(options.times, options.install)))
