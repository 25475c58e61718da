"""Record the agent of example 01, replay it without a network, then ask what another prompt would change, and change it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import clew

AGENT = Path(__file__).parents[1] / "01_why_this_answer"
BUILT = AGENT / "built" / "index.json"
QUESTION = "What arguments does shutil.copytree take?"
PROMPT = clew.Prompt("answer", "Answer the question with one sentence of the context, and name the passage.")


def step(title: str) -> None:
    print(f"\n== {title}\n", flush=True)


def agent(script: str, *arguments: str, **variables: str) -> None:
    """Run a program of example 01 as it is."""
    subprocess.run([sys.executable, str(AGENT / script), *arguments], check=True, env=os.environ | variables)


def rerun(run: str, **options: Any) -> Any:
    """The recorded program once more; what it prints itself is not shown."""
    certificate = clew.rerun(run, stdout=subprocess.DEVNULL, **options)
    print(certificate, flush=True)
    return certificate


def text(answer: Any) -> str:
    """The text of the last message of an answer."""
    messages = answer["messages"] if isinstance(answer, dict) else answer
    return str(messages[-1]["content"] if isinstance(messages, list) else messages)


def main() -> None:
    started = time.perf_counter()
    if not BUILT.exists():
        step("0. Build the index of example 01")
        agent("build_index.py", CLEW_DISABLED="1")

    step("1. Record: CLEW_RECORD=1 python agent.py")
    agent("agent.py", QUESTION, CLEW_RECORD="1")
    with clew.open() as store:
        run = next(one.run_id for one in store.runs() if one.replay_of is None)

    step("2. Replay it in another process, from its recorded code, with no network: clew replay RUN")
    certificate = rerun(run)
    assert certificate.holds, "nothing went live, and the answer is the recorded one"

    step("3. What would another prompt cost? clew replay RUN --mode plan --prompt answer=...")
    rerun(run, mode="plan", patch=PROMPT)

    step("4. Change it: only what the prompt touches goes live")
    certificate = rerun(run, mode="hybrid", patch=PROMPT)

    step("5. The answer that changed")
    print(f"before: {text(certificate.recorded_answer)}\nafter:  {text(certificate.answer)}\n")
    print(clew.diff(run, certificate.replay_id))
    print(f"\n{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
