"""GPUs that this process can see, asked of the kernel; no CUDA context is made and no framework imported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

TIMEOUT_SECONDS = 2.0
_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}


class Gpu(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """`name` is the model; for a device that only the display subsystem knows, its vendor and device number."""

    name: str
    driver: str | None = None
    memory_bytes: int | None = None


def capture(root: Path = Path("/")) -> list[Gpu]:
    """The GPUs seen in the files under `root`, sorted. Looks at the driver's own files first, then at the display
    devices, then, if only the device nodes are there, at nvidia-smi, which may take up to two seconds."""
    found = _nvidia(root)
    cards = [gpu for gpu in _cards(root) if not (found and gpu.name.startswith("NVIDIA"))]
    if not found and (root / "dev/nvidiactl").exists():
        found = _nvidia_smi() or _initialised_torch()
        cards = [gpu for gpu in cards if not (found and gpu.name.startswith("NVIDIA"))]
    return sorted([*found, *cards], key=lambda gpu: (gpu.name, gpu.memory_bytes or 0))


def _nvidia(root: Path) -> list[Gpu]:
    folder = root / "proc/driver/nvidia"
    try:
        names = sorted(os.listdir(folder / "gpus"))
    except OSError:
        return []
    driver = _driver(_text(folder / "version"))
    models = []
    for name in names:
        for line in _text(folder / "gpus" / name / "information").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model":
                models.append(value.strip())
    return [Gpu(name=model, driver=driver) for model in models]


def _driver(version: str) -> str | None:
    """The release in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct ...`."""
    words = version.partition("\n")[0].split()
    return next((word for word in words if word[:1].isdigit() and word.count(".") >= 1), None)


def _cards(root: Path) -> list[Gpu]:
    found = []
    for card in sorted((root / "sys/class/drm").glob("card[0-9]*")):
        vendor = _VENDORS.get(_text(card / "device/vendor").strip())
        if vendor is None or "-" in card.name:  # a connector of a card
            continue
        name = _text(card / "device/product_name").strip() or _text(card / "device/device").strip()
        memory = _text(card / "device/mem_info_vram_total").strip()
        found.append(Gpu(name=f"{vendor} {name}", memory_bytes=int(memory) if memory.isdecimal() else None))
    return found


def _nvidia_smi() -> list[Gpu]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            query, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_SECONDS, text=True, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.stdout.splitlines()]
    return [
        Gpu(name=row[0], driver=row[1], memory_bytes=int(row[2]) << 20 if row[2].isdecimal() else None)
        for row in rows
        if len(row) == 3
    ]


def _initialised_torch() -> list[Gpu]:
    """What torch knows, if the program has imported it and made its CUDA context already: asking would make one."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    try:
        if cuda is None or not cuda.is_initialized():
            return []
        devices = [cuda.get_device_properties(number) for number in range(cuda.device_count())]
        return [Gpu(name=str(device.name), memory_bytes=int(device.total_memory)) for device in devices]
    except Exception:  # a driver's faults have no common type
        return []


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""
