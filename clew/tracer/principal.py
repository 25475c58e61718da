"""Who ran it and where: the OS user, the host and the container.

Kept apart from the environment, so that two people with the same environment have the same record of it.
"""

from __future__ import annotations

import os
import re

import msgspec

_CONTAINER_ID = re.compile(rb"(?:docker|containers|libpod|cri-containerd|crio|kubepods)\S*?[/\-:]([0-9a-f]{64})\b")


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """`user` is the name of the effective user id, None where the system has no name for it (containers)."""

    user: str | None
    user_id: int
    host: str
    container_id: str | None


def capture() -> Principal:
    """Who this process runs as. Reads; never raises."""
    user_id = os.geteuid()
    return Principal(user=_user(user_id), user_id=user_id, host=os.uname().nodename, container_id=_container_id())


def _user(user_id: int) -> str | None:
    import pwd

    try:
        return pwd.getpwuid(user_id).pw_name
    except (KeyError, OSError):
        return None


def _container_id() -> str | None:
    """The runtime's 64 hex digits, where the control groups or the mounts that it makes still name them."""
    for name in ("/proc/self/cgroup", "/proc/self/mountinfo"):
        try:
            with open(name, "rb") as file:
                text = file.read()
        except OSError:
            continue
        if found := _CONTAINER_ID.search(text):
            return found[1].decode()
    return None
