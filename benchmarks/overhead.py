"""Overhead: what tracing costs the reference agent, in wall time of the caller and in CPU of the whole process.

    python benchmarks/overhead.py [--json] [--rounds 5] [--runs 100] [--bench FOLDER]

Untraced and traced, sync and async, each in a process of its own; an untraced and a traced process take turns of a few
invocations, so that what else the machine does hits both alike. Imports, `init`, the one-off capture of code and
environment, and a warm-up stand outside the measurement for both. The CPU of a traced process ends when it has flushed,
counted 24 spans in every run, read an LLM call's messages back and asked `why` of the last run; threads in the
background are in it. A wall ratio is the larger of two: of the fastest invocations, and the median of what each traced
turn took to what the untraced one beside it took. (A processor that is shared runs at one of two speeds for milliseconds
at a time; the median of all invocations would say how often which of them had the faster one.)
"""

from __future__ import annotations

import asyncio
import collections
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

from measure import (
    ROOT,
    Bar,
    CheckFailed,
    Companion,
    Result,
    check,
    median,
    program,
    report,
    scratch,
    spending,
)

MODES = ("sync", "async")
SPANS = 24  # 23 LangChain runs, and the query's embedding
WARM_UP = 30
TURN = 4  # invocations
KINDS = ("untraced", "traced")


def overhead(bench: Path, rounds: int, runs: int) -> Result:
    """Run every variant `rounds` times and compare."""
    if not (bench / "reference_agent.py").is_file():
        raise CheckFailed(f"no reference_agent.py in {bench.absolute()}; --bench names the folder that holds it")
    seen: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for number in range(rounds):
        for mode in MODES:
            with scratch() as folder:
                pair = [
                    Companion(__file__, "--child", kind, mode, bench.absolute(), folder / "store", PAYLOAD="1000")
                    for kind in KINDS
                ]
                for turn in range(runs // TURN):
                    for companion in pair if (turn + number) % 2 else reversed(pair):
                        companion.say("go")
                        companion.hear()
                for kind, companion in zip(KINDS, pair, strict=True):
                    companion.say("end")
                    seen[f"{kind}-{mode}"].append(json.loads(companion.hear()))
                    companion.end()
    figures: dict[str, float | int] = {}
    for mode in MODES:
        plain, traced = seen[f"untraced-{mode}"], seen[f"traced-{mode}"]
        fastest = min(one["wall_min_us"] for one in traced) / min(one["wall_min_us"] for one in plain)
        middle = median(
            [
                ours / theirs
                for one, other in zip(traced, plain, strict=True)
                for ours, theirs in zip(one["turns_us"], other["turns_us"], strict=True)
            ]
        )
        figures |= {
            f"wall_ratio_{mode}": max(fastest, middle),
            f"wall_ratio_{mode}_min": fastest,
            f"wall_ratio_{mode}_median": middle,
            f"cpu_ratio_{mode}": median([one["cpu_us"] for one in traced]) / median([one["cpu_us"] for one in plain]),
        }
    plain, traced = seen["untraced-sync"], seen["traced-sync"]
    figures |= {
        "us_per_run": median([one["wall_median_us"] for one in traced]),
        "us_per_run_untraced": median([one["wall_median_us"] for one in plain]),
        "cpu_us_per_run": median([one["cpu_us"] for one in traced]),
        "cpu_us_per_run_untraced": median([one["cpu_us"] for one in plain]),
        "index_us_per_run": median([one["after_us"] for one in traced]),
    }
    bars = {f"wall_ratio_{mode}": Bar(1.6) for mode in MODES} | {f"cpu_ratio_{mode}": Bar(2.2) for mode in MODES}
    return Result({name: round(value, 3) for name, value in figures.items()}, bars)


def measured(kind: str, mode: str, bench: str, store: str) -> dict[str, Any]:
    """One process: warm up, invoke each time it is told to, and where it is traced, make sure that all is there."""
    sys.path.insert(0, bench)
    import reference_agent as agent

    traced = kind == "traced"
    if traced:
        import clew

        clew.init(project="overhead", store=store)
        clew.instrument()
    graph = agent.build(is_async=mode == "async")
    walls: list[int] = []

    def sync_runs(count: int) -> Any:
        for _ in range(count):
            given = agent.INP()
            started = time.perf_counter_ns()
            answer = graph.invoke(given)
            walls.append(time.perf_counter_ns() - started)
        return answer

    async def async_runs(count: int) -> Any:
        for _ in range(count):
            given = agent.INP()
            started = time.perf_counter_ns()
            answer = await graph.ainvoke(given)
            walls.append(time.perf_counter_ns() - started)
        return answer

    runner = asyncio.Runner()

    def invoke(count: int) -> Any:
        return runner.run(async_runs(count)) if mode == "async" else sync_runs(count)

    answer = invoke(WARM_UP)
    if traced:
        answerable(store, answer, agent.TXT, WARM_UP)
    walls.clear()
    gc.collect()  # of what was imported and warmed up
    with spending() as spent:
        print("ready", flush=True)
        while sys.stdin.readline().strip() == "go":
            answer = invoke(TURN)
            print("done", flush=True)
        with spending() as after:
            if traced:
                answerable(store, answer, agent.TXT, WARM_UP + len(walls))
    return {
        "wall_min_us": min(walls) / 1e3,
        "wall_median_us": median(walls) / 1e3,
        "turns_us": [sum(walls[at : at + TURN]) / 1e3 for at in range(0, len(walls), TURN)],
        "cpu_us": spent.cpu / len(walls) * 1e6,
        "after_us": after.cpu / len(walls) * 1e6,
    }


def answerable(store: str, answer: dict[str, Any], text: str, runs: int) -> None:
    """Everything is queryable: each run's spans, exact messages, and the lineage of the last answer."""
    import clew

    clew.flush()
    reader = clew.open(store)
    spans = reader.spans()
    counts = collections.Counter(span.trace_id for span in spans)
    check(len(counts) == runs, f"{len(counts)} traces in the store, {runs} runs were made")
    wrong = {count for count in counts.values() if count != SPANS}
    check(not wrong, f"runs of {sorted(wrong)} spans in the store, each should have {SPANS}")
    calls = [span for span in spans if span.kind == "llm" and span.path == "MainG/agent/fake-1"][-2:]
    messages = next(slot for slot in calls[-1].used if slot.role == "messages").value
    asked, called, result = "hi" + text, answer["messages"][0], answer["messages"][1]
    check(
        [one["content"] for one in messages] == [asked, "", "9"],
        f"the messages of an LLM call read back as {messages!r}"[:500],
    )
    check(
        messages[1]["id"] == called.id and messages[2]["tool_call_id"] == result.tool_call_id, "messages lost their ids"
    )
    lineage = clew.why(store=reader)
    check(bool(lineage.find("model")), "why of the last run names no model")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measured(*sys.argv[2:])))
        sys.exit()
    options = program(
        __doc__,
        ("--rounds", {"type": int, "default": 5}),
        ("--runs", {"type": int, "default": 100}),
        (
            "--bench",
            {"type": Path, "default": ROOT.parent / "shared" / "bench", "help": "folder of reference_agent.py"},
        ),
    ).parse_args()
    sys.exit(report("overhead", options.json, lambda: overhead(options.bench, options.rounds, options.runs)))
