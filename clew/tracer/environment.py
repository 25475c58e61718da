"""The environment of a run: what was installed, which Python, on what machine, under which settings.

Nothing here names a person, a host or a folder of one machine, so that equal environments have equal records; those
stand in `principal` and `entry`.
"""

from __future__ import annotations

import locale
import os
import platform
import re
import sys
import sysconfig
import time
from collections.abc import Iterable
from typing import Literal

import msgspec

from clew.tracer import container, distribution, gpu, machine
from clew.tracer.container import Container
from clew.tracer.distribution import Distribution
from clew.tracer.gpu import Gpu
from clew.tracer.machine import Machine

# Names of variables whose values are read; a `*` at the end stands for any rest.
DEFAULT = (
    *("LANG", "LANGUAGE", "LC_*", "TZ", "PYTHON*", "SOURCE_DATE_EPOCH"),
    *("OMP_*", "KMP_*", "MKL_*", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
    *("NUMEXPR_NUM_THREADS", "NUMEXPR_MAX_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG"),
    *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    *("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "XLA_FLAGS"),
    *("TF_DETERMINISTIC_OPS", "TF_ENABLE_ONEDNN_OPTS", "JAX_PLATFORMS", "JAX_ENABLE_X64"),
    *("TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"),
)
# A `*` does not reach these: folders of one machine, which the entry's `sys.path` shows at work, and names that sound
# as if the value were a secret. Named in full they are read.
_FOLDER_VARIABLES = frozenset(
    {"PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX", "PYTHONSTARTUP", "PYTHONEXECUTABLE"}
    | {"PYTHON_HISTORY"}
)
_SECRET_VARIABLE = re.compile(r"TOKEN|SECRET|PASS|KEY|CREDENTIAL|AUTH", re.IGNORECASE)


class Python(msgspec.Struct, frozen=True, kw_only=True):
    """`installation` says what the interpreter's prefix is; its folder stands in the entry."""

    implementation: str
    version: str
    build: str
    compiler: str
    cache_tag: str | None
    platform: str
    installation: Literal["virtual environment", "conda", "base"]
    free_threaded: bool


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """`distributions` by name; `variables` by name, only those that were allowed and set."""

    python: Python
    machine: Machine
    container: Container | None
    gpus: list[Gpu]
    cuda: str | None
    distributions: list[Distribution]
    variables: dict[str, str]
    locale: str | None
    timezone: str
    encoding: str
    filesystem_encoding: str


def capture(variables: Iterable[str] = DEFAULT) -> Environment:
    """The environment of this process. Reads files and never the value of a variable that `variables` does not
    allow; never raises for what the system does not tell."""
    return Environment(
        python=_python(),
        machine=machine.capture(),
        container=container.capture(),
        gpus=gpu.capture(),
        cuda=_cuda(),
        distributions=distribution.capture(),
        variables=_variables(variables),
        locale=_locale(),
        timezone=_timezone(),
        encoding=locale.getencoding(),
        filesystem_encoding=sys.getfilesystemencoding(),
    )


def _python() -> Python:
    conda = os.path.isdir(os.path.join(sys.base_prefix, "conda-meta"))
    return Python(
        implementation=platform.python_implementation(),
        version=platform.python_version(),
        build=" ".join(platform.python_build()),
        compiler=platform.python_compiler(),
        cache_tag=sys.implementation.cache_tag,
        platform=sysconfig.get_platform(),
        installation="virtual environment" if sys.prefix != sys.base_prefix else "conda" if conda else "base",
        free_threaded="free-threading" in sys.version,
    )


def _variables(allowed: Iterable[str]) -> dict[str, str]:
    names = list(allowed)
    exact = {name for name in names if not name.endswith("*")}
    prefixes = tuple(name[:-1] for name in names if name.endswith("*"))
    return {
        name: os.environ[name].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        for name in sorted(os.environ)
        if name in exact
        or (name.startswith(prefixes) and name not in _FOLDER_VARIABLES and not _SECRET_VARIABLE.search(name))
    }


def _cuda() -> str | None:
    """The CUDA release that an already imported torch was built for."""
    version = getattr(getattr(sys.modules.get("torch"), "version", None), "cuda", None)
    return version if isinstance(version, str) else None


def _locale() -> str | None:
    try:
        return locale.setlocale(locale.LC_ALL)  # without a second argument it only asks
    except locale.Error:
        return None


def _timezone() -> str:
    """The zone's name such as "Europe/Berlin" where the system tells, else its abbreviation outside of summer time."""
    if zone := os.environ.get("TZ"):
        return zone.removeprefix(":")
    try:
        _, mark, zone = os.readlink("/etc/localtime").rpartition("zoneinfo/")
    except OSError:
        return time.tzname[0]
    return zone if mark else time.tzname[0]
