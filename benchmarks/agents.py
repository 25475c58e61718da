"""The reference agent cached and recorded: what that costs over the same agent traced, and untraced.

One of each kind, sync and async, each in a process of its own; they take turns of a few invocations, as in overhead.py. A
wall ratio is the larger of two: of the fastest invocations, and the median of what a turn took to what the other
one's turn beside it took. Imports, `init` and a warm-up stand outside the measurement.

* `hits_wall_ratio_*`: every model, tool and retriever call a hit, over untraced.
* `record_wall_ratio_*`: `clew.init(record=True)` and nothing cached, over traced without it; `recorded_wall_ratio_*`: over
  untraced. `record_cpu_ratio_*`: CPU of the whole process in the turns, with what it indexes beside them, over traced.
* `recorded_bytes`, `traced_bytes`: what a run adds to the log, before it is sealed. Each text is in it already from the
  first run.
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

from measure import CheckFailed, Companion, check, cpu_seconds, median, scratch

MODES = ("sync", "async")
KINDS = ("untraced", "traced", "recorded", "hits")
WARM_UP, TURN = 30, 4
ASKED = 7  # calls of a run that can be hits: five of models, a tool, a retriever
ANSWERS = ASKED + 1  # that a recording keeps: of the embedding of the query, too
OVER = {"hits": ("hits", "untraced"), "record": ("recorded", "traced"), "recorded": ("recorded", "untraced")}


def agents(bench: Path, rounds: int, runs: int) -> dict[str, float]:
    """All kinds, in turns."""
    if not (bench / "reference_agent.py").is_file():
        raise CheckFailed(f"no reference_agent.py in {bench.absolute()}; --bench names the folder that holds it")
    figures: dict[str, float] = {}
    for mode in MODES:
        seen = measured(bench, mode, rounds, runs)
        for name, (ours, theirs) in OVER.items():
            figures |= wall_ratio(f"{name}_wall_ratio_{mode}", seen[ours], seen[theirs])
        figures[f"record_cpu_ratio_{mode}"] = paired(seen["recorded"], seen["traced"], "turns_cpu_us")
    for kind in ("traced", "recorded"):
        figures[f"{kind}_bytes"] = median([one["bytes"] for one in seen[kind]])
    return figures


def measured(bench: Path, mode: str, rounds: int, runs: int) -> dict[str, list[dict[str, Any]]]:
    """What one of each kind tells, for each round."""
    seen: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for _ in range(rounds):
        with scratch() as folder:
            everybody = [
                Companion(__file__, kind, mode, bench.absolute(), folder / kind, PAYLOAD="1000") for kind in KINDS
            ]
            for turn in range(runs // TURN):
                for one in everybody if turn % 2 else reversed(everybody):
                    one.say("go")
                    one.hear()
            for kind, one in zip(KINDS, everybody, strict=True):
                one.say("end")
                seen[kind].append(json.loads(one.hear()))
                one.end()
    return seen


def wall_ratio(name: str, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, float]:
    """The ratio of the fastest invocations, the median of paired turns, and the larger of the two."""
    fastest = min(one["wall_min_us"] for one in ours) / min(one["wall_min_us"] for one in theirs)
    middle = paired(ours, theirs, "turns_us")
    return {name: max(fastest, middle), f"{name}_min": fastest, f"{name}_median": middle}


def paired(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], turns: str) -> float:
    """The median of the ratios of turns that stood beside each other."""
    pairs = [
        pair for one, other in zip(ours, theirs, strict=True) for pair in zip(one[turns], other[turns], strict=True)
    ]
    return median([mine / other for mine, other in pairs])


def agent_runs(kind: str, mode: str, bench: str, store: str) -> dict[str, Any]:
    """One process: warm up, invoke each time it is told to, and make sure that what was to be kept or served was."""
    sys.path.insert(0, bench)
    import reference_agent as agent

    tracer: Any = None
    if kind != "untraced":
        import clew

        cache = clew.Cache(retriever=True, tools={"calc": "pure"}) if kind == "hits" else None
        tracer = clew.init("agents", store=store, cache=cache, record=kind == "recorded")
        clew.instrument()
    graph = agent.build(is_async=mode == "async")
    runner = asyncio.Runner()
    walls: list[int] = []
    turns_us: list[float] = []
    turns_cpu_us: list[float] = []

    def sync_runs(count: int) -> None:
        for _ in range(count):
            given = agent.INP()
            started = time.perf_counter_ns()
            graph.invoke(given)
            walls.append(time.perf_counter_ns() - started)

    async def async_runs(count: int) -> None:
        for _ in range(count):
            given = agent.INP()
            started = time.perf_counter_ns()
            await graph.ainvoke(given)
            walls.append(time.perf_counter_ns() - started)

    def invoke(count: int) -> None:
        if mode == "async":
            runner.run(async_runs(count))
        else:
            sync_runs(count)

    invoke(WARM_UP)
    walls.clear()
    gc.collect()
    written = tracer.log.size if tracer else 0
    print("ready", flush=True)
    while sys.stdin.readline().strip() == "go":
        cpu = cpu_seconds()
        invoke(TURN)
        turns_cpu_us.append((cpu_seconds() - cpu) * 1e6)
        turns_us.append(sum(walls[-TURN:]) / 1e3)
        print("done", flush=True)
    written = tracer.log.size - written if tracer else 0
    if kind == "hits":
        all_hits(store, len(walls))
    if kind == "recorded":
        all_recorded(store, WARM_UP + len(walls))
    return {
        "wall_min_us": min(walls) / 1e3,
        "turns_us": turns_us,
        "turns_cpu_us": turns_cpu_us,
        "bytes": written / len(walls),
    }


def all_hits(store: str, runs: int) -> None:
    """Each call of the measured runs was answered from the cache, and there were as many as there should be."""
    import clew

    clew.flush()
    counts: collections.Counter[str] = collections.Counter()
    missed: collections.Counter[str] = collections.Counter()
    with clew.open(store) as reader:
        for span in reader.spans():
            if span.kind in ("llm", "tool", "retriever"):
                (counts if span.attributes.get("clew.cache.hit") else missed)[span.trace_id] += 1
    whole = sum(1 for trace, count in counts.items() if count == ASKED and not missed[trace])
    check(whole >= runs, f"{whole} of {runs} runs were hits throughout")


def all_recorded(store: str, runs: int) -> None:
    """Each call of each run has a key and its answer in the recording."""
    import clew
    from clew.replay.answer import unpack
    from clew.replay.recording import recording
    from clew.store import answers

    clew.flush()
    whole = 0
    with clew.open(store) as reader:
        for run in reader.runs():
            calls = recording.load(reader, run.run_id).calls
            kept = [unpack(answers.content(reader.store, one)) for one in calls if not one.missing and not one.loose]
            whole += len(calls) == len(kept) == ANSWERS
    check(whole == runs, f"{whole} of {runs} runs were recorded throughout")


if __name__ == "__main__":
    print(json.dumps(agent_runs(*sys.argv[1:])))
