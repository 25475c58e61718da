"""The container that a process runs in, if any, and what its control groups allow."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

_UNLIMITED_V1 = 1 << 60
_IMAGE = re.compile(r'^image="([^"]+)"', re.MULTILINE)


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """`runtime` and `image` are None where nothing tells them: docker does not tell the image to those inside.
    Limits hold outside of containers too, under a batch system or systemd."""

    runtime: str | None = None
    image: str | None = None
    cpu_limit: float | None = None
    memory_limit_bytes: int | None = None


def capture(root: Path = Path("/")) -> Container | None:
    """The container seen in the files under `root`; None where there is neither a container nor a limit."""
    runtime, image = _runtime(root)
    cpu_limit, memory_limit_bytes = _limits(root)
    found = Container(runtime=runtime, image=image, cpu_limit=cpu_limit, memory_limit_bytes=memory_limit_bytes)
    return found if found != Container() else None


def _runtime(root: Path) -> tuple[str | None, str | None]:
    if (containerenv := _text(root / "run/.containerenv")) is not None:
        image = _IMAGE.search(containerenv)
        return "podman", image[1] if image else None
    for name in ("apptainer", "singularity"):
        if (root / f".{name}.d").is_dir():
            return name, None
    if (root / ".dockerenv").exists():
        return "docker", None
    if (root / "var/run/secrets/kubernetes.io").is_dir():
        return "kubernetes", None
    return None, None


def _limits(root: Path) -> tuple[float | None, int | None]:
    """The tightest limit of the process's own group and those above it."""
    cpu: list[float] = []
    memory: list[int] = []
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            for folder in _upwards(root / "sys/fs/cgroup", path):
                quota, _, period = (_text(folder / "cpu.max") or "").partition(" ")
                if quota.isdecimal() and period.strip().isdecimal():
                    cpu.append(int(quota) / int(period))
                if (limit := (_text(folder / "memory.max") or "").strip()).isdecimal():
                    memory.append(int(limit))
        elif "memory" in controllers.split(","):
            for folder in _upwards(root / "sys/fs/cgroup/memory", path):
                limit = (_text(folder / "memory.limit_in_bytes") or "").strip()
                if limit.isdecimal() and int(limit) < _UNLIMITED_V1:
                    memory.append(int(limit))
        elif "cpu" in controllers.split(","):
            for folder in _upwards(root / "sys/fs/cgroup/cpu", path):
                quota = (_text(folder / "cpu.cfs_quota_us") or "").strip()
                period = (_text(folder / "cpu.cfs_period_us") or "").strip()
                if quota.isdecimal() and period.isdecimal() and int(period):
                    cpu.append(int(quota) / int(period))
    return min(cpu, default=None), min(memory, default=None)


def _upwards(top: Path, path: str) -> list[Path]:
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [top.joinpath(*parts[:length]) for length in range(len(parts), -1, -1)]


def _text(file: Path) -> str | None:
    try:
        with open(os.fspath(file), encoding="utf-8", errors="replace") as opened:
            return opened.read(65536)
    except OSError:
        return None
