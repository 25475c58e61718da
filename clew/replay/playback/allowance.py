"""Whether a call that was not recorded may go live, on the terms of its replay."""

from __future__ import annotations

from clew.replay.effect import Effect
from clew.replay.playback.terms import Terms
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
