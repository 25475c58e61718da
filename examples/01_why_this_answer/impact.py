"""Forwards: which answers used this docstring?

python impact.py shutil.copytree
"""

from __future__ import annotations

import sys

from corpus import stdlib_rows

import clew

NAME = "shutil.copytree"


def row_name(name: str) -> str:
    """A row goes by its dataset's name and its position in it; without @N the newest version is meant."""
    for position, row in enumerate(stdlib_rows()):
        if row["id"] == name:
            return f"dataset/python-stdlib[{position}]"
    sys.exit(f"{name!r} has no docstring in the standard library's Python source; try {NAME!r}.")


if __name__ == "__main__":
    asked = sys.argv[1] if len(sys.argv) > 1 else NAME
    clew.init(project="why-this-answer")
    print(f"What {asked}'s docstring has touched:\n")
    print(clew.impact(row_name(asked)))
