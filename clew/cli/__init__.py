"""The command line: one file for each command."""

from __future__ import annotations


def main() -> None:
    """Run `clew` with the arguments of this process; exits with 0, 1 (an error, told in one line) or 2 (wrong usage)."""
    from clew.cli.app import run

    run()
