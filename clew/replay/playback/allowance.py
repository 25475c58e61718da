"""Whether a call that was not recorded may go live, on the terms of its replay; and whether those name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import sqlalchemy as sa

from clew.lineage.reader import Reader
from clew.lineage.view import span_views
from clew.replay.effect import Effect
from clew.replay.playback.terms import KINDS, Terms
from clew.replay.recording.recording import Recording
from clew.store import catalog
from clew.store.errors import OverBudget
from clew.tracer.boundary import Call


def forbidden(terms: Terms, call: Call, effect: Effect | None) -> str | None:
    """Why what is called may not go live at all; None if nothing speaks against it."""
    if terms.allow is not None and call.name in terms.allow:
        return None
    if effect is not None and effect.name in ("write", "never"):
        return (
            f"{call.name} is said to {'write' if effect.name == 'write' else 'be never served'}: allow it by its name"
        )
    if terms.allow is not None and call.kind not in terms.allow:
        return f"{call.kind} {call.name} may not go live: allowed are {', '.join(sorted(terms.allow)) or 'none'}"
    return None


def over(terms: Terms, call: Call, *, calls: int, spent: float) -> OverBudget | None:
    """What to raise where so many live calls, or so much money, are all that is allowed."""
    if terms.max_calls is not None and calls >= terms.max_calls:
        return OverBudget(f"{call.kind} {call.name} would be live call {calls + 1} of {terms.max_calls} allowed")
    if terms.budget is not None and spent >= terms.budget:
        return OverBudget(f"{call.kind} {call.name}: {spent:.6f} of a budget of {terms.budget} is spent")
    return None


def check_names(terms: Terms, reader: Reader, recording: Recording, code: Path) -> None:
    """ValueError where `allow` names what is no kind of call, no call or tool of the recording, and no word of its code."""
    called = {entry.name for entry in recording.calls}
    unknown = sorted((terms.allow or frozenset()) - {*KINDS, *called})
    if not unknown:
        return
    tools = _shown_tools(reader, recording)
    unknown = [name for name in unknown if name not in tools and not _is_in(code, name)]
    if unknown:
        raise ValueError(
            f"{unknown[0]!r} is no kind of call ({', '.join(KINDS)}), and nothing that this program calls; called were "
            f"{', '.join(sorted(called)) or 'nothing'}"
        )


def _shown_tools(reader: Reader, recording: Recording) -> set[str]:
    """Names of the tools that the recording's models were shown."""
    with reader.connection() as connection:
        table = catalog.run.c
        runs = sa.select(table.id).where(table.process_id == bytes.fromhex(recording.process_id))
        spans = sa.select(catalog.span.c.id).where(catalog.span.c.run.in_(runs))
        numbers = connection.execute(spans).scalars().all()
        return {
            slot.name
            for part in catalog.chunks(numbers)
            for span in span_views(reader.store, connection, None, only=part)
            for slot in span.used
            if slot.kind == "tool" and slot.name
        }


def _is_in(code: Path, name: str) -> bool:
    """Whether a name is a word of the program's code."""
    word = re.compile(rb"(?<!\w)" + re.escape(name.encode()) + rb"(?!\w)")
    return any(word.search(file.read_bytes()) for file in code.rglob("*.py") if file.is_file())
