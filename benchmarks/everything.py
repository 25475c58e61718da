"""Everything: all benchmarks, one after the other, in one table with the bars beside the figures.

    python benchmarks/everything.py [--json] [--quick] [--only NAME ...]

`--quick` runs all of them small, to see that they work: its figures are no measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from measure import MISSED, Bar, CheckFailed, Result, child, program, table

QUICK = {
    "overhead": ["--rounds", "1", "--runs", "30"],
    "footprint": [],
    "crash": ["--kills", "20"],
    "lineage": ["--edges", "100000", "--answers", "5000"],
    "processes": ["--spans", "200"],
    "start": ["--times", "2"],
    "cache": ["--rounds", "2", "--runs", "12", "--no-peers"],
}


def everything(options: argparse.Namespace) -> int:
    """Run the benchmarks; returns the exit status."""
    results: dict[str, Result] = {}
    failures: dict[str, str] = {}
    for name in options.only or QUICK:
        started = time.perf_counter()
        arguments = QUICK[name] if options.quick else []
        if name in ("overhead", "cache") and options.bench:
            arguments = [*arguments, "--bench", str(options.bench.absolute())]
        if name == "start" and options.install:
            arguments = [*arguments, "--install"]
        print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
        try:
            results[name] = result_of(child(Path(__file__).with_name(f"{name}.py"), "--json", *arguments))
        except CheckFailed as failure:
            failures[name] = str(failure)
        print(f"{'FAILED' if name in failures else 'done'} in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    if options.json:
        print(
            json.dumps(
                {"machine": machine(), **{name: one.to_dict() for name, one in results.items()}, "failures": failures}
            )
        )
    else:
        print(f"{machine()}\n\n{table(results)}")
    for name, failure in failures.items():
        print(f"\n{name} gives no figure: {failure}", file=sys.stderr)
    return 1 if failures else MISSED if any(result.missed for result in results.values()) else 0


def result_of(found: dict[str, Any]) -> Result:
    """A benchmark's JSON as a Result."""
    bars = {name: Bar(bar["at_most"], bar.get("aim")) for name, bar in found.pop("bars").items()}
    return Result(found, bars)


def machine() -> str:
    """What the figures were measured on."""
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(
        everything(
            program(
                __doc__,
                ("--quick", {"action": "store_true", "help": "small runs, to see that all of them work"}),
                ("--only", {"nargs": "+", "choices": list(QUICK), "metavar": "NAME", "help": f"of {', '.join(QUICK)}"}),
                ("--bench", {"type": Path, "help": "folder of reference_agent.py, for overhead and cache"}),
                (
                    "--install",
                    {"action": "store_true", "help": "also weigh an install of the core (needs a package index)"},
                ),
            ).parse_args()
        )
    )
