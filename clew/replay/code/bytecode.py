"""What a code object does and what it names, without where it stands: the digest of its instructions, its references.

Instructions are taken one by one, constants in place of their numbers and jumps as counts of instructions, because a
docstring shifts the constants and a line break leaves a NOP behind. What is left differs with the version of Python,
which therefore belongs into every digest made from it.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

from clew.replay.code.item import GLOBAL, changed_items
from clew.store.digest import Digest
from clew.store.encoding import encode_key, value_digest

_HAS_DOCSTRING = 0x4000000  # a flag of Python 3.13
_SILENT = frozenset(("NOP", "EXTENDED_ARG", "CACHE"))
_ATTRIBUTE = frozenset(("LOAD_ATTR", "LOAD_METHOD"))
_CHANGING = frozenset(
    (
        "add", "append", "appendleft", "clear", "difference_update", "discard", "extend", "extendleft", "insert",
        "intersection_update", "move_to_end", "pop", "popitem", "popleft", "remove", "setdefault", "subtract",
        "symmetric_difference_update", "update",
    )
)  # fmt: skip
_IMPORTER = frozenset(("import_module", "__import__"))
_CONSTANT, _JUMP = frozenset(dis.hasconst), frozenset((*dis.hasjrel, *dis.hasjabs))
_REMEMBERED = 4096


class Reference(NamedTuple):
    """A global name and the attributes read from it at once: `helpers.clean` is ``("helpers", "clean")``. `argument` is
    the text that it is called with, where that is a constant and alone."""

    path: tuple[str, ...]
    argument: str | None = None


class Import(NamedTuple):
    """An import inside the body: a statement, or `import_module` with a constant name."""

    name: str
    names: tuple[str, ...]
    level: int


class Bytecode(NamedTuple):
    """A code object with those nested in it. `words` are its arguments, the attributes it reads and its texts; `changed`
    the paths of what it changes, if that is a container: what it holds then is state, such as a counter or a memo, and no
    constant."""

    digest: Digest
    references: frozenset[Reference]
    imports: frozenset[Import]
    words: frozenset[str]
    changed: frozenset[tuple[str, ...]]


_known: dict[int, tuple[CodeType, Bytecode]] = {}  # by identity: equal code objects may have other exception tables


def bytecode_of(code: CodeType) -> Bytecode:
    """What `code` does and names; remembered for as long as few code objects were asked for after it."""
    known = _known.get(id(code))
    if known is not None:
        return known[1]
    found = _read(code)
    if len(_known) >= _REMEMBERED:
        _known.clear()
    _known[id(code)] = (code, found)
    return found


def _read(code: CodeType) -> Bytecode:
    everything = list(dis.get_instructions(code))
    steps = [step for step in everything if step.opname not in _SILENT]
    count, place = 0, {len(code.co_code): len(steps)}  # from the offset of an instruction to its count
    for step in everything:
        place[step.offset] = count
        count += step.opname not in _SILENT
    form: list[Any] = []
    for number, step in enumerate(steps):
        form.append(step.opname)
        if step.opcode in _CONSTANT:
            form.append(
                ["docstring"]
                if _is_class_docstring(steps, number)
                else ["constant", constant(code.co_consts[step.arg or 0])]
            )  # argval has none for KW_NAMES
        elif step.opcode in _JUMP:
            form.append(["jump", place[step.argval]])
        else:
            form.append(step.arg)
    nested = [bytecode_of(one) for one in code.co_consts if isinstance(one, CodeType)]
    names = [code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars]
    counts = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & ~_HAS_DOCSTRING]
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    handlers = [[place[start], place[end], place[to], depth] for start, end, to, depth in _handlers(code)]
    return Bytecode(
        value_digest([code.co_qualname, form, names, counts, handlers]),
        frozenset(_references(steps)).union(*(one.references for one in nested)),
        frozenset(_imports(steps)).union(*(one.imports for one in nested)),
        frozenset((*_words(steps), *arguments)).union(*(one.words for one in nested)),
        frozenset((*_changed(steps), *changed_items(code, everything))).union(*(one.changed for one in nested)),
    )


def constant(value: Any) -> Any:
    """A constant as the compiler makes them, in a form that neither hash seed nor equality of 1 and True touches."""
    if isinstance(value, CodeType):
        return ["code", bytes(bytecode_of(value).digest)]
    if isinstance(value, tuple):
        return ["tuple", *map(constant, value)]
    if isinstance(value, frozenset):
        return ["frozenset", *sorted(encode_key(constant(one)) for one in value)]
    if isinstance(value, slice):
        return ["slice", constant(value.start), constant(value.stop), constant(value.step)]
    return ["..."] if value is ... else value


def _is_class_docstring(steps: list[dis.Instruction], number: int) -> bool:
    after = steps[number + 1] if number + 1 < len(steps) else None
    return after is not None and after.opname == "STORE_NAME" and after.argval == "__doc__"


def _references(steps: list[dis.Instruction]) -> Iterator[Reference]:
    for number, step in enumerate(steps):
        if step.opname not in GLOBAL:
            continue
        path = [step.argval]
        after = number + 1
        while steps[after].opname in _ATTRIBUTE:
            path.append(steps[after].argval)
            after += 1
        yield Reference(tuple(path), _only_argument(steps[after : after + 4]))


def _changed(steps: list[dis.Instruction]) -> Iterator[tuple[str, ...]]:
    """By a method."""
    for reference in _references(steps):
        if reference.path[-1] in _CHANGING:
            yield reference.path[:-1]


def _only_argument(steps: list[dis.Instruction]) -> str | None:
    steps = [step for step in steps if step.opname not in ("PUSH_NULL", "PRECALL")]
    alone = len(steps) > 1 and steps[0].opname == "LOAD_CONST" and steps[1].opname == "CALL" and steps[1].arg == 1
    return steps[0].argval if alone and isinstance(steps[0].argval, str) else None


def _imports(steps: list[dis.Instruction]) -> Iterator[Import]:
    for number, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level, names = steps[number - 2].argval, steps[number - 1].argval
            yield Import(step.argval, names or (), level)
        elif step.argval in _IMPORTER and (name := _only_argument(steps[number + 1 : number + 5])):
            yield Import(name, (), 0)


def _words(steps: list[dis.Instruction]) -> Iterator[str]:
    for number, step in enumerate(steps):
        if step.opname in GLOBAL or "ATTR" in step.opname or step.opname in ("LOAD_METHOD", "IMPORT_FROM"):
            if step.argval not in _IMPORTER or not _only_argument(steps[number + 1 : number + 5]):
                yield str(step.argval)
        elif step.opcode in _CONSTANT and not _is_class_docstring(steps, number):
            yield from _texts(step.argval)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (tuple, frozenset)):
        for one in value:
            yield from _texts(one)


def _handlers(code: CodeType) -> Iterator[tuple[int, int, int, int]]:
    """(start, end, target, depth with its lasti bit) of the exception table, offsets in bytes.

    CPython's Objects/exception_handling_notes.txt has the format: numbers of 6 bits a byte, bit 6 says that more follow.
    """
    numbers: list[int] = []
    number = 0
    for byte in code.co_exceptiontable:
        number = (number << 6) | (byte & 63)
        if not byte & 64:
            numbers.append(number)
            number = 0
    for start, length, target, depth in zip(*[iter(numbers)] * 4, strict=True):
        yield 2 * start, 2 * (start + length), 2 * target, depth
