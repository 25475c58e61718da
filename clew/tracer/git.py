"""A git repository as a run found it: commit, branch, remote and which files are its own.

Commit, branch and remote are read from the files of the `.git` folder. Only the list of files needs git itself: two
reading commands, run side by side, without locks, prompts, hooks or a file-system monitor that the repository names.
The user's own ignore rules apply; variables that would redirect git to another repository do not.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import msgspec

TIMEOUT_SECONDS = 5.0

_KEPT_VARIABLES = frozenset({"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"})
# A host, perhaps with a port, and no user before it.
_BARE_AUTHORITY = re.compile(r"(?:[^@:/?#\[]*|\[[0-9a-fA-F:.%]*\])(?::\d*)?(?:[/?#]|$)")
_SECTION = re.compile(r'^\[\s*([\w.-]+)(?:\s+"((?:[^"\\]|\\.)*)")?\s*\]')


class GitState(msgspec.Struct, frozen=True, kw_only=True):
    """`dirty` lists tracked paths that differ from the commit, staged or not, and `untracked` those that are not
    ignored; both are None if git could not be asked (not installed, too slow, or it distrusts the folder's owner)."""

    commit: str | None
    branch: str | None
    remote: str | None
    dirty: list[str] | None
    untracked: list[str] | None


class Repository(msgspec.Struct, frozen=True):
    """`folder` is this work tree's own git folder, `shared` the one where refs and configuration are kept."""

    root: Path
    folder: Path
    shared: Path


class Listing(msgspec.Struct, frozen=True):
    """Paths relative to the root, as git gives them; `untracked` and `dirty` are None if they took too long."""

    tracked: list[str]
    untracked: list[str] | None
    dirty: list[str] | None


def find(start: Path) -> Repository | None:
    """The repository whose work tree holds the folder `start`, the innermost one."""
    for root in (start, *start.parents):
        mark = root / ".git"
        folder = mark
        try:
            if mark.is_file():
                line = mark.read_text("utf-8", "surrogateescape").strip()
                if not line.startswith("gitdir:"):
                    continue
                folder = root / line.removeprefix("gitdir:").strip()
            if not (folder / "HEAD").is_file():
                continue
            common = folder / "commondir"
            shared = folder / common.read_text("utf-8", "surrogateescape").strip() if common.is_file() else folder
        except OSError:
            continue
        return Repository(root, folder, shared)
    return None


def state(repository: Repository, listing: Listing | None) -> GitState:
    """What the repository says about itself, together with what `listing` found."""
    commit, branch = _head(repository)
    return GitState(
        commit=commit,
        branch=branch,
        remote=_remote(repository, branch),
        dirty=listing.dirty if listing else None,
        untracked=listing.untracked if listing else None,
    )


def listing(repository: Repository, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Listing | None:
    """The files of the work tree, submodules' tracked files included; None if git cannot tell."""
    git = shutil.which("git")
    if git is None:
        return None
    deadline = time.monotonic() + timeout_seconds
    tracked_call = _start(git, repository.root, "ls-files", "-z", "--cached", "--recurse-submodules")
    status_call = _start(git, repository.root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
    tracked = _finish(tracked_call, deadline)
    status = _finish(status_call, deadline)
    if tracked is None:
        return None
    # An unmerged path stands in the index once per side.
    paths = sorted(set(_paths(tracked)))
    if status is None:
        return Listing(paths, None, None)
    entries = _paths(status)
    return Listing(
        paths,
        sorted(entry[3:] for entry in entries if entry.startswith("??")),
        sorted(entry[3:] for entry in entries if not entry.startswith("??")),
    )


def without_credentials(url: str) -> str:
    """The URL of a remote without user, password, query and fragment; the bare user `git` stays.

    >>> without_credentials("https://me:token@example.org/team/app.git?key=1")
    'https://example.org/team/app.git'
    >>> without_credentials("git@example.org:team/app.git")
    'git@example.org:team/app.git'
    """
    helper, mark, address = url.partition("::")
    if mark and helper.replace("-", "").isalnum():
        # `ext::` runs a command, which may hold anything.
        return "ext::" if helper == "ext" else f"{helper}::{without_credentials(address)}"
    scheme, mark, rest = url.partition("://")
    if mark:
        user = re.split("[:@/]", rest, maxsplit=1)[0]
        if not _BARE_AUTHORITY.match(rest):
            # A password may hold an unescaped slash or question mark: whatever stands before the last @ goes.
            rest = rest.rpartition("@")[2] if "@" in rest else ""
            rest = f"git@{rest}" if user == "git" and scheme in ("ssh", "git+ssh") else rest
        return f"{scheme}://{re.split('[?#]', rest, maxsplit=1)[0]}"
    if url.startswith(("/", ".")):
        return url
    before, at, after = url.rpartition("@")
    if at and ":" in after and before != "git":
        return after
    return url


def _head(repository: Repository) -> tuple[str | None, str | None]:
    if (repository.shared / "reftable").is_dir():
        return _head_from_git(repository)
    try:
        head = (repository.folder / "HEAD").read_text("utf-8", "surrogateescape").strip()
        if not head.startswith("ref:"):
            return head or None, None
        ref = head.removeprefix("ref:").strip()
        if not ref.startswith("refs/") or ".." in ref:
            return None, None
        return _resolve(repository, ref), ref.removeprefix("refs/heads/")
    except OSError:
        return None, None


def _resolve(repository: Repository, ref: str) -> str | None:
    for folder in (repository.folder, repository.shared):
        loose = folder / ref
        if loose.is_file():
            return loose.read_text("ascii", "replace").strip() or None
    packed = repository.shared / "packed-refs"
    if packed.is_file():
        for line in packed.read_text("utf-8", "surrogateescape").splitlines():
            commit, _, name = line.partition(" ")
            if name == ref:
                return commit
    return None


def _head_from_git(repository: Repository) -> tuple[str | None, str | None]:
    git = shutil.which("git")
    if git is None:
        return None, None
    deadline = time.monotonic() + TIMEOUT_SECONDS
    commit = _finish(_start(git, repository.root, "rev-parse", "--verify", "-q", "HEAD"), deadline)
    branch = _finish(_start(git, repository.root, "symbolic-ref", "-q", "--short", "HEAD"), deadline)
    return (os.fsdecode(commit).strip() if commit else None), (os.fsdecode(branch).strip() if branch else None)


def _remote(repository: Repository, branch: str | None) -> str | None:
    """The URL that the branch follows, else `origin`, else the first remote that is configured."""
    try:
        text = (repository.shared / "config").read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    urls: dict[str, str] = {}
    followed: str | None = None
    section: tuple[str, str | None] = ("", None)
    for raw in text.splitlines():
        line = raw.strip()
        if header := _SECTION.match(line):
            section = (header[1].lower(), header[2])
            line = line[header.end() :].strip()
        key, _, value = (part.strip() for part in line.partition("="))
        match section, key.lower():
            case ("remote", str(name)), "url":
                urls.setdefault(name, value.strip('"'))
            case ("branch", str(name)), "remote" if name == branch:
                followed = value
    for chosen in (followed or "origin", "origin", *urls):
        if chosen in urls:
            return without_credentials(urls[chosen])
    return None


def _start(git: str, root: Path, *arguments: str) -> subprocess.Popen[bytes] | None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k in _KEPT_VARIABLES}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    safely = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
    command = [git, "-C", os.fspath(root), *safely, *arguments]
    try:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return None


def _finish(call: subprocess.Popen[bytes] | None, deadline: float) -> bytes | None:
    if call is None:
        return None
    with call:
        try:
            output, _ = call.communicate(timeout=max(deadline - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            call.kill()
            return None
        return output if call.returncode == 0 else None


def _paths(output: bytes) -> list[str]:
    return [os.fsdecode(path) for path in output.split(b"\0") if path]
