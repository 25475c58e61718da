"""Who writes a segment, and whether that process still lives.

An inherited lock does not tell (a forked child holds it too), and a pid alone is reused; host, boot, pid namespace, pid
and the process's start time together name one process.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

from clew.store.record import Segment


@cache
def host() -> str:
    """This machine's name."""
    return socket.gethostname()


@cache
def boot_id() -> str:
    """Names the running kernel; empty where the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def pid_namespace() -> str:
    """Names the space in which pids are unique."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def process_started(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 if it does not exist or the system does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == b"Z" else int(fields[19])


def state(segment: Segment) -> str:
    """ "alive", "dead", or "unknown" (another machine or pid namespace) of the process that wrote `segment`."""
    if segment.host != host():
        return "unknown"
    if segment.boot_id != boot_id():
        return "dead"
    if segment.pid_namespace != pid_namespace():
        return "unknown"
    if Path("/proc/self/stat").exists():
        return "alive" if process_started(segment.pid) == segment.pid_started else "dead"
    try:
        os.kill(segment.pid, 0)
    except ProcessLookupError:
        return "dead"
    except PermissionError:
        return "unknown"
    return "alive"
