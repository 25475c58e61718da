"""A run's calls beside the cache: what each that asked it was answered, and why."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from clew.lineage import target
from clew.lineage.reader import Reader
from clew.lineage.view import run_tree
from clew.replay.explain import Explainer, Explanation
from clew.store import catalog
from clew.store.errors import NotFound


class Called(msgspec.Struct, frozen=True, kw_only=True):
    """A call that asked the cache, or was made without it."""

    name: str
    path: str
    explanation: Explanation

    def __str__(self) -> str:
        told = self.explanation
        model = f" ({told.model})" if told.model and told.model != self.name else ""
        return f"{told.outcome:8} {told.span_id}  {told.kind} {self.name}{model} at {self.path}: {_why(told)}"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of a run and of the runs in it, in the order in which they began."""

    run_id: str
    name: str
    calls: list[Called]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON: each call is its explanation, with its name and path."""
        calls = [{"name": one.name, "path": one.path, **one.explanation.to_dict()} for one in self.calls]
        return {"run_id": self.run_id, "name": self.name, "calls": calls}

    def __str__(self) -> str:
        title = f"run {self.run_id} ({self.name})"
        if not self.calls:
            return f"{title}: no call asked the cache; clew.init(cache=True) switches it on"
        return "\n".join([f"{title}: {_counted(self.calls)}", *map(str, self.calls)])


def account(reader: Reader, run: Any) -> Account:
    """What the calls of a run asked of the cache; `run` is its id, any unique prefix, or its name. NotFound, Ambiguous."""
    with reader.connection() as connection:
        found = target.find(connection, run)
        if found.what != "run":
            raise NotFound(f"{run!r} is no run")
        row = connection.execute(sa.select(catalog.run).where(catalog.run.c.id == found.number)).one()
        span, use = catalog.span.c, catalog.action_use.c
        asked = sa.select(span.id).join_from(catalog.span, catalog.action_use, use.span == span.id)
        runs = run_tree(connection, row.id)
        if row.root is None:  # of a process run, all that ran in it
            runs = list(
                connection.execute(
                    sa.select(catalog.run.c.id).where(catalog.run.c.process_id == row.process_id)
                ).scalars()
            )
        numbers = connection.execute(asked.where(span.run.in_(runs)).order_by(span.start_ns, span.id)).scalars().all()
        explainer = Explainer(reader.store, connection)
        calls = []
        for number in numbers:
            view = explainer.span(number)
            calls.append(Called(name=view.name, path=view.path, explanation=explainer.of_span(number)))
        return Account(run_id=row.run_id.hex(), name=row.name, calls=calls)


def _why(told: Explanation) -> str:
    """The reason, and of a miss the parts in which it differs from what is most like it."""
    if told.nearest is None or told.outcome == "hit":
        return told.reason
    parts = [", ".join(one.fields) + (f" ({one.reason})" if one.reason else "") for one in told.nearest.differs]
    parts += ["its place"] if told.nearest.places and not parts else []
    near = f"; the nearest, of span {told.nearest.span_id}, differs in {', '.join(parts)}" if parts else ""
    return f"{told.reason}{near}"


def _counted(calls: list[Called]) -> str:
    counts: dict[str, int] = {}
    for one in calls:
        counts[one.explanation.outcome] = counts.get(one.explanation.outcome, 0) + 1
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
