"""Whatever a test asks backwards is asked forwards as well: `why` and `impact` agree on every row."""

from __future__ import annotations

from typing import Any

import pytest

import clew
from clew.lineage.graph import Lineage
from clew.lineage.why import why


@pytest.fixture(autouse=True)
def both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(of: Any = None, **options: Any) -> Lineage:
        lineage = why(of, **options)
        root = lineage.nodes[lineage.root]
        if root.kind == "workflow" and "output" not in options:
            for row in lineage.find("row", role=None):
                touched = clew.impact(row.digest, store=options.get("store")).nodes
                assert (root.id in touched) == (row.role == "lineage"), row
        return lineage

    monkeypatch.setattr(clew, "why", asked)
