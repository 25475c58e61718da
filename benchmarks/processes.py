"""Processes: eight of them write into one store at once, while a ninth asks it questions.

    python benchmarks/processes.py [--json] [--processes 8] [--spans 2000]

No span may be lost, nobody may see an error, and what the ninth counts never shrinks. Then the catalog is deleted and
made again from the logs: `why` must answer as before.
"""

from __future__ import annotations

import collections
import json
import sys
import time
from pathlib import Path
from typing import Any

from measure import Bar, Companion, Result, check, child, program, report, scratch

STEPS = 99  # in each run, beside its root


def processes(count: int, spans: int) -> Result:
    """Start everybody, let them write at once, then compare what they did with what the store holds."""
    runs = max(1, spans // (STEPS + 1))
    with scratch() as folder:
        store = folder / "store"
        alone = folder / "writer"  # a folder of its own: its code is one file
        alone.mkdir()
        script = alone / Path(__file__).name
        for file in (Path(__file__), Path(__file__).with_name("measure.py")):
            (alone / file.name).write_bytes(file.read_bytes())
        writers = [Companion(script, "--write", store, number, runs, folder=alone) for number in range(count)]
        asker = Companion(script, "--ask", store, folder=alone)
        started = time.perf_counter()
        for writer in writers:
            writer.say("go")
        faults = [json.loads(writer.hear()) for writer in writers]
        writing = time.perf_counter() - started
        for writer in writers:
            writer.end()
        asker.say("stop")
        asked = json.loads(asker.hear())
        asker.end()
        before = child(script, "--answers", store, count, folder=folder)
        rebuilding = time.perf_counter()
        child(script, "--rebuild", store, folder=folder)
        rebuilding = time.perf_counter() - rebuilding
        after = child(script, "--answers", store, count, folder=folder)
    check(
        set(before["spans"]) == {str(number) for number in range(count)},
        f"runs of {sorted(before['spans'])} are in the store",
    )
    lost = sum(runs * (STEPS + 1) - found for found in before["spans"].values())
    check(all(before["why"]), "why of a run leads nowhere")
    figures: dict[str, float | int] = {
        "processes": count,
        "spans": count * runs * (STEPS + 1),
        "lost": lost,
        "errors": sum(len(found) for found in faults) + len(asked["errors"]) + before["faults"],
        "questions": asked["questions"],
        "slowest_question_s": round(asked["slowest"], 2),
        "writing_s": round(writing, 2),
        "rebuild_s": round(rebuilding, 2),
        "answers_changed": sum(one != other for one, other in zip(before["why"], after["why"], strict=True))
        + (before["spans"] != after["spans"]),
    }
    check(asked["questions"] >= 2, "no question was asked while the others wrote")
    return Result(figures, {name: Bar(0) for name in ("lost", "errors", "answers_changed")})


def write(store: str, number: int, runs: int) -> list[str]:
    """One writer: runs of steps, each made from the one before and from a text that all writers share."""
    import clew

    clew.init(project="processes", store=store)
    print("ready", flush=True)
    sys.stdin.readline()

    @clew.trace("step")
    def step(text: str, at: int) -> str:
        return f"{text[-60:]} and step {at} of writer {number}, which everybody can read"

    errors = []
    for turn in range(runs):
        try:
            with clew.run(f"writer {number}") as run:
                text = f"writer {number} begins run {turn} with what all writers share"
                for at in range(STEPS):
                    text = step(text, at)
                run.output(text)
        except Exception as error:
            errors.append(repr(error))
        time.sleep(0.1)  # as programs wait for their models, so that the ninth process gets to ask more than once
    return errors


def ask(store: str) -> dict[str, Any]:
    """Ask until told to stop. What was counted once is never missing later."""
    import threading

    import clew

    stop = threading.Event()
    clew.open(store).runs()
    print("ready", flush=True)
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    questions, slowest, most, errors = 0, 0.0, 0, []
    last = False
    while not last:
        last = stop.is_set()  # the last question is asked after the last span
        started = time.perf_counter()
        try:
            reader = clew.open(store)
            spans = len(reader.spans())
            if spans < most:
                errors.append(f"{spans} spans after {most}")
            most = spans
            if any(run.status == "ok" for run in reader.runs(limit=1)):
                reader.why()
        except Exception as error:
            errors.append(repr(error))
        questions += 1
        slowest = max(slowest, time.perf_counter() - started)
    return {"questions": questions, "slowest": slowest, "errors": errors}


def answers(store: str, count: int) -> dict[str, Any]:
    """Spans by writer, faults that clew counted, and `why` of each writer's last run."""
    import clew
    from clew.store import catalog

    with clew.open(store) as reader:
        runs = {run.run_id: run.name.split()[-1] for run in reader.runs()}
        spans = collections.Counter(
            runs[span.run_id] for span in reader.spans() if span.status == "ok" and span.run_id in runs
        )
        lineages = [reader.why(f"writer {number}").to_dict() for number in range(count)]
        with reader.connection() as connection:
            faults = len(connection.execute(catalog.lost.select()).all())
    for lineage in lineages:
        lineage["edges"].sort(key=json.dumps)
    return {"spans": spans, "why": [one if len(one["nodes"]) > 1 else None for one in lineages], "faults": faults}


def rebuild(store: str) -> None:
    """Delete the catalog and make it again."""
    from clew.lineage.rebuild import rebuild
    from clew.store.folder import Folder

    for file in Path(store).glob("catalog.sqlite*"):
        file.unlink()
    rebuild(Folder(store))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--write", store, number, runs]:
            print(json.dumps(write(store, int(number), int(runs))))
        case ["--ask", store]:
            print(json.dumps(ask(store)))
        case ["--answers", store, count]:
            print(json.dumps(answers(store, int(count))))
        case ["--rebuild", store]:
            rebuild(store)
            print("{}")
        case _:
            options = program(
                __doc__, ("--processes", {"type": int, "default": 8}), ("--spans", {"type": int, "default": 2000})
            ).parse_args()
            sys.exit(report("processes", options.json, lambda: processes(options.processes, options.spans)))
