"""Installed distributions: name, version and a digest of what was installed.

Names and versions come from the folders' names and digests from the bytes of their RECORD, as `importlib.metadata`
takes ten times as long to say the same.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable

import msgspec

from clew.store.digest import Domain, digest
from clew.tracer.git import without_credentials

# Lines of RECORD that differ from one installation of a wheel to the next: scripts, whose first line names the
# interpreter, editable hooks, which name a folder, and what installers note about themselves. So does bytecode.
_LOCAL_LINES = (b"../", b'"../', b"/", b"__editable__", b"_editable_impl_", b"__editable_impl_")
_INSTALLER_NOTES = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json")
_SEPARATORS = re.compile(r"[-_.]+")


class Distribution(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """`name` is normalised (PEP 503). `digest` is of the lines of RECORD that name the wheel's own files, sorted: the
    same wheel has the same one in any environment; None where the installer left no RECORD. `source` is where a
    distribution that came from no index was taken from, with the commit or hash if it is known."""

    name: str
    version: str
    digest: str | None = None
    editable: bool = False
    source: str | None = None


def capture(paths: Iterable[str] | None = None) -> list[Distribution]:
    """The distributions that can be imported from `paths` (`sys.path`), sorted by name; of two with the same name
    the one that comes first on the path."""
    found: dict[str, Distribution] = {}
    for path in dict.fromkeys(os.path.realpath(path or ".") for path in (sys.path if paths is None else paths)):
        try:
            names = sorted(os.listdir(path))
        except OSError:
            continue
        for entry in names:
            if entry.endswith((".dist-info", ".egg-info", ".egg-link")):
                distribution = _read(path, entry)
                if distribution:
                    found.setdefault(distribution.name, distribution)
    return [found[name] for name in sorted(found)]


def _read(path: str, entry: str) -> Distribution | None:
    folder = os.path.join(path, entry)
    stem, suffix = os.path.splitext(entry)
    if suffix == ".egg-link":
        return Distribution(name=_normalised(stem), version="", editable=True)
    name, _, version = stem.partition("-")
    if suffix == ".egg-info":
        # Setuptools puts one beside the source of an editable install, without a version in its name.
        version = version.partition("-py")[0] or _version(os.path.join(folder, "PKG-INFO")) or ""
        return Distribution(name=_normalised(name), version=version, editable="-" not in stem)
    record = _bytes(os.path.join(folder, "RECORD"))
    editable, source = _source(_bytes(os.path.join(folder, "direct_url.json")))
    if record is None and not os.path.exists(os.path.join(folder, "METADATA")):
        return None  # left behind by an uninstall
    return Distribution(
        name=_normalised(name),
        version=version or _version(os.path.join(folder, "METADATA")) or "",
        digest=None if record is None else _record_digest(record, entry),
        editable=editable,
        source=source,
    )


def _record_digest(record: bytes, entry: str) -> str:
    """Made once of each RECORD that a process reads: a program may start the tracer more than once."""
    key = (entry, bytes(digest(Domain.BYTES, record)))
    found = _digests.get(key)
    if found is None:
        if len(_digests) >= _REMEMBERED:
            _digests.clear()
        found = _digests[key] = _made(record, entry)
    return found


_digests: dict[tuple[str, bytes], str] = {}
_REMEMBERED = 4096


def _made(record: bytes, entry: str) -> str:
    local = (*_LOCAL_LINES, *(f"{entry}/{note},".encode() for note in _INSTALLER_NOTES))
    # Bytecode and RECORD itself stand there without a hash. A search of the whole is cheaper than one of each line.
    lines = [line for line in record.split(b"\n") if not line.endswith((b",,", b",,\r"))]
    lines = [line for line in lines if not line.startswith(local)]
    for mark in (b".pyc,sha", b".pth,"):
        if mark in record:
            lines = [line for line in lines if mark not in line]
    if b"\r" in record:
        lines = [line.rstrip(b"\r") for line in lines]
    return str(digest(Domain.BYTES, b"\n".join(sorted(lines))))


def _source(direct_url: bytes | None) -> tuple[bool, str | None]:
    if direct_url is None:
        return False, None
    try:
        told = json.loads(direct_url)
        url = str(told["url"])
        if "dir_info" in told:
            return bool(told["dir_info"].get("editable")), None  # a folder of this machine
        if vcs := told.get("vcs_info"):
            return False, f"{vcs['vcs']}+{without_credentials(url)}@{vcs['commit_id']}"
        archive = told.get("archive_info", {})
        hashes = archive.get("hashes") or {}
        mark = next((f"{name}={value}" for name, value in sorted(hashes.items())), archive.get("hash"))
        shown = url.rpartition("/")[2] if url.startswith("file:") else without_credentials(url)
        return False, f"{shown}#{mark}" if mark else shown
    except (ValueError, KeyError, TypeError, AttributeError):
        return False, None


def _normalised(name: str) -> str:
    return _SEPARATORS.sub("-", name).lower()


def _version(metadata: str) -> str | None:
    for line in (_bytes(metadata) or b"").splitlines():
        if line.startswith(b"Version:"):
            return line.removeprefix(b"Version:").strip().decode("utf-8", "replace")
        if not line:
            return None
    return None


def _bytes(file: str) -> bytes | None:
    try:
        with open(file, "rb", buffering=0) as opened:
            return opened.read()
    except OSError:
        return None
