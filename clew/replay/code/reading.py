"""What a digest was made from, kept so that it can be seen whether all of it is still the same.

A reading is one look at one object: the parts that it had, compared later by identity. Whatever can change in place
has a reading of its own, so equal identities all the way down mean equal content. The parts are held, so that no other
object takes their place in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import is_not
from types import CellType
from typing import Any

Reading = tuple[Callable[[Any], Sequence[Any]], Any, Sequence[Any]]
ABSENT: Any = type("Absent", (), {"__slots__": ()})()


def look(reader: Callable[[Any], Sequence[Any]], subject: Any) -> Reading:
    """A reading of `subject` as it is now."""
    return reader, subject, reader(subject)


def unchanged(readings: Iterable[Reading]) -> bool:
    """Whether each subject still has the parts that it had."""
    for reader, subject, seen in readings:
        now = reader(subject)
        if len(now) != len(seen) or any(map(is_not, now, seen)):
            return False
    return True


def cell_content(cell: CellType) -> Any:
    """The variable's value, ABSENT before it is bound."""
    try:
        return cell.cell_contents
    except ValueError:
        return ABSENT


def state_of(instance: object) -> dict[str, Any]:
    """What an instance holds in its dictionary and its slots. Runs no code of its class."""
    state: dict[str, Any] = {}
    for cls in type(instance).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            name = f"_{cls.__name__.lstrip('_')}{slot}" if slot.startswith("__") and not slot.endswith("__") else slot
            member = cls.__dict__.get(name)
            if type(member).__name__ == "member_descriptor":
                try:
                    state[name] = member.__get__(instance, cls)  # type: ignore[union-attr]
                except AttributeError:
                    continue
    try:
        state.update(object.__getattribute__(instance, "__dict__"))
    except AttributeError:
        pass
    return state
