"""The project's own modules among those that a process has imported, and which of their files changed since.

A project module is one with a source file that belongs neither to the standard library nor to an installed
distribution; an editable install's files count as the project's.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import msgspec

# clew is no part of the programs that it traces.
_OWN = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep
_MAIN = ("__main__", "__mp_main__")
# The interpreter reads the main file this soon after its start.
_MAIN_READ_SECONDS = 2.0


class ImportedModule(msgspec.Struct, frozen=True):
    """`file` is the source file's absolute path, with links in its folders resolved and in its name not."""

    name: str
    module: ModuleType
    file: str
    is_package: bool


def project_modules(modules: Mapping[str, ModuleType]) -> list[ImportedModule]:
    """The project modules among `modules`, by name. Runs no module's code, not even its `__getattr__`."""
    found = []
    real_folder = cache(os.path.realpath)
    modules = dict(modules)  # in one step: while items are gathered the collector may run, and other threads import
    for name, module in sorted(modules.items(), key=lambda item: str(item[0])):
        contents = _contents(module)
        file = contents.get("__file__")
        if not isinstance(file, str) or not file.endswith(".py") or _installed(os.path.dirname(file)):
            continue
        folder, base = os.path.split(file)
        folder = real_folder(folder)
        if _installed(folder) or not os.path.isfile(os.path.join(folder, base)):
            continue
        found.append(ImportedModule(name, module, os.path.join(folder, base), "__path__" in contents))
    return found


def is_project_file(file: Path) -> bool:
    """True unless the file lies in the standard library, among installed distributions or in their scripts folder."""
    return not _installed(os.fspath(file.parent)) and os.fspath(file.parent) not in _script_folders()


def changed_after_import(modules: list[ImportedModule]) -> list[str]:
    """Files whose present content is shown not to be what was imported, sorted.

    Only files touched since the process started are looked at. Of these a file has changed if the time and size of
    the source that its cached bytecode was compiled from are not today's, or if a function that lives in the module
    is not what today's source compiles to. The main file, which has no bytecode, has changed if it was written well
    after the start. A change of nothing but module-level statements in a process that writes no bytecode stays
    unnoticed, and so does one that restored the file's times.
    """
    changed = set()
    for imported in modules:
        try:
            status = os.stat(imported.file)
            if max(status.st_mtime, status.st_ctime) <= PROCESS_STARTED:
                continue
            late_main = imported.name in _MAIN and status.st_mtime > PROCESS_STARTED + _MAIN_READ_SECONDS
            if late_main or _bytecode_is_of_other_source(imported.module, status) or _functions_differ(imported):
                changed.add(imported.file)
        except OSError:
            changed.add(imported.file)
    return sorted(changed)


def _contents(module: object) -> Mapping[str, object]:
    """A module's dictionary; empty for the other things that programs put into `sys.modules`."""
    try:
        contents = object.__getattribute__(module, "__dict__")
    except AttributeError:
        return {}
    return contents if isinstance(contents, dict) else {}


@cache
def _installed(folder: str) -> bool:
    if not os.path.isabs(folder) or not {"site-packages", "dist-packages"}.isdisjoint(folder.split(os.sep)):
        return True
    return (folder + os.sep).startswith((*_library_folders(), _OWN))


@cache
def _library_folders() -> tuple[str, ...]:
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    return tuple({form + os.sep for path in paths for form in (path, os.path.realpath(path))})


@cache
def _script_folders() -> frozenset[str]:
    folders = {sysconfig.get_path("scripts"), os.path.dirname(sys.executable or "")} - {"", None}
    return frozenset(form for folder in folders for form in (folder, os.path.realpath(folder)))


def _bytecode_is_of_other_source(module: ModuleType, status: os.stat_result) -> bool:
    cached = _contents(module).get("__cached__")
    if sys.dont_write_bytecode or not isinstance(cached, str):
        return False
    try:
        with open(cached, "rb") as file:
            header = file.read(16)
    except OSError:
        return False
    if len(header) < 16 or header[4:8] != bytes(4):  # flags: checked by hash, not by time
        return False
    recorded = (int.from_bytes(header[8:12], "little"), int.from_bytes(header[12:16], "little"))
    return recorded != (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)


def _functions_differ(imported: ImportedModule) -> bool:
    # Another loader (test rewriting, type-checking hooks) compiles something else than the source as it stands.
    loader = _contents(imported.module).get("__loader__")
    if type(loader).__name__ != "SourceFileLoader" or type(loader).__module__ != "_frozen_importlib_external":
        return False
    with open(imported.file, "rb") as file:
        source = file.read()
    try:
        compiled = compile(source, imported.file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return True
    today = {_identity(code) for code in _nested(compiled)}
    return any(_identity(code) not in today for code in _living(imported.module))


def _living(module: ModuleType) -> Iterator[CodeType]:
    """Code of the functions and methods that stand in a module and were defined in its file."""
    contents = _contents(module)
    file = contents.get("__file__")
    owners = [contents, *(vars(v) for v in list(contents.values()) if isinstance(v, type))]
    for owner in owners:
        for value in list(owner.values()):
            if isinstance(value, FunctionType) and value.__code__.co_filename == file:
                yield value.__code__


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _identity(code: CodeType) -> tuple[object, ...]:
    constants = tuple((type(c).__name__, c) for c in code.co_consts if not isinstance(c, CodeType))
    return (code.co_qualname, code.co_firstlineno, code.co_code, code.co_names, code.co_varnames, constants)


def _process_started() -> float:
    """When this process started, in seconds since the epoch; where the system does not say, the time of this call."""
    now = time.time()
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        return now - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError, ValueError, IndexError):
        return now


# Read at import: a fork has a start of its own, after the imports that it inherited.
PROCESS_STARTED = _process_started()
