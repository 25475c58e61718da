"""The whole of it: build the index in one process, ask in a second, follow a docstring forwards in a third."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
QUESTIONS = (
    "How do I find the n largest elements of a list?",  # most of what was found is rejected
    "What does shutil.copytree do?",
    "What arguments does shutil.copytree take?",  # calls the tool
    "What is the greatest common divisor of two numbers?",  # searched again; math is C, without docstrings here
)


def step(title: str, script: str, *arguments: str) -> None:
    print(f"\n== {title}\n   python {script} {' '.join(map(repr, arguments))}\n", flush=True)
    subprocess.run([sys.executable, str(HERE / script), *arguments], check=True)


def main() -> None:
    started = time.perf_counter()
    step("1. Build the index", "build_index.py")
    step("2. Ask, and ask why", "agent.py", *QUESTIONS)
    step("3. Which answers used the docstring of shutil.copytree?", "impact.py", "shutil.copytree")
    print(f"\n{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
