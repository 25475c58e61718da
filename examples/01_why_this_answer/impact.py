"""Forwards: which answers used this docstring?

python impact.py shutil.copytree
"""

from __future__ import annotations

import sys

import clew

NAME = "shutil.copytree"

if __name__ == "__main__":
    asked = sys.argv[1] if len(sys.argv) > 1 else NAME
    clew.init(project="why-this-answer")
    try:
        found = clew.impact(f"dataset/python-stdlib[{asked}]")  # of the newest version; @N would name another
    except LookupError as error:
        sys.exit(f"{error}\nWhat is written in C has no docstring in the source of the library; try {NAME!r}.")
    print(f"What {asked}'s docstring has touched:\n")
    print(found)
