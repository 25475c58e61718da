"""How this process was started: enough to start it again."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Literal

import msgspec

Kind = Literal["script", "module", "command", "stdin", "repl", "notebook", "worker", "embedded"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """`path` is the file that ran as `__main__`, absolute; for a notebook its document where the front end tells.
    `module` is the name after `-m`; for `-c` the code stands in `orig_argv`. `hash_seed` is None where hashing is
    randomised. `worker` is a child that multiprocessing spawned; its `path` is the parent's main file."""

    kind: Kind
    path: str | None
    module: str | None
    argv: list[str]
    orig_argv: list[str]
    cwd: str | None
    sys_path: list[str]
    flags: dict[str, int]
    x_options: dict[str, str | bool]
    warn_options: list[str]
    hash_seed: int | None
    executable: str | None
    prefix: str
    base_prefix: str


def capture() -> Entry:
    """The entry of this process. Reads; never raises."""
    main = sys.modules.get("__main__")
    kind, path, module = _kind(main, spawned=_is_spawned(main))
    return Entry(
        kind=kind,
        path=_absolute(path) if path else None,
        module=module,
        argv=_texts(getattr(sys, "argv", [])),
        orig_argv=_texts(sys.orig_argv),
        cwd=_cwd(),
        sys_path=_texts(sys.path),
        flags={name: int(getattr(sys.flags, name)) for name in _flag_names()},
        x_options=dict(sorted(getattr(sys, "_xoptions", {}).items())),
        warn_options=_texts(sys.warnoptions),
        hash_seed=_hash_seed(),
        executable=_printable(sys.executable) if sys.executable else None,
        prefix=_printable(sys.prefix),
        base_prefix=_printable(sys.base_prefix),
    )


def _is_spawned(main: ModuleType | None) -> bool:
    """Whether multiprocessing spawned this process. Importing it gives the main module of any program a second name."""
    other = sys.modules.get("__mp_main__")
    return other is not None and (other is not main or main.__name__ == "__mp_main__")


def _kind(main: ModuleType | None, *, spawned: bool) -> tuple[Kind, str | None, str | None]:
    contents = vars(main) if main is not None else {}
    file = contents.get("__file__")
    path = file if isinstance(file, str) and not file.startswith("<") else None
    if spawned:  # multiprocessing makes the parent's main file a module of this name, and `__main__` the same
        return "worker", path, None
    if "ipykernel" in sys.modules and "get_ipython" in contents:
        return "notebook", _notebook_path(contents), None
    if (spec := contents.get("__spec__")) is not None:
        name = str(spec.name)
        # `python folder` and `python app.zip` have a spec as well, of a bare `__main__`.
        return ("script", path, None) if name == "__main__" else ("module", path, name.removesuffix(".__main__"))
    if path is not None:
        return "script", path, None
    if hasattr(sys, "ps1") or sys.flags.interactive:
        return "repl", None, None
    match getattr(sys, "argv", [])[:1]:
        case ["-c"]:
            return "command", None, None
        case ["-"]:
            return "stdin", None, None
        case [""] if sys.orig_argv:  # a program that embeds Python has no command line of its own
            return "stdin", None, None
    return "embedded", None, None


def _notebook_path(contents: dict[str, object]) -> str | None:
    """VS Code puts the path into the namespace, Jupyter's server into a variable."""
    told = contents.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
    return told if isinstance(told, str) and told.endswith(".ipynb") else None


def _hash_seed() -> int | None:
    if not sys.flags.hash_randomization:
        return 0
    seed = None if sys.flags.ignore_environment else os.environ.get("PYTHONHASHSEED")
    return int(seed) if seed and seed.isdecimal() else None


def _flag_names() -> list[str]:
    names = set(dir(sys.flags)) - {"count", "index"}  # a named tuple's own methods
    return sorted(name for name in names if not name.startswith(("_", "n_")))


def _absolute(path: str) -> str:
    try:
        return _printable(os.path.abspath(path))
    except OSError:  # the working folder was deleted
        return _printable(path)


def _cwd() -> str | None:
    try:
        return _printable(os.getcwd())
    except OSError:  # the folder was deleted
        return None


def _texts(items: object) -> list[str]:
    """`sys.path` and `sys.argv` may hold anything that the program put there."""
    return [_printable(item) for item in items if isinstance(item, str)] if isinstance(items, list) else []


def _printable(text: str) -> str:
    """The text with bytes that are no UTF-8 written as escapes: a record must be encodable."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
