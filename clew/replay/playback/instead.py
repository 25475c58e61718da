"""What patches have a replay answer otherwise than it was recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clew.store.record import Answer
from clew.tracer.boundary import Call


class Instead:
    """The patches of one replay (patch.py), as its replayer asks them."""

    def __init__(self) -> None:
        self.patches: list[Any] = []  # those in force
        self.answers: dict[tuple[bytes, bytes], Callable[..., Any]] = {}  # by span and request
        self.change: Callable[[Call, Any], Any] | None = None

    def answer(self, recorded: Answer | None, request: bytes) -> Callable[..., Any] | None:
        """What makes the answer of a recorded call that is patched, of its exchange, its entry and what reads an entry."""
        return None if recorded is None else self.answers.get((recorded.span_id, request))

    def inside(self, recorded: Answer | None, request: bytes) -> str | None:
        """What of that which a recorded call did is patched, so that its answer is not known any more."""
        if recorded is None or not self.patches or self.answer(recorded, request) is not None:
            return None
        return next((one.patch.title for one in self.patches if one.is_inside(recorded)), None)

    def changed(self, call: Call, response: Any) -> Any:
        """A response as it is with what was patched in it."""
        return response if self.change is None else self.change(call, response)

    def path(self, thing: Any, path: str) -> str:
        """The span path of a call of `thing` as it would be, were the program's own asked in its place: a path ends with
        the name of what is asked, and a recording knows the program's own."""
        for one in reversed(self.patches):
            found = one.own(thing)
            if found is None:
                continue
            thing, names = found
            above, _, step = path.rpartition("/")
            if names is not None and step == names[1]:
                path = f"{above}/{names[0]}" if above else names[0]
        return path

    def stands_in(self, thing: Any) -> bool:
        """Whether a thing is in the place of one of the program's own."""
        return any(one.stands_in(thing) for one in self.patches)
