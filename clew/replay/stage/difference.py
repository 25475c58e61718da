"""What differs between the recorded circumstances of a program and today's, named before it runs again."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import sqlalchemy as sa

from clew.lineage.reader import Reader
from clew.lineage.view import span_views
from clew.replay.stage import variable
from clew.replay.stage.original import file_digest, opened
from clew.replay.stage.recorded import Recorded, recorded_process
from clew.replay.stage.working import changed_files
from clew.store import catalog
from clew.store.catalog import Relation
from clew.store.digest import Domain
from clew.tracer import environment
from clew.tracer.distribution import Distribution
from clew.tracer.environment import Environment

_SET_BY_LIBRARIES = {"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"}  # by scikit-learn, when it is imported


@dataclasses.dataclass(frozen=True)
class Difference:
    """One thing that is not as it was recorded.

    `kind`: "python", "platform", "distribution", "variable", "file" (that the program read), "code" (a file of the working
    tree, of which the recorded one runs), "import" (changed under the running program), "folder", "hash seed". `recorded`
    and `now` are None where there was or is nothing.
    """

    kind: str
    name: str
    recorded: str | None
    now: str | None
    note: str = ""

    def __str__(self) -> str:
        told = "" if self.recorded is self.now is None else f": {_short(self.recorded)} -> {_short(self.now)}"
        return f"{self.kind} {self.name}{told}" + (f" ({self.note})" if self.note else "")

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        return dataclasses.asdict(self)


def _short(text: str | None) -> str:
    return "nothing" if text is None else f"{text[:11]}…" if text.startswith("b3:") else text


def differences(reader: Reader, process: Recorded | str | bytes) -> list[Difference]:
    """What differs now from when the process was recorded, in the order of its weight. Looks, and changes nothing.

    Distributions are those that this process's interpreter sees.
    """
    recorded = process if isinstance(process, Recorded) else recorded_process(reader, process)
    found = [*_folders(recorded), *_files(reader, recorded), *_imports(recorded)]
    if recorded.environment is not None:
        found += environment_differences(recorded.environment, environment.capture())
    if recorded.entry.hash_seed is None:
        found.append(Difference("hash seed", "PYTHONHASHSEED", "random", "0", "sets had an order of that run's own"))
    return found + _code(reader, recorded)


def environment_differences(then: Environment, now: Environment) -> list[Difference]:
    """Python, platform, distributions, devices and variables that are not as they were. Variables that a replay sets as
    they were recorded are none."""
    facts = (
        ("python", "version", then.python.version, now.python.version),
        ("python", "implementation", then.python.implementation, now.python.implementation),
        ("platform", "platform", then.python.platform, now.python.platform),
        ("platform", "gpu", _gpus(then), _gpus(now)),
    )
    found = [Difference(kind, name, before, after) for kind, name, before, after in facts if before != after]
    found += _distributions(then.distributions, now.distributions)
    for name in sorted(then.variables.keys() | now.variables.keys()):
        before, after = then.variables.get(name), now.variables.get(name)
        if name in _SET_BY_LIBRARIES and (before is None or after is None):
            continue
        if name in variable.SAID or (variable.is_carried(name) and not (before and variable.is_redacted(before))):
            continue
        if before != after:
            found.append(Difference("variable", name, before, after))
    return found


def _gpus(of: Environment) -> str | None:
    return ", ".join(one.name for one in of.gpus) or None


def _distributions(then: list[Distribution], now: list[Distribution]) -> list[Difference]:
    before, after = ({one.name: one for one in some} for some in (then, now))
    found: list[Difference] = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None or new is None or old.version != new.version:
            found.append(Difference("distribution", name, _version(old), _version(new)))
        elif old.digest and new.digest and old.digest != new.digest:
            found.append(Difference("distribution", name, old.version, new.version, "the same version, other content"))
    return found


def _version(of: Distribution | None) -> str | None:
    """What to call a version; one that an editable install does not tell is not nothing."""
    return None if of is None else of.version or "unknown"


def _folders(recorded: Recorded) -> list[Difference]:
    cwd = recorded.entry.cwd
    if cwd is None or not os.path.isdir(cwd):
        return [Difference("folder", "working folder", cwd, None, "the program cannot run where it ran")]
    return []


def _files(reader: Reader, recorded: Recorded) -> list[Difference]:
    """Files that spans of the process read, under the name that they were read by."""
    found: list[Difference] = []
    for path, digest in sorted(_read(reader, recorded.process_id)):
        place = os.path.join(recorded.entry.cwd or "", path)
        if variable.is_redacted(path) or not os.path.isabs(place):
            found.append(Difference("file", path, digest, None, "its place is not recorded"))
            continue
        now = _digest_now(place)
        if now != digest:
            found.append(Difference("file", path, digest, now, "the program will read it as it is now"))
    return found


def _read(reader: Reader, process_id: str) -> set[tuple[str, str]]:
    """(path, digest) of the files that spans of a process used."""
    span, run, edge, node, word = catalog.span.c, catalog.run.c, catalog.edge.c, catalog.node.c, catalog.word.c
    spans = (
        sa.select(span.id)
        .distinct()
        .join(catalog.run, run.id == span.run)
        .join(catalog.edge, sa.and_(edge.src == span.id, edge.relation == int(Relation.USED)))
        .join(catalog.node, node.id == edge.dst)
        .join(catalog.word, word.id == node.kind)
        .where(run.process_id == bytes.fromhex(process_id), word.text == "file")
    )
    with reader.connection() as connection:
        return {
            (slot.name, slot.digest)
            for number in connection.execute(spans).scalars().all()
            for view in span_views(reader.store, connection, None, only=number)
            for slot in view.used
            if slot.kind == "file" and slot.domain == Domain.BYTES and slot.name
        }


def _digest_now(place: str) -> str | None:
    descriptor = opened(os.path.realpath(place))
    if descriptor is None:
        return None
    try:
        return file_digest(descriptor)
    finally:
        os.close(descriptor)


def _imports(recorded: Recorded) -> list[Difference]:
    return [
        Difference(
            "import", path, None, None, "it was changed after it was imported: what is stored may not be what ran"
        )
        for path in recorded.code.changed_after_import
    ]


def _code(reader: Reader, recorded: Recorded) -> list[Difference]:
    digests = {file.path: file.digest or file.link for file in recorded.code.files}
    return [
        Difference("code", one.path, digests.get(one.path), one.change, "the recorded code runs, not the working tree")
        for one in changed_files(reader, recorded)
    ]
