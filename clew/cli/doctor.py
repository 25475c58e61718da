"""`clew doctor`: whether a store is well, what the tracer could not record, and its catalog made again."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import subprocess
from typing import Annotated, Any

import typer

from clew.cli import when
from clew.cli.output import AsJson, StorePath, mistakes, reader, write, write_json

# Frameworks that clew knows, and the private names of theirs without which tracing falls back to explicit parents.
FRAMEWORKS = {
    "langchain-core": ("langchain_core.runnables.config", "_set_config_context"),
    "langgraph": ("langgraph._internal._runnable", "_set_config_context"),
    "llama-index-core": None,
    "torch": None,
    "scikit-learn": None,
    "faiss-cpu": None,
}


app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def doctor(
    context: typer.Context,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the catalog again from the logs alone, refs included.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every blob; name those damaged and put them aside.")
    ] = False,
    as_json: AsJson = False,
    store: StorePath = None,
) -> None:
    """Whether a store is well, or a run replays.

    `clew doctor replay RUN` tells what of a run is not the same each time. Of a store: its size and contents, damage, writers, faults of the tracer, frameworks. Ends with 1 if something is damaged.
    """
    if context.invoked_subcommand is not None:
        return
    from clew.lineage import health
    from clew.lineage.reader import default_folder

    folder = default_folder(store)
    found: dict[str, Any] = {}
    if rebuild:
        from clew.lineage.rebuild import rebuild as make_again

        found["rebuilt_records"] = make_again(folder)
    found.update(health.report(folder, verify=verify))
    found["frameworks"] = frameworks()
    if as_json:
        write_json(found)
    else:
        write(*_lines(found))
    if health.is_damaged(found):
        raise typer.Exit(1)


@app.command()
def replay(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A recorded run: its id, or any unique prefix.")],
    code: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Run the code of this working tree instead.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="End the program after this.")] = None,
    as_json: AsJson = False,
    store: StorePath = None,
) -> None:
    """Run a recorded program twice, on dry runs, and name each call that asks otherwise than recorded.

    Nothing goes live. Ends with 1 if there is one.
    """
    from clew.replay.playback.examination import examine
    from clew.replay.playback.rerun import Code

    with reader(store) as opened, mistakes():
        found = examine(
            run,
            store=opened,
            patch=() if code is None else Code(code),
            timeout_seconds=timeout,
            stdout=subprocess.DEVNULL,
        )
    if as_json:
        write_json(found.to_dict())
    else:
        write(*found.lines())
    if not found.is_deterministic:
        raise typer.Exit(1)


def frameworks() -> list[dict[str, Any]]:
    """Installed frameworks with their versions; `moved` names what clew reaches for and does not find."""
    found = []
    for name, private in FRAMEWORKS.items():
        try:
            one: dict[str, Any] = {"name": name, "version": importlib.metadata.version(name), "moved": []}
        except importlib.metadata.PackageNotFoundError:
            continue
        if private is not None:
            module, attribute = private
            held = None
            with contextlib.suppress(Exception):  # a framework that does not import is no business of a report
                held = getattr(importlib.import_module(module), attribute, None)
            if held is None:
                one["moved"].append(f"{module}.{attribute}")
        found.append(one)
    return found


def _lines(found: dict[str, Any]) -> list[str]:
    log, kept, sizes = found["log"], found["counts"], found["size_bytes"]
    parts = ", ".join(f"{name} {when.size(sizes[name])}" for name in ("log", "blob", "catalog", "other"))
    writers = ", ".join(f"{count} {state}" for state, count in log["writers"].items() if count) or "none"
    lines = [
        f"store       {found['store']} (format {found['format']}{'' if found['writable'] else ', read-only'})",
        f"size        {when.size(sizes['total'])}: {parts}",
        f"holds       {', '.join(_some(count, name) for name, count in kept.items())}",
        f"log         {_some(log['segments'], 'segments')}, {log['sealed']} sealed; writers: {writers}",
        f"catalog     {_catalog(found)}",
    ]
    if "rebuilt_records" in found:
        lines.append(f"rebuilt     from {found['rebuilt_records']} records of the logs")
    cost = found["capture_cost_ms"]
    if cost is not None:
        each = ", ".join(f"{facet} {spent:g}" for facet, spent in cost.items())
        lines.append(f"capture     {sum(cost.values()):.0f} ms of CPU once per process ({each})")
    for one in found["frameworks"]:
        moved = f"; moved: {', '.join(one['moved'])} (spans keep explicit parents only)" if one["moved"] else ""
        lines.append(f"framework   {one['name']} {one['version']}{moved}")
    for one in log["damaged"]:
        lines.append(f"damaged     segment {one['segment']}: {one['error']}")
    for one in found["damaged_segments"]:
        lines.append(f"damaged     segment {one['segment']}: {one['records']} records cannot be read")
    if "verified" in found:
        lines += _verified(found["verified"])
    for one in found["faults"]:
        lines.append(
            f"fault       {one['place']}: {one['count']} times, last {when.clock(one['when_ns'])}: {one['error']}"
        )
    if not found["faults"]:
        lines.append("faults      none: the tracer recorded everything it was given")
    return lines


def _some(count: int, names: str) -> str:
    if count != 1:
        return f"{count} {names}"
    return f"1 {'process' if names == 'processes' else names.removesuffix('s')}"


def _catalog(found: dict[str, Any]) -> str:
    told = found["catalog"]
    text = f"{told['backend']}, {told['state']}"
    if told.get("behind_records"):
        text += f", {told['behind_records']} records behind the logs (read aside for this report)"
    elif told["state"] != "cannot be used":
        text += f", up to date ({told.get('indexed_now', 0)} records indexed just now)"
    return f"{text}; {told['error']}" if "error" in told else text


def _verified(found: dict[str, Any]) -> list[str]:
    lines = [
        f"verified    {found['blobs']} blobs in the logs, {found['files']} in files: {len(found['damaged'])} damaged"
    ]
    for one in found["damaged"]:
        place = f" in segment {one['segment']}" if "segment" in one else ""
        lines.append(f"damaged     {one.get('digest', 'content')}{place}: {one['error']}")
    return lines
