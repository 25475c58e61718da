"""A recorded command line, read as the interpreter read it."""

from __future__ import annotations

import dataclasses

from clew.tracer.entry import Entry

_WITH_ARGUMENT = "WX"
_DIGITS_DEFAULT = (-1, 4300)
# flags -> the option for each count of them
_COUNTED = (
    ("bytes_warning", "b"),
    ("debug", "d"),
    ("dont_write_bytecode", "B"),
    ("no_user_site", "s"),
    ("optimize", "O"),
    ("safe_path", "P"),
    ("verbose", "v"),
)


@dataclasses.dataclass(frozen=True)
class CommandLine:
    """`program` is the script's path or `-`, the name after `-m` or the code after `-c`; None where there was none."""

    program: str | None
    arguments: tuple[str, ...]


def parsed(orig_argv: list[str]) -> CommandLine:
    """What the interpreter was told to run, and what it passed on."""
    words = iter(orig_argv[1:])
    for word in words:
        if word == "--check-hash-based-pycs":
            next(words, None)
        elif word == "-" or not word.startswith("-"):
            return CommandLine(word, tuple(words))
        elif not word.startswith("--"):
            for position, letter in enumerate(word[1:], start=2):
                if letter in "cm":
                    return CommandLine(word[position:] or next(words, None), tuple(words))
                if letter in _WITH_ARGUMENT:
                    if position == len(word):
                        next(words, None)
                    break
    return CommandLine(None, ())


def options(entry: Entry) -> list[str]:
    """The interpreter's options that set what was recorded, without the program.

    `-I` and `-E` would hide the stage's own PYTHONPATH; `-I` becomes `-P -s`, and of both the variables are left out
    (`ignores_environment`).
    """
    flags, found = entry.flags, []
    for flag, letter in _COUNTED:
        count = flags.get(flag, 0)
        if flags.get("isolated") and flag in ("safe_path", "no_user_site"):
            count = 1
        if count > 0:
            found.append("-" + letter * min(count, 3))
    named = dict(entry.x_options)
    if flags.get("utf8_mode"):
        named.setdefault("utf8", True)
    if flags.get("dev_mode"):
        named.setdefault("dev", True)
    if (digits := flags.get("int_max_str_digits", -1)) not in _DIGITS_DEFAULT:
        named.setdefault("int_max_str_digits", str(digits))
    for name, value in named.items():
        found += ["-X", name if value is True else f"{name}={value}"]
    for option in entry.warn_options:
        found += ["-W", option]
    return found


def ignores_environment(entry: Entry) -> bool:
    """Whether the program was started so that variables named PYTHON... do not count."""
    return bool(entry.flags.get("ignore_environment") or entry.flags.get("isolated"))
