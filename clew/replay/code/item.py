"""Global containers that code sets items in, or deletes them from: `COUNTS[x] += 1`, `del cache.seen[x]`.

Instructions are followed in their order, with the paths of global names on a stack as Python's own. At every jump it is
forgotten, so what is told is so; what is not told may be, and costs a miss.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType

Path = tuple[str, ...]
GLOBAL = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"))
_SETS = frozenset(("STORE_SUBSCR", "DELETE_SUBSCR"))
_JUMPS = frozenset((*dis.hasjrel, *dis.hasjabs))
_ITEM = 26  # which operation BINARY_OP does, from Python 3.14


def changed_items(code: CodeType, steps: list[dis.Instruction]) -> Iterator[Path]:
    """The paths, from all instructions of a code object; also where a local name stands for such a container."""
    kept: dict[str, set[Path | None]] = {name: {None} for name in code.co_varnames[: _arguments(code)]}
    for _ in _Walk(steps, {}, kept):
        pass
    named = {name: next(iter(paths)) for name, paths in kept.items() if len(paths) == 1}
    yield from _Walk(steps, named, {})


class _Walk:
    """`named` are the paths that local names stand for; what each is set to goes into `kept`."""

    def __init__(
        self, steps: list[dis.Instruction], named: dict[str, Path | None], kept: dict[str, set[Path | None]]
    ) -> None:
        self._steps = steps
        self._named = named
        self._kept = kept
        self._stack: list[Path | None] = []

    def __iter__(self) -> Iterator[Path]:
        for step in self._steps:
            if step.is_jump_target:
                self._stack.clear()
            if step.opname in _SETS and (path := self._at(2)) is not None:
                yield path
            self._take(step)
            if step.opcode in _JUMPS:
                self._stack.clear()

    def _at(self, place: int) -> Path | None:
        """What is so far from the top, from 1 on."""
        return self._stack[-place] if 0 < place <= len(self._stack) else None

    def _pop(self, count: int = 1) -> Path | None:
        top = self._at(1)
        del self._stack[max(len(self._stack) - count, 0) :]
        return top

    def _take(self, step: dis.Instruction) -> None:
        name, told, stack = step.opname, step.argval, self._stack
        grows = dis.stack_effect(step.opcode, step.arg)
        if name.startswith("STORE_FAST"):
            names = (told,) if isinstance(told, str) else tuple(told)
            stored, loaded = (names[:1], names[1:]) if name.endswith("LOAD_FAST") else (names, ())
            for one in stored:
                self._kept.setdefault(one, set()).add(self._pop())
            stack += map(self._named.get, loaded)
        elif name.startswith("LOAD_FAST"):
            stack += map(self._named.get, (told,) if isinstance(told, str) else told)
        elif name in GLOBAL and grows == 1:  # else it is to be called
            stack.append((told,))
        elif name == "LOAD_ATTR" and grows == 0:
            base = self._pop()
            stack.append(None if base is None else (*base, told))
        elif name == "COPY":
            stack.append(self._at(step.arg or 0))
        elif name == "SWAP":
            self._swap(step.arg or 0)
        elif name == "BINARY_SUBSCR" or (name == "BINARY_OP" and step.arg == _ITEM):
            stack[-2:] = [self._at(2)]  # what it holds is its own
        elif grows > 0:
            stack += [None] * grows
        else:
            self._pop(-grows)
            if stack:
                stack[-1] = None

    def _swap(self, place: int) -> None:
        stack = self._stack
        stack[:0] = [None] * (place - len(stack))
        if place:
            stack[-1], stack[-place] = stack[-place], stack[-1]


def _arguments(code: CodeType) -> int:
    flags = bool(code.co_flags & 4) + bool(code.co_flags & 8)  # *args, **kwargs
    return code.co_argcount + code.co_kwonlyargcount + flags
