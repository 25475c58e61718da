"""Variables of a recorded program that are set again as they were: those that decide about a Python program's results.

Variables that name folders or devices of one machine are today's, and of what the program reads for itself (addresses,
keys, switches) nothing is recorded.
"""

from __future__ import annotations

import re

from clew.tracer.environment import Environment

_CARRIED = ("LANG", "LANGUAGE", "TZ", "SOURCE_DATE_EPOCH")
_CARRIED_PREFIXES = ("LC_", "PYTHON")
_TODAYS = frozenset(
    {"PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX", "PYTHONSTARTUP", "PYTHONEXECUTABLE"}
    | {"PYTHON_HISTORY", "PYTHONPLATLIBDIR"}
)
# These say as a variable what the command line says already, or would keep the child waiting.
SAID = frozenset({"PYTHONHASHSEED", "PYTHONWARNINGS", "PYTHONINSPECT", "PYTHONSAFEPATH"})
_REDACTED = re.compile("secret:[0-9a-f]{32}")


def is_carried(name: str) -> bool:
    """Whether a variable is set as it was recorded, and left out where it was not set."""
    carried = name in _CARRIED or name.startswith(_CARRIED_PREFIXES)
    return carried and name not in _TODAYS and name not in SAID


def is_pythons(name: str) -> bool:
    """Whether an interpreter that ignores its environment ignores this variable, and we need not keep it."""
    return name.startswith("PYTHON") and name not in _TODAYS


def is_redacted(text: str) -> bool:
    """Whether a secret stood in a recorded text."""
    return _REDACTED.search(text) is not None


def carried(environment: Environment) -> dict[str, str]:
    """The variables to set."""
    then = environment.variables
    return {name: value for name, value in then.items() if is_carried(name) and not is_redacted(value)}
