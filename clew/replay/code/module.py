"""Where a module's code comes from: the project, a distribution or Python itself; and the source of a project module.

The source of a module counts with that of every project module it imports, for what stands in it may have been made by
any of them. It is the source that was imported: a file that was changed since is refused.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import os
import platform
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from clew.replay.code.owner import owners
from clew.replay.code.wrapper import CLEW, wrapped_by
from clew.store.digest import Digest, Domain, digest
from clew.store.errors import Unkeyable
from clew.tracer.imported import ImportedModule, changed_after_import, is_project_file
from clew.version import VERSION

PYTHON = f"{platform.python_implementation()} {platform.python_version()}"


class Source(NamedTuple):
    """One module's file: its digest, and the modules that its import statements name."""

    digest: Digest
    imports: tuple[str, ...]


_sources: dict[str, tuple[object, Source]] = {}


def contents(module: ModuleType) -> Mapping[str, object]:
    """The module's dictionary. Runs no code of it, not even its `__getattr__`."""
    found: Mapping[str, object] = object.__getattribute__(module, "__dict__")
    return found


_parsing = threading.Lock()
_TRIES = 5


def public_name(name: str) -> str:
    """The module's name; of the program's main file, the one it would be imported by."""
    if name != "__main__":
        return name
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None) or ""
    found: str = spec.name if spec is not None else file.replace("\\", "/").rpartition("/")[2].removesuffix(".py")
    return found or name


def name_in(thing: Any) -> str:
    """The full name of a class or function, wherever its module runs as the program's main file."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{public_name(str(named.__module__))}.{named.__qualname__}"


def versions(name: str) -> tuple[str, ...] | None:
    """What stands for the code of module `name`: Python's or a distribution's version; None if it is the project's.

    Unkeyable if it is installed and no distribution owns it.
    """
    top = name.partition(".")[0]
    if top == "clew":  # also in a checkout: what wraps the program's functions is no part of them
        return (f"clew {VERSION}",)
    file = _file(name)
    if file is None:
        return (PYTHON,) if top in sys.stdlib_module_names or top == "builtins" else None
    if is_project_file(Path(file)):
        return None
    if {"site-packages", "dist-packages"}.isdisjoint(file.split(os.sep)):
        return (PYTHON,)
    found = owners(top)
    if not found:
        raise Unkeyable(f"module {name} ({file}) is installed, but no distribution owns it: its version is unknown")
    return tuple(f"{owner} {version(owner)}" for owner in sorted(found))


@cache
def version(distribution: str) -> str:
    """The version that was installed when it was first asked for: that is the one that is loaded."""
    return importlib.metadata.version(distribution)


@cache
def is_installed(file: str) -> bool:
    """Whether a code object's file is one of Python or of a distribution. What `exec` made is the project's."""
    if file.startswith(("<frozen ", CLEW)):
        return True
    return os.path.isabs(file) and not is_project_file(Path(file))


def sources(name: str) -> Iterator[tuple[str, Source | tuple[str, ...]]]:
    """Module `name` and all that it imports, directly or not: project modules by source, others by version."""
    waiting, seen = [name], {name}
    while waiting:
        name = waiting.pop()
        known = versions(name) if name != "__main__" else None
        if known is not None:
            yield name, known
            continue
        source = source_of(name)
        if source is None:
            continue  # an optional import that is not there, or a name that is no module
        yield name, source
        new = [one for one in source.imports if one not in seen]
        seen.update(new)
        waiting.extend(new)


def source_of(name: str) -> Source | None:
    """The source of a project module, imported or not; None if there is no such module or file."""
    module = sys.modules.get(name)
    spec = contents(module).get("__spec__") if module is not None else None
    known = _sources.get(name)
    if known is not None and known[0] is spec and spec is not None:
        return known[1]
    file = _file(name)
    if file is None or not os.path.isfile(file):
        return None
    if module is not None and changed_after_import([ImportedModule(name, module, file, False)]):
        raise Unkeyable(f"{file} was changed after it was imported: its source is not the code that runs")
    with open(file, "rb") as opened:
        data = opened.read()
    source = Source(digest(Domain.BYTES, data), tuple(_imports(data, name, file)) if file.endswith(".py") else ())
    _sources[name] = (spec, source)  # reload gives a module a new spec
    return source


def absolute(name: str, level: int, package: str) -> str:
    """The full name of what ``from <level dots><name> import ...`` in `package` imports from."""
    if level == 0:
        return name
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])


def with_parents(name: str, names: tuple[str, ...]) -> Iterator[str]:
    """The modules that an import runs: the packages around `name`, itself, and whatever of `names` is a module."""
    parts = name.split(".")
    yield from (".".join(parts[: end + 1]) for end in range(len(parts)))
    yield from (f"{name}.{one}" for one in names)


def module_name(module: ModuleType) -> str:
    return str(contents(module).get("__name__"))


def is_of_its_module(function: FunctionType) -> bool:
    """Whether an installed function is one that its module defines, and not what a call made around something else."""
    for module in (str(function.__globals__.get("__name__")), str(function.__module__)):
        if module in sys.modules and versions(module) is not None and stands_in(function, module):
            return True
    return False


def is_of_project(function: Any) -> bool:
    """Whether a function is the project's own code; None is not. What `exec` made for a library, such as the methods of a
    dataclass, is the library's."""
    if function is None:
        return False
    file = function.__code__.co_filename
    if not file.startswith("<"):
        return not is_installed(file)
    name = str(getattr(function, "__globals__", {}).get("__name__"))
    with contextlib.suppress(Unkeyable):
        return name in sys.modules and versions(name) is None
    return False


def stands_in(thing: Any, module: str | None) -> bool:
    """Whether `module.qualified.name` is the thing: else it was made by a call, and what it was made from counts."""
    found: Any = sys.modules.get(module or "")
    for step in thing.__qualname__.split("."):
        found = getattr(found, "__dict__", {}).get(step)
        found = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
    return thing is found or thing is wrapped_by(found)


def _imports(data: bytes, name: str, file: str) -> Iterator[str]:
    package = name if os.path.basename(file) == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(_parsed(data)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from with_parents(alias.name, ())
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            yield from with_parents(absolute(node.module or "", node.level, package), names)


def _parsed(data: bytes) -> ast.AST:
    """The syntax tree of a source. Before Python 3.13 two threads that make trees at once can confuse each other, and
    one of them is told so by a SystemError."""
    for _ in range(_TRIES):
        with _parsing, contextlib.suppress(SystemError):
            return ast.parse(data)
    return ast.parse(data)


def _file(name: str) -> str | None:
    """The file of a module, found without running any: of one that is not imported, where the finders see it."""
    module = sys.modules.get(name)
    if module is not None:
        file = contents(module).get("__file__")
        return os.path.abspath(file) if isinstance(file, str) else None
    parent = name.rpartition(".")[0]
    path = _path(parent) if parent else None
    if parent and path is None:
        return None
    spec = _spec(name, path)
    return spec.origin if spec is not None and spec.has_location else None


def _path(package: str) -> list[str] | None:
    if package in sys.modules:
        path = contents(sys.modules[package]).get("__path__")
        return [str(one) for one in path] if isinstance(path, Iterable) else None
    parent = package.rpartition(".")[0]
    spec = _spec(package, _path(parent) if parent else None)
    try:
        return list(spec.submodule_search_locations or ()) if spec is not None else None
    except KeyError:
        return None


def _spec(name: str, path: list[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path) if hasattr(finder, "find_spec") else None
        except (ImportError, KeyError):  # a namespace package inside another asks for its parent in sys.modules
            continue
        if spec is not None:
            return spec
    return None
