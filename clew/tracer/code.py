"""The code of a run by content: which files the program consists of, as they are on disk now.

In a git repository these are the tracked and the untracked, not ignored files; elsewhere the files of a few kinds
under the entry's folder. The entry and imported project modules are taken in either case, those from outside the root
under a folder of their own (`modules_folder`), laid out so that it can stand on `sys.path`. Names in `exclusion` never
enter. Pure: no store is touched, and equal trees give equal lists.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

import msgspec

from clew.store.digest import DigestStream, Domain
from clew.tracer import exclusion, git
from clew.tracer.git import GitState
from clew.tracer.imported import ImportedModule, changed_after_import, is_project_file, project_modules

SUFFIXES = (".py", ".ipynb", ".toml", ".yaml", ".yml", ".json", ".txt", ".md")
CODE_SUFFIXES = (".py", ".pyi", ".ipynb", ".toml", ".cfg", ".lock")
CONTENT_LIMIT_BYTES = 1_000_000
TOTAL_LIMIT_BYTES = 50_000_000
# Large files are hashed, which a folder of data sets next to the code must not turn into minutes.
HASHED_LIMIT_BYTES = 250_000_000
FILE_LIMIT = 20_000
WALK_LIMIT = 50_000

_PIECE_BYTES = 1 << 20


class CodeFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file. `path` is relative to the tree, with `/`. Exactly one of the last three is set: the bytes; above
    1 MB the digest of the bytes alone; for a symbolic link to somewhere inside the tree its target, relative to the
    link's folder."""

    path: str
    size_bytes: int
    executable: bool = False
    content: bytes | None = None
    digest: str | None = None
    link: str | None = None


class Omission(msgspec.Struct, frozen=True, order=True):
    """What was left out and why. A path that ends in `/` stands for `count` files in that folder."""

    path: str
    reason: str
    count: int = 1


class CodeTree(msgspec.Struct, frozen=True, kw_only=True):
    """Files and omissions are sorted by path. `source` says what chose the files: "git", "folder" or, where the
    entry lies in a home or temporary folder, "imports" (the entry and imported modules only)."""

    root: str
    source: str
    files: list[CodeFile]
    omissions: list[Omission]
    git: GitState | None
    modules_folder: str
    changed_after_import: list[str]


def capture(entry: Path | None, *, cwd: Path, modules: Mapping[str, ModuleType] | None = None) -> CodeTree:
    """The code tree of the program that `entry` started, or of `cwd` where there is no entry (notebook, REPL, `-c`)
    or it is an installed program's script. Reads files and asks git; raises nothing for what cannot be read."""
    imported = project_modules(sys.modules if modules is None else modules)
    main = Path(os.path.realpath(entry)) if entry is not None else None
    if main is not None and not (main.is_file() and is_project_file(main)):
        main = None
    start = _above_package(main.parent) if main else Path(os.path.realpath(cwd))

    repository = git.find(start)
    if repository and exclusion.is_gathering_place(repository.root):
        repository = None
    listing = git.listing(repository) if repository else None
    root = repository.root if repository and listing else start
    collection = _Collection(os.fspath(root))

    untracked: set[str] = set()
    if listing:
        source = "git"
        untracked.update(listing.untracked or ())
        listed = _listed([*listing.tracked, *untracked], collection)
        if listing.untracked is None:
            collection.omit("./", "untracked files: git status took too long")
    elif exclusion.is_gathering_place(root):
        source, listed = "imports", []
        collection.omit("./", "a home or temporary folder is not taken for a project")
    else:
        source, listed = "folder", _walked(collection)

    needed = {path: file for file, path in _needed(main, imported, collection.root)}
    outside = {file: module for module in imported if (file := _outside(module, collection.root))}
    for path in sorted(set(needed) | set(listed), key=lambda p: _rank(p, needed, untracked)):
        collection.add(os.path.join(collection.root, path), path)
    modules_folder = collection.free_folder("modules")
    for file, module in sorted(outside.items(), key=lambda item: item[1].name):
        collection.add(file, f"{modules_folder}/{_module_path(module)}")

    placed = {os.path.join(collection.root, path): path for path in needed}
    placed |= {file: f"{modules_folder}/{_module_path(module)}" for file, module in outside.items()}
    changed = [placed.get(os.path.realpath(file), placed.get(file)) for file in changed_after_import(imported)]
    return CodeTree(
        root=_printable(collection.root),
        source=source,
        files=sorted(collection.files.values(), key=lambda file: file.path),
        omissions=collection.all_omissions(),
        git=_printable_state(git.state(repository, listing)) if repository else None,
        modules_folder=modules_folder,
        changed_after_import=sorted({_printable(path) for path in changed if path is not None}),
    )


