"""`clew gc`."""
from __future__ import annotations
from clew.cli.output import AsJson, StorePath
def gc(as_json: AsJson = False, store: StorePath = None) -> None:
    """x"""
