"""`clew show`: what a run did, span by span; one span in full; or an artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clew.cli import when
from clew.cli.output import AsJson, StorePath, plain, reader, write, write_json
from clew.store.errors import ClewError, NotFound

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from clew.lineage.reader import Reader
    from clew.lineage.view import RunView, SlotView, SpanView

PREVIEW_CHARS = 100
STYLE = {"ok": "green", "error": "red", "killed": "red", "running": "yellow", "interrupted": "yellow"}


def show(
    of: Annotated[
        str | None,
        typer.Argument(
            metavar="[X]",
            help="A run or span (any unique prefix), or an artifact; default: the last run.",
            show_default=False,
        ),
    ] = None,
    content: Annotated[bool, typer.Option("--content", help="The values too, in full.")] = False,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="The run's prompts, by the names to patch them by.")
    ] = False,
    as_json: AsJson = False,
    store: StorePath = None,
) -> None:
    """What a run did, span by span.

    With --prompts, what `clew.Prompt(name, ...)` can change in a replay of it.
    Of a span: what it used and generated, and its attributes. Of an artifact: what is known of it.
    """
    with reader(store) as opened:
        what, found = _found(opened, of)
        if prompts:
            _prompts(opened, what, found, content, as_json)
        elif what == "run":
            run = _run(opened, found)
            spans = opened.spans(run.run_id)
            if as_json:
                write_json({"run": run.to_dict(), "spans": [span.to_dict(content=content) for span in spans]})
            else:
                write(_heading(run), *_trees(spans, content))
        elif what == "span":
            span = opened.span(found)
            if as_json:
                write_json({"span": span.to_dict(content=content)})
            else:
                write(_heading_of_span(span), *_details(span, content))
        else:
            _artifact(opened, of, found, content, as_json)


def _found(opened: Reader, of: str | None) -> tuple[str, str]:
    """What X is, and its id in full."""
    import sqlalchemy as sa

    from clew.lineage import target
    from clew.lineage.why import last_run
    from clew.store import catalog
    from clew.store.digest import Digest

    with opened.connection() as connection:
        found = target.find(connection, of) if of is not None else last_run(connection)
        table, column = {
            "run": (catalog.run, catalog.run.c.run_id),
            "span": (catalog.span, catalog.span.c.span_id),
            "node": (catalog.node, sa.func.coalesce(catalog.node.c.digest, catalog.node.c.key)),
        }[found.what]
        key = connection.execute(sa.select(column).where(table.c.id == found.number)).scalar_one()
        return found.what, str(Digest(key)) if found.what == "node" else bytes(key).hex()


def _prompts(opened: Reader, what: str, run_id: str, content: bool, as_json: bool) -> None:
    from rich.text import Text

    from clew.replay.playback import prompt

    if what != "run":
        raise NotFound(f"prompts are a run's, and this is {'a span' if what == 'span' else 'an artifact'}")
    known = prompt.prompts(opened, run_id)
    if as_json:
        write_json({"run_id": run_id, "prompts": [one.to_dict() for one in known]})
        return
    lines: list[Any] = []
    for one in known:
        line = Text.assemble(
            (one.name, "bold"), f"  {one.kind}  ", (f"{one.calls} call{'s' if one.calls > 1 else ''}", "dim")
        )
        line.append(f"  {one.digest[:15]}", style="dim")
        line.append(f"\n{one.text}" if content else f"  {_short(one.text)}")
        lines += [line, *(Text(f"  at {path}", style="dim") for path in one.where)]
    write(*(lines or ["no prompts: no template was rendered, and no model was given a system message"]))


def _run(opened: Reader, run_id: str) -> RunView:
    return next(run for run in opened.runs(all=True) if run.run_id == run_id)


def _heading(run: RunView) -> Text:
    from rich.text import Text

    line = Text.assemble(
        (run.name, "bold"), "  ", (run.status, STYLE.get(run.status, "yellow")), f"  {when.duration(run.duration_ns)}\n"
    )
    facts = [f"run {run.run_id}", f"started {when.clock(run.started_ns)}", f"project {run.project}"]
    if run.session:
        facts.append(f"session {run.session}")
    return line.append("  ".join(facts), style="dim")


def _trees(spans: list[SpanView], content: bool) -> list[Any]:
    """One tree for each span that has no parent here."""
    from rich.tree import Tree

    grown: dict[str, Tree] = {}
    tops: list[Any] = []
    for span in spans:  # a parent began before its children
        above = grown.get(span.parent_id or "")
        branch = Tree(_line(span)) if above is None else above.add(_line(span))
        if above is None:
            tops.append(branch)
        grown[span.span_id] = branch
        if content or span.end_ns is None:  # of what did not finish, the input is what is left
            for sign, slots in (("used", span.used), ("generated", span.generated)):
                for slot in slots:
                    branch.add(_slot(sign, slot, content))
    return tops


def _line(span: SpanView) -> Text:
    from rich.text import Text

    line = Text.assemble((span.kind, "cyan"), " ", span.name)
    if span.status != "ok":
        line.append(f"  {span.status}", style=STYLE.get(span.status, "yellow"))
    line.append(f"  {when.duration(None if span.end_ns is None else span.end_ns - span.start_ns)}", style="dim")
    try:
        attributes = span.attributes
    except ClewError as error:
        return line.append(f"  its record cannot be read: {error}", style="red")
    tokens = [attributes.get(f"gen_ai.usage.{side}_tokens") for side in ("input", "output")]
    if any(count is not None for count in tokens):
        line.append(f"  {tokens[0] or 0} → {tokens[1] or 0} tokens", style="dim")
    if span.status == "error" and attributes.get("error.type"):
        told = [attributes["error.type"], _short(attributes.get("exception.message", ""))]
        line.append("  " + ": ".join(part for part in told if part), style="red")
    return line.append(f"  {span.span_id}", style="dim")


def _slot(sign: str, slot: SlotView, content: bool) -> Text:
    from rich.text import Text

    name = f" {slot.name}" if slot.name else ""
    line = Text.assemble((f"{sign} ", "dim"), (slot.role, "cyan"), f" {slot.kind}{name} ", (slot.digest[:15], "dim"))
    try:
        shown = _shown(slot.value)
    except ClewError as error:
        return line.append(f"  ({error})", style="dim")
    return line.append("\n" + shown) if content else line.append(f"  {_short(shown)}")


def _heading_of_span(span: SpanView) -> Text:
    line = _line(span).append("\n")
    facts = [
        f"span {span.span_id}",
        f"trace {span.trace_id}",
        f"run {span.run_id}",
        f"started {when.clock(span.start_ns)}",
    ]
    line.append("  ".join(facts), style="dim")
    return line.append(f"\npath {span.path}", style="dim")


def _details(span: SpanView, content: bool) -> list[Any]:
    lines: list[Any] = []
    for sign, slots in (("used", span.used), ("generated", span.generated)):
        lines += [_slot(sign, slot, content) for slot in slots]
    for key, value in sorted(span.attributes.items()):
        if not key.startswith(("clew.in.", "clew.out.")):
            lines.append(f"{key} = {_shown(value)}")
    for event in span.events:
        lines.append(f"event {_short(_shown(event), 300)}")
    for trace_id, span_id, kind in span.links:
        lines.append(f"link {kind} to span {span_id} of trace {trace_id}")
    return lines


def _artifact(opened: Reader, of: str | None, digest: str, content: bool, as_json: bool) -> None:
    from clew.lineage import target
    from clew.lineage.describe import Describer

    with opened.connection() as connection:
        number = target.find(connection, of).number
        describer = Describer(opened.store, connection)
        describer.load([number])
        node = describer.node(number)
    shown = {"digest": digest, **node.to_dict()}
    shown.pop("role", None)
    if content:
        try:
            shown["value"] = opened.artifact(digest)
        except ClewError as error:
            shown["missing"] = str(error)
    if as_json:
        write_json({"artifact": shown})
        return
    lines = [f"{node.kind} {node.name}", f"digest {digest}"]
    lines += [f"{key} = {_shown(value)}" for key, value in node.detail.items()]
    if content:
        lines.append(_shown(shown["value"]) if "value" in shown else f"({shown['missing']})")
    else:
        lines.append("(--content prints its value, `clew why` tells where it is from)")
    write(*lines)


def _shown(value: Any) -> str:
    """A captured value as text: texts as they are, anything else as JSON."""
    import json

    return value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)


def _short(text: str, limit: int = PREVIEW_CHARS) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