class _Collection:
    """Files taken so far, and what may still be taken."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.files: dict[str, CodeFile] = {}
        self._omissions: set[Omission] = set()
        self._crowds: Counter[tuple[str, str]] = Counter()
        self._content_left = TOTAL_LIMIT_BYTES
        self._hashed_left = HASHED_LIMIT_BYTES
        self._real_folder = cache(os.path.realpath)

    def omit(self, path: str, reason: str) -> None:
        self._omissions.add(Omission(_printable(path), reason))

    def _omit_in_crowd(self, path: str, reason: str) -> None:
        folder = os.path.dirname(path)
        self._crowds[f"{_printable(folder)}/" if folder else "./", reason] += 1

    def all_omissions(self) -> list[Omission]:
        crowds = [Omission(folder, reason, count) for (folder, reason), count in self._crowds.items()]
        return sorted([*self._omissions, *crowds])

    def free_folder(self, name: str) -> str:
        """`name`, with underscores before it while the tree has a folder of that name."""
        taken = {path.partition("/")[0] for path in self.files}
        while name in taken:
            name = f"_{name}"
        return name

    def add(self, file: str, path: str) -> None:
        """Take the file under `path`, or note why not. A path that vanished is no omission: git reports it as dirty."""
        if path in self.files:
            return
        if exclusion.is_secret(os.path.basename(path)):
            self.omit(path, "may hold secrets")
        elif _printable(path) != path:
            self.omit(path, "its name is not UTF-8")
        elif len(self.files) >= FILE_LIMIT:
            self._omit_in_crowd(path, f"over {FILE_LIMIT} files in all")
        elif self._real_folder(folder := os.path.dirname(file)) == folder:
            self._open(file, path)
        # Otherwise it lies below a link, which is a file of its own.

    def _open(self, file: str, path: str) -> None:
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ELOOP:
                self._add_link(file, path)
            elif error.errno not in (errno.ENOENT, errno.ENOTDIR):
                self.omit(path, f"not readable: {os.strerror(error.errno or 0)}")
            return
        try:
            self._add_open(descriptor, path)
        except OSError as error:
            self.omit(path, f"not readable: {os.strerror(error.errno or 0)}")
        finally:
            os.close(descriptor)

    def _add_open(self, descriptor: int, path: str) -> None:
        status = os.fstat(descriptor)
        executable = bool(status.st_mode & 0o111)
        if stat.S_ISDIR(status.st_mode):
            self.omit(path.rstrip("/"), "a repository of its own")
        elif not stat.S_ISREG(status.st_mode):
            self.omit(path, "not a regular file")
        elif status.st_size > CONTENT_LIMIT_BYTES and status.st_size > self._hashed_left:
            self.omit(path, f"over {HASHED_LIMIT_BYTES // 1_000_000} MB of large files in all")
        elif status.st_size > CONTENT_LIMIT_BYTES:
            self._hashed_left -= status.st_size
            size_bytes, digest = _digest(descriptor)
            self.files[path] = CodeFile(path=path, size_bytes=size_bytes, executable=executable, digest=digest)
        elif status.st_size > self._content_left:
            self._omit_in_crowd(path, f"over {TOTAL_LIMIT_BYTES // 1_000_000} MB of content in all")
        else:
            content = _read(descriptor, status.st_size)
            self._content_left -= len(content)
            self.files[path] = CodeFile(path=path, size_bytes=len(content), executable=executable, content=content)

    def _add_link(self, file: str, path: str) -> None:
        target = os.path.realpath(file)
        inside = _relative(target, self.root)
        link = os.path.relpath(target, os.path.dirname(file)).replace(os.sep, "/")
        if inside is None:
            self.omit(path, "a link out of the tree")
        elif reason := _reason(inside):
            self.omit(path, f"a link to what is left out ({reason})")
        elif _printable(link) != link:
            self.omit(path, "its target's name is not UTF-8")
        else:
            self.files[path] = CodeFile(path=path, size_bytes=0, link=link)


def _listed(paths: Iterable[str], collection: _Collection) -> list[str]:
    """Git's list without folders that are left out by name or by a file in them."""
    unique = sorted(set(paths))
    marks = {
        os.path.dirname(path): "virtual environment" if path.endswith(exclusion.ENVIRONMENT_MARK) else "cache"
        for path in unique
        if os.path.basename(path) in (exclusion.ENVIRONMENT_MARK, exclusion.CACHE_MARK) and "/" in path
    }

    @cache
    def left_out(folder: str) -> tuple[str, str] | None:
        if not folder:
            return None
        above = left_out(os.path.dirname(folder))
        reason = marks.get(folder) or exclusion.folder_reason(os.path.basename(folder))
        return above or ((folder, reason) if reason else None)

    kept = []
    for path in unique:
        out = left_out(os.path.dirname(path))
        if out is None:
            kept.append(path)
        elif out[1] != "cache":
            collection.omit(f"{out[0]}/", out[1])
    return kept


