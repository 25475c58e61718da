"""`python -m clew`: the command line where no `clew` script is on the path."""

from __future__ import annotations

from clew.cli import main

if __name__ == "__main__":
    main()
