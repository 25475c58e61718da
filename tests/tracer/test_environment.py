"""The environment's record: complete, the same for two users, and without what was not allowed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from clew.tracer import container, distribution, environment, gpu, machine, principal
from clew.tracer.container import Container
from clew.tracer.gpu import Gpu

CLEW = Path(__file__).parents[2]


def installed(folder: Path, name: str, version: str, record: str, **files: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(record)
    for file, text in files.items():
        (info / file.replace("__", ".")).write_text(text)


def test_every_installed_distribution_is_named_with_the_version_that_metadata_gives() -> None:
    told: dict[str, str] = {}
    for found in importlib.metadata.distributions():
        told.setdefault(found.metadata["Name"].lower().replace("_", "-").replace(".", "-"), found.version)
    assert {found.name: found.version for found in distribution.capture()} == told


def test_two_captures_in_two_processes_are_equal() -> None:
    program = "import msgspec; from clew.tracer.environment import capture; print(msgspec.json.encode(capture()).hex())"
    variables = {**os.environ, "PYTHONPATH": str(CLEW)}
    one, two = (
        subprocess.run(
            [sys.executable, "-c", program],
            env={**variables, "PYTHONHASHSEED": "7", "USER": user, "LOGNAME": user},
            check=True,
            capture_output=True,
        ).stdout
        for user in ("ada", "grace")
    )
    assert one == two
    assert len(one) > 1000


def test_nothing_of_user_or_host_is_in_the_environment() -> None:
    here = principal.capture()
    text = msgspec.json.encode(environment.capture()).decode()
    assert sys.prefix not in text
    assert os.path.expanduser("~") + "/" not in text
    assert here.user_id == os.geteuid()
    assert here.host == platform.node()


WHEEL = "kit/__init__.py,sha256=aaa,10\nkit/core.py,sha256=bbb,20\nkit-1.0.dist-info/METADATA,sha256=ccc,30\n"


def test_the_same_wheel_has_the_same_digest_in_every_environment_and_another_has_not(tmp_path: Path) -> None:
    installed(tmp_path / "one", "kit", "1.0", WHEEL)
    here = (
        "../../../bin/kit,sha256=ddd,40\n"
        + "".join(sorted(WHEEL.splitlines(keepends=True)))
        + "kit/__pycache__/core.cpython-311.pyc,,\nkit-1.0.dist-info/RECORD,,\n"
        + "kit/__pycache__/other.cpython-311.pyc,sha256=zzz,9\n"
        + "kit-1.0.dist-info/INSTALLER,sha256=eee,4\nkit-1.0.dist-info/REQUESTED,sha256=fff,0\n"
    )
    installed(tmp_path / "two", "kit", "1.0", here.replace("\n", "\r\n"))
    installed(tmp_path / "three", "kit", "1.0", WHEEL.replace("bbb", "BBB"))
    one, two, three = (distribution.capture([str(tmp_path / name)]) for name in ("one", "two", "three"))
    assert one == two
    assert one != three
    assert one[0].digest is not None
    assert one[0].digest.startswith("b3:")


def test_what_was_read_before_is_not_taken_apart_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, "kit", "1.0", WHEEL)
    before = distribution.capture([str(tmp_path)])
    with monkeypatch.context() as patched:
        patched.setattr(distribution, "_made", pytest.fail)
        assert distribution.capture([str(tmp_path)]) == before
    (tmp_path / "kit-1.0.dist-info" / "RECORD").write_text(WHEEL.replace("bbb", "BBB"))
    assert distribution.capture([str(tmp_path)]) != before


def test_the_first_on_the_path_wins_and_leftovers_do_not_count(tmp_path: Path) -> None:
    installed(tmp_path / "first", "My_Kit.Extra", "2.0", WHEEL)
    installed(tmp_path / "second", "my_kit_extra", "1.0", WHEEL)
    (tmp_path / "second" / "ghost-1.0.dist-info").mkdir()
    found = distribution.capture([str(tmp_path / "first"), str(tmp_path / "second"), str(tmp_path / "absent")])
    assert [(item.name, item.version) for item in found] == [("my-kit-extra", "2.0")]


def test_an_editable_install_is_flagged_and_its_folder_is_not_recorded(tmp_path: Path) -> None:
    told = '{"url": "file:///home/ada/kit", "dir_info": {"editable": true}}'
    installed(tmp_path, "kit", "1.0", "__editable__.kit-1.0.pth,sha256=ada,9\n" + WHEEL, direct_url__json=told)
    (found,) = distribution.capture([str(tmp_path)])
    assert found.editable
    assert found.source is None
    installed(tmp_path / "grace", "kit", "1.0", "__editable__.kit-1.0.pth,sha256=grace,9\n" + WHEEL)
    assert distribution.capture([str(tmp_path / "grace")])[0].digest == found.digest


def test_a_distribution_from_a_repository_keeps_the_commit_and_loses_the_token(tmp_path: Path) -> None:
    told = '{"url": "https://ada:PLANTED@example.org/kit.git", "vcs_info": {"vcs": "git", "commit_id": "abc123"}}'
    installed(tmp_path, "kit", "1.0", WHEEL, direct_url__json=told)
    (found,) = distribution.capture([str(tmp_path)])
    assert (found.editable, found.source) == (False, "git+https://example.org/kit.git@abc123")


def test_an_egg_info_has_name_and_version_and_no_digest(tmp_path: Path) -> None:
    (tmp_path / "old-1.2-py3.11.egg-info").write_text("Name: old\n")
    (tmp_path / "dev.egg-info").mkdir()
    (tmp_path / "dev.egg-info" / "PKG-INFO").write_text("Name: dev\nVersion: 0.3\n\nText\n")
    found = distribution.capture([str(tmp_path)])
    assert [(item.name, item.version, item.editable, item.digest) for item in found] == [
        ("dev", "0.3", True, None),
        ("old", "1.2", False, None),
    ]


def test_only_allowed_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    monkeypatch.setenv("PYTHONPATH", "/home/ada")
    monkeypatch.setenv("PYTHON_INDEX_TOKEN", "PLANTED")
    monkeypatch.setenv("OPENAI_API_KEY", "PLANTED")
    variables = environment.capture().variables
    assert variables["OMP_NUM_THREADS"] == "3"
    assert variables["PYTHONHASHSEED"] == "5"
    assert "PYTHONPATH" not in variables
    assert "PLANTED" not in variables.values()
    assert list(variables) == sorted(variables)
    assert environment.capture(["PYTHONPATH", "NOT_SET"]).variables == {"PYTHONPATH": "/home/ada"}


def test_python_and_machine_are_what_the_interpreter_says() -> None:
    found = environment.capture()
    assert found.python.version == platform.python_version()
    assert (found.python.installation == "virtual environment") == (sys.prefix != sys.base_prefix)
    here = machine.capture()
    assert found.machine == here
    assert (here.os, here.kernel, here.architecture) == (os.uname().sysname, os.uname().release, os.uname().machine)
    assert here.memory_bytes is not None
    assert here.memory_bytes > 1 << 20
    assert here.cpu_count == os.cpu_count()


def test_the_time_zone_is_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", ":Asia/Tokyo")
    assert environment.capture().timezone == "Asia/Tokyo"


def test_torch_is_neither_imported_nor_made_to_start_cuda() -> None:
    program = (
        "import sys; from clew.tracer import environment; environment.capture();"
        "print('torch' in sys.modules, 'sqlalchemy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(CLEW)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["False", "False"]


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_no_container_and_no_limit_is_none(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "0::/\n")
    put(tmp_path, "sys/fs/cgroup/memory.max", "max\n")
    assert container.capture(tmp_path) is None


def test_limits_of_a_unified_hierarchy_are_the_tightest_on_the_way_up(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "0::/batch/job\n")
    put(tmp_path, "sys/fs/cgroup/batch/job/memory.max", "max\n")
    put(tmp_path, "sys/fs/cgroup/batch/job/cpu.max", "250000 100000\n")
    put(tmp_path, "sys/fs/cgroup/batch/memory.max", "2147483648\n")
    put(tmp_path, "sys/fs/cgroup/batch/cpu.max", "max 100000\n")
    assert container.capture(tmp_path) == Container(cpu_limit=2.5, memory_limit_bytes=2 << 30)


def test_limits_of_the_older_hierarchies_are_read(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "4:memory:/docker/x\n2:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n")
    put(tmp_path, "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "1048576\n")
    put(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    put(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    put(tmp_path, ".dockerenv", "")
    assert container.capture(tmp_path) == Container(runtime="docker", memory_limit_bytes=1 << 20)


def test_podman_tells_the_image(tmp_path: Path) -> None:
    put(tmp_path, "run/.containerenv", 'engine="podman-4.3"\nimage="registry.example.org/kit:2"\n')
    assert container.capture(tmp_path) == Container(runtime="podman", image="registry.example.org/kit:2")


def test_nvidia_cards_are_read_from_the_driver_and_not_twice_from_the_display(tmp_path: Path) -> None:
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version:\n"
    put(tmp_path, "proc/driver/nvidia/version", version)
    for number in ("0000:01:00.0", "0000:02:00.0"):
        put(
            tmp_path,
            f"proc/driver/nvidia/gpus/{number}/information",
            "Model: \t\t NVIDIA H100 80GB HBM3\nGPU UUID: \t GPU-PLANTED\n",
        )
    put(tmp_path, "sys/class/drm/card0/device/vendor", "0x10de\n")
    put(tmp_path, "sys/class/drm/card1/device/vendor", "0x1002\n")
    put(tmp_path, "sys/class/drm/card1/device/product_name", "Instinct MI210\n")
    put(tmp_path, "sys/class/drm/card1/device/mem_info_vram_total", "68702699520\n")
    put(tmp_path, "sys/class/drm/card1-DP-1/status", "connected\n")
    assert gpu.capture(tmp_path) == [
        Gpu(name="AMD Instinct MI210", memory_bytes=68702699520),
        *[Gpu(name="NVIDIA H100 80GB HBM3", driver="535.129.03")] * 2,
    ]


def test_a_machine_without_gpus_has_none(tmp_path: Path) -> None:
    assert gpu.capture(tmp_path) == []


def test_nvidia_smi_is_asked_only_where_nothing_else_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "bin/nvidia-smi", "#!/bin/sh\necho 'NVIDIA L4, 550.54.15, 23034'\n")
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert gpu.capture(tmp_path) == []
    put(tmp_path, "dev/nvidiactl", "")
    assert gpu.capture(tmp_path) == [Gpu(name="NVIDIA L4", driver="550.54.15", memory_bytes=23034 << 20)]
