"""Questions that a call puts to a person by interrupting the graph that it runs in.

When the graph is resumed, the call is made again, and takes the answers that are there by now. A call that is served
does not run, so a replay takes them in its place: else what follows would take the answer to another question for its
own.
"""

from __future__ import annotations

from collections.abc import Callable

_answered: list[Callable[[BaseException | None], int]] = []
_repeat: list[Callable[[int], None]] = []
_again: list[Callable[[], bool]] = []


def register_questions(
    answered: Callable[[BaseException | None], int], repeat: Callable[[int], None], again: Callable[[], bool]
) -> None:
    """`answered(error)` tells how many of what the task asked that runs here were answered when a call ended (by `error`),
    `repeat(count)` asks until so many are, and `again()` tells whether the task has run before and was interrupted."""
    _answered[:], _repeat[:], _again[:] = [answered], [repeat], [again]


def answered(error: BaseException | None) -> int:
    """How many questions of the task that runs here were answered so far; 0 without one."""
    return _answered[0](error) if _answered else 0


def is_made_again() -> bool:
    """Whether the task that runs here has run before, and was interrupted."""
    return bool(_again) and _again[0]()


def repeat(count: int) -> None:
    """Take the answers to as many questions as were answered when a call ended."""
    if count and _repeat:
        _repeat[0](count)
