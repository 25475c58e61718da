"""What of a recorded program is not the same each time: it is run twice on a dry run, and what it asks otherwise is named.

Nothing goes live: a call that was not recorded is answered as the one at its place was, and the program goes on. So every
boundary that asks otherwise is found, and not the first alone. The two runs have different hash seeds, so that the order
of a set that comes into a prompt shows.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from clew.lineage.reader import Reader, StoreLike
from clew.replay.playback.certificate import Certificate
from clew.replay.playback.rerun import rerun
from clew.replay.recording.recording import load
from clew.store.folder import store_written_here

_HASH_SEEDS = ("0", "1")


@dataclasses.dataclass
class Boundary:
    """A call that asks otherwise than recorded. `always`: in both runs, and so of its own; else now and then."""

    kind: str
    name: str
    path: str
    why: str
    always: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.name} at {self.path}, {'each time' if self.always else 'in one of two runs'}: {self.why}"


@dataclasses.dataclass
class Examination:
    """What was found. `draws` are the random values and readings of clocks that a replay gives the program."""

    run_id: str
    boundaries: list[Boundary]
    draws: dict[str, int]
    unseen: list[str]
    notes: list[str]
    certificates: list[Certificate]

    @property
    def is_deterministic(self) -> bool:
        """Whether the program asked the same both times, and what was recorded."""
        return not self.boundaries and all(one.error is None for one in self.certificates)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        return {
            "run_id": self.run_id,
            "deterministic": self.is_deterministic,
            "boundaries": [dataclasses.asdict(one) for one in self.boundaries],
            "draws": self.draws,
            "unseen": self.unseen,
            "notes": self.notes,
            "certificates": [one.to_dict() for one in self.certificates],
        }

    def lines(self) -> list[str]:
        """For a person, a line each."""
        if self.is_deterministic:
            found = [f"run {self.run_id} asks the same each time"]
        else:
            found = [f"run {self.run_id} does not ask the same each time: {len(self.boundaries)} boundaries"]
        found += [f"asks otherwise  {one}" for one in self.boundaries]
        found += [f"failed          {one.error}" for one in self.certificates if one.error is not None]
        found += [f"given           {count} {name}" for name, count in sorted(self.draws.items())]
        found += [f"note            {one}" for one in self.notes]
        return found + [f"unseen          {one}" for one in self.unseen]


def examine(run: Any, *, store: StoreLike = None, **options: Any) -> Examination:
    """Run the program of `run` twice, on dry runs; `options` are those of `clew.rerun`."""
    reader = store if isinstance(store, Reader) else Reader(store if store is not None else store_written_here())
    run = load(reader, run).run_id  # a name might mean the first of the two to the second
    certificates = [
        rerun(run, mode="plan", store=reader, variables={"PYTHONHASHSEED": seed}, **options) for seed in _HASH_SEEDS
    ]
    whys = [{(one.kind, one.name, one.path): one.why for one in certificate.live} for certificate in certificates]
    places = dict.fromkeys(place for found in whys for place in found)
    boundaries = [
        Boundary(*place, next(found[place] for found in whys if place in found), all(place in found for found in whys))
        for place in places
    ]
    first = certificates[0]
    notes = list(dict.fromkeys(note for one in certificates for note in one.notes))
    return Examination(first.run_id, boundaries, first.draws, first.unseen, notes, certificates)
