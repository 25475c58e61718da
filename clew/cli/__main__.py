"""`python -m clew.cli`: the command line where no `clew` script is installed."""

from __future__ import annotations

from clew.cli import main

if __name__ == "__main__":
    main()
