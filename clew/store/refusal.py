"""Refusals: what was found and not used, because whoever can write there could have planted it.

A refusal is a miss, never an error of the program: it is counted, and each reason is said once.
"""

from __future__ import annotations

import collections
import logging

logger = logging.getLogger("clew")


class Refusals:
    """Counts by reason, of one remote or one hot tier."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.counts: collections.Counter[str] = collections.Counter()

    def add(self, reason: str, what: object) -> None:
        """Count one more `reason`; the first is logged with `what` was refused."""
        self.counts[reason] += 1
        if self.counts[reason] == 1:
            logger.warning("clew: %s: %s, which counts as a miss: %s (said once)", self.place, reason, what)