def _walked(collection: _Collection) -> list[str]:
    """Files of the chosen kinds under the root, nearest folders first, links to folders not followed."""
    found: list[str] = []
    folders = [""]
    seen = 0
    for folder in folders:  # grows while it is read
        try:
            with os.scandir(os.path.join(collection.root, folder)) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            collection.omit(f"{folder}/", f"not readable: {os.strerror(error.errno or 0)}")
            continue
        names = {entry.name for entry in entries}
        if folder and (reason := _marked(names, entries)):
            if reason != "cache":
                collection.omit(f"{folder}/", reason)
            continue
        seen += len(entries)
        if seen > WALK_LIMIT:
            collection.omit("./", f"the walk stopped after {WALK_LIMIT} names")
            break
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                reason = exclusion.folder_reason(entry.name)
                if reason is None:
                    folders.append(path)
                elif reason != "cache":
                    collection.omit(f"{path}/", reason)
            elif entry.name.endswith(SUFFIXES) or exclusion.is_secret(entry.name):
                found.append(path)
    return found


def _marked(names: set[str], entries: list[os.DirEntry[str]]) -> str | None:
    if exclusion.ENVIRONMENT_MARK in names or "conda-meta" in names:
        return "virtual environment"
    if exclusion.CACHE_MARK in names:
        return "cache"
    if ".gitignore" in names:
        # Caches, environments and a store say so themselves: ignore all of this.
        ignore = next(entry.path for entry in entries if entry.name == ".gitignore")
        try:
            with open(ignore, "rb") as file:
                return "cache" if b"*" in file.read(4096).split() else None
        except OSError:
            return None
    return None


def _needed(main: Path | None, imported: list[ImportedModule], root: str) -> Iterable[tuple[str, str]]:
    """(file, path) of the entry and the imported modules inside the root, and of what they link to there."""
    files = [os.fspath(main)] if main else []
    for file in [*files, *(module.file for module in imported)]:
        for form in {file, os.path.realpath(file) if os.path.islink(file) else file}:
            path = _relative(form, root)
            if path is not None and not _folders_reason(path):
                yield form, path


def _outside(module: ImportedModule, root: str) -> str | None:
    """The real file of a module that no path inside the root leads to; None if the root has it."""
    file = os.path.realpath(module.file) if os.path.islink(module.file) else module.file
    return None if _relative(file, root) is not None else file


def _module_path(module: ImportedModule) -> str:
    if module.name in ("__main__", "__mp_main__"):
        return os.path.basename(module.file)
    return module.name.replace(".", "/") + ("/__init__.py" if module.is_package else ".py")


def _above_package(folder: Path) -> Path:
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


def _rank(path: str, needed: Mapping[str, str], untracked: set[str]) -> tuple[bool, bool, bool, str]:
    """What is taken first where not all can be: what runs, then code, then what git knows."""
    return (path not in needed, not path.endswith(CODE_SUFFIXES), path in untracked, path)


def _relative(file: str, root: str) -> str | None:
    prefix = root if root.endswith(os.sep) else root + os.sep
    return file[len(prefix) :].replace(os.sep, "/") if file.startswith(prefix) else None


def _folders_reason(path: str) -> str | None:
    return next((reason for part in path.split("/")[:-1] if (reason := exclusion.folder_reason(part))), None)


def _reason(path: str) -> str | None:
    return "may hold secrets" if exclusion.is_secret(os.path.basename(path)) else _folders_reason(path)


def _read(descriptor: int, size: int) -> bytes:
    """Up to `size` bytes: a file that is growing is taken as it was when its size was asked."""
    pieces = []
    while size > 0 and (piece := os.read(descriptor, size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _digest(descriptor: int) -> tuple[int, str]:
    stream = DigestStream(Domain.BYTES)
    size_bytes = 0
    while piece := os.read(descriptor, _PIECE_BYTES):
        stream.update(piece)
        size_bytes += len(piece)
    return size_bytes, str(stream.digest())


def _printable(path: str) -> str:
    """The path with bytes that are no UTF-8 written as escapes: a record must be encodable."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _printable_state(state: GitState) -> GitState:
    def all_of(paths: list[str] | None) -> list[str] | None:
        return None if paths is None else [_printable(path) for path in paths]

    return msgspec.structs.replace(
        state,
        branch=_printable(state.branch) if state.branch else None,
        remote=_printable(state.remote) if state.remote else None,
        dirty=all_of(state.dirty),
        untracked=all_of(state.untracked),
    )
