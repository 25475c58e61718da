"""The machine and its operating system, without what names this one machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """`libc` is such as "glibc 2.36" or "musl"; `cpus_usable` counts the CPUs that this process may run on."""

    os: str
    kernel: str
    distribution: str | None
    architecture: str
    libc: str | None
    cpu_model: str | None
    cpu_count: int | None
    cpus_usable: int | None
    memory_bytes: int | None


def capture() -> Machine:
    """This machine. Reads; never raises."""
    names = os.uname()
    return Machine(
        os=names.sysname,
        kernel=names.release,
        distribution=_distribution(),
        architecture=names.machine,
        libc=_libc(),
        cpu_model=_cpu_model(),
        cpu_count=os.cpu_count(),
        cpus_usable=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        memory_bytes=_memory_bytes(),
    )


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except (OSError, AttributeError):
        return platform.mac_ver()[0] or None


def _libc() -> str | None:
    # platform.libc_ver() searches the interpreter's binary; the C library answers for itself.
    try:
        if version := os.confstr("CS_GNU_LIBC_VERSION"):
            return version
    except (ValueError, OSError):
        pass
    return "musl" if any(Path("/lib").glob("ld-musl-*")) else None


def _cpu_model() -> str | None:
    # The first processor is enough: the whole file of a large machine takes the kernel milliseconds.
    try:
        descriptor = os.open("/proc/cpuinfo", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, 4096).decode("utf-8", "replace")
        finally:
            os.close(descriptor)
    except OSError:
        return None
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    if model := fields.get("model name") or fields.get("Model"):
        return model
    arm = [fields[key] for key in ("CPU implementer", "CPU part") if key in fields]
    return " ".join(arm) or None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
