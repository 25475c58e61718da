"""What a process is told that replays a recorded one: in a file that the variable CLEW_REPLAY names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from clew.store.errors import NotReplayable


class Told(msgspec.Struct, kw_only=True, frozen=True):
    """The run that is replayed, in which store, on what terms. `certificate` is the file to write the certificate to."""

    store: str
    run_id: str
    terms: dict[str, Any]
    patches: list[dict[str, Any]]
    certificate: str
    code: str
    code_digest: str | None = None  # of the recorded code, where that runs
    travel: bool = False
    hosts: list[str] = []
    differences: list[str] = []


def write(path: Path, told: Told) -> None:
    """Write the file, for this user alone to read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(told))


def read(path: str) -> Told:
    """What the file says. NotReplayable where it is none."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Told)
    except (OSError, msgspec.MsgspecError) as error:
        raise NotReplayable(f"CLEW_REPLAY names {path}, which does not say what is replayed: {error}") from error
