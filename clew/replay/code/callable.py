"""The digest of the code behind a callable: what a cache key needs to change whenever the code does.

Two callables that could behave differently because of their code have different digests. A needless difference costs
a miss; it never costs a wrong answer. In the digest are, as far as they can be reached from the callable:

* of the project's functions and classes the instructions (bytecode.py), defaults, closures and annotations;
* the values of the globals they name, mutable ones as they are at the moment of the call;
* of everything installed the version of its distribution, and Python's.

Formatting, comments and docstrings are not. A value that has no canonical form, or code that reads docstrings, source
or its own namespace by name, costs the source of the whole module and of all that it imports. Where even that does
not tell (frames, a computed import, a main program without a file) there is no digest but `Unkeyable`.

    >>> def limit(text, length=3): return text[:length]
    >>> def other(text, length=4): return text[:length]
    >>> code_of(limit).digest == code_of(other).digest
    False
    >>> [(part.kind, part.name.rpartition(".")[2]) for part in code_of(limit).parts]
    [('distribution', 'Python'), ('function', 'limit')]
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import msgspec

from clew.replay.code.dependency import Dependencies, Part, name_of
from clew.replay.code.witness import Witness
from clew.store.digest import Digest, Domain, digest
from clew.store.encoding import encode_key
from clew.store.errors import Unkeyable

_REMEMBERED = 1024
_known: dict[Any, tuple[object, Witness, Code]] = {}


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """`digest` is a Merkle node over the parts by name, so it lies in the TREE domain. `parts` are sorted by name:
    of two codes, the parts that differ say what was changed."""

    name: str
    digest: Digest
    parts: tuple[Part, ...]

    def plain(self) -> dict[str, Any]:
        """The same as dicts, lists and texts."""
        parts = [{"kind": part.kind, "name": part.name, "digest": str(part.digest)} for part in self.parts]
        return {"name": self.name, "digest": str(self.digest), "parts": parts}


def code_of(function: Callable[..., Any], *, version: str | None = None) -> Code:
    """The code behind `function`: a function, method, class, partial or callable object. Unkeyable if no digest tells.

    With a `version`, name and version alone are the digest: whoever gives it changes it with the code.

    Remembered for each callable as long as all that was read for it (code objects, defaults, cells, globals, class
    dictionaries, items of containers) is the same by identity. The last callables asked for are thereby kept alive.
    """
    if version is not None:
        part = Part.of("version", name_of(function), version)
        return _code(part.name, {part.name: part})
    return witnessed(function)[0]


def witnessed(function: Callable[..., Any]) -> tuple[Code, Witness]:
    """The code behind `function`, and the witness of all that it was made from: what rests on the one can ask the other."""
    lasting: Any = (function.__func__, function.__self__) if isinstance(function, MethodType) else function
    key = (
        tuple(map(id, lasting)) if isinstance(function, MethodType) else id(function)
    )  # a method is new at each access
    known = _known.get(key)
    if known is not None and known[1].holds():
        return known[2], known[1]
    found = Dependencies()
    try:
        found.add_root(function)
    except RecursionError:
        raise Unkeyable(f"{name_of(function)} refers to values that are nested too deeply") from None
    code = _code(name_of(function), found.parts)
    if not found.witness.blind:
        if len(_known) >= _REMEMBERED:
            _known.clear()
        _known[key] = (lasting, found.witness, code)
    return code, found.witness


def _code(name: str, parts: dict[str, Part]) -> Code:
    found = tuple(sorted(parts.values(), key=lambda part: part.name))
    children = [[part.kind, part.name, bytes(part.digest)] for part in found]
    return Code(name=name, digest=digest(Domain.TREE, encode_key([name, children])), parts=found)
