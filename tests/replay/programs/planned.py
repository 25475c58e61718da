"""The bench's planner, each case in each way, as a script: `planned.py BENCH`. `changes.py` beside it says which side.

Prints a line of JSON for each run: way, case, answer, and how many calls went live.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import clew


def ask(way: str, graph: Any) -> str:
    state = {"question": "Q"}
    if way == "invoke":
        return str(graph.invoke(state)["answer"])
    if way == "ainvoke":
        return str(asyncio.run(graph.ainvoke(state))["answer"])
    if way == "stream":
        return str(list(graph.stream(state, stream_mode=["messages", "values"]))[-1][1]["answer"])

    async def collected() -> list[Any]:
        return [part async for part in graph.astream(state, stream_mode=["messages", "values"])]

    return str(asyncio.run(collected())[-1][1]["answer"])


def main(bench: str) -> None:
    sys.path.insert(0, bench)
    import planner_agent as planner
    from changes import CHANGED

    planner.NOW = clew.time_ns
    for case, (recorded, changed, _) in planner.EXPECTED.items():
        for way in ("invoke", "ainvoke", "stream", "astream"):
            planner.LIVE.clear()
            graph = planner.build(changed if CHANGED else recorded, is_async=way.startswith("a"))
            with clew.run(f"{case}, {way}") as run:
                answer = ask(way, graph)
                run.output(answer)
            print(json.dumps([way, case, answer, sum(planner.LIVE.values())]), flush=True)


if __name__ == "__main__":
    clew.init("planned", record=True)
    clew.instrument()
    main(sys.argv[1])
