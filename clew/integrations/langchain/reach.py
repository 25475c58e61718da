"""Where the clients of a model lead, as a part of what it is asked: remembered while all that says so can be seen."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from clew.integrations.langchain.client import destinations
from clew.integrations.langchain.settings import called_by
from clew.replay.code.witness import Witness
from clew.replay.key import Part, Remembered, plain_part
from clew.replay.provider import PACKAGES
from clew.store.errors import Unkeyable

_NOWHERE = Remembered({})


def known_reach(model: object, fields: dict[str, Any], services: Collection[str], witness: Witness) -> Part | None:
    """Where the clients in these fields lead while `witness` holds, which has seen the fields; None, with nothing more for
    it to see, where `reach` has to be asked each time. So a client that cannot be seen costs only itself."""
    packages = frozenset(witness.packages)
    if not services and packages.isdisjoint(PACKAGES) and not called_by(model, ()):
        return _NOWHERE
    seen = Witness()
    try:
        told = plain_part(destinations(model, fields, services, seen, packages))
    except Unkeyable:  # as it will be said when it is asked
        return None
    if seen.blind:
        return None
    witness.include(seen)
    return told if isinstance(told, Part) else Remembered(told)


def reach(model: object, fields: dict[str, Any], services: Collection[str]) -> Any:
    """Where they lead now. Raises Unkeyable."""
    return plain_part(destinations(model, fields, services))
