"""Questions that a call puts to a person by interrupting the graph that it runs in.

When the graph is resumed, the call is made again, and takes the answers that are there by now. A call that is served
does not run, so a replay takes them in its place: else what follows would take the answer to another question for its
own.
"""

from __future__ import annotations

from collections.abc import Callable

_answered: list[Callable[[BaseException | None], int]] = []
_repeat: list[Callable[[int], None]] = []
_resumed: list[Callable[[], int]] = []


def register_questions(
    answered: Callable[[BaseException | None], int], repeat: Callable[[int], None], resumed: Callable[[], int]
) -> None:
    """`answered(error)` tells how many of what the task asked that runs here were answered when a call ended (by `error`),
    `repeat(count)` asks until so many are, and `resumed()` tells with how many answers the task was run again."""
    _answered[:], _repeat[:], _resumed[:] = [answered], [repeat], [resumed]


def answered(error: BaseException | None) -> int:
    """How many questions of the task that runs here were answered so far; 0 without one."""
    return _answered[0](error) if _answered else 0


def resumed() -> int:
    """With how many answers the task that runs here, and was interrupted before, was run again; 0 of one that was not."""
    return _resumed[0]() if _resumed else 0


def repeat(count: int) -> None:
    """Take the answers to as many questions as were answered when a call ended."""
    if count and _repeat:
        _repeat[0](count)
