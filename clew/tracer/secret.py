"""Governed secrets: named references whose values are read when needed, and the register that redaction looks up.

    key = clew.secret("OPENAI_API_KEY")
    client = OpenAI(api_key=key.value())

What was read once is redacted wherever the tracer meets it, in this process and until it ends; a rotated value too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from threading import RLock
from typing import NoReturn

SHORTEST = 6
"""Shorter values are not registered: they would be found in everything."""

_NAME = re.compile(r"(?:_|^)(?:KEY|APIKEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PWD|CREDENTIALS?|PAT)$|PASSWORD$")
_NOT_A_SECRET = re.compile(r"PUBLIC|SORT_KEY|PRIMARY_KEY|PARTITION_KEY|^PWD$|^OLDPWD$|(?:PAD|BOS|EOS|MASK)_TOKEN$")
_ADDRESS = re.compile(r"\w+://[^\s/?#@:]*:(?P<password>[^\s/]+)@")


class SecretRegistry:
    """The exact values that must not be stored. Values only ever join it; `version` counts them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._values: tuple[str, ...] = ()
        self.version = 0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> SecretRegistry:
        registry = cls()
        registry.scan(os.environ if environ is None else environ)
        return registry

    @property
    def values(self) -> tuple[str, ...]:
        return self._values

    def add(self, value: str) -> bool:
        """Registers a value from now on; False where it was known already or is too short to be told from words."""
        if len(value) < SHORTEST:
            return False
        with self._lock:
            if value in self._values:
                return False
            self._values += (value,)
            self.version += 1
        return True

    def scan(self, environ: Mapping[str, str]) -> int:
        """Registers the values of variables whose names say credential, and passwords in addresses; how many are new.

        Guards against settings that are only named like secrets: words, numbers and paths of existing files stay out.
        Safe to repeat, for instance after a `.env` file was loaded.
        """
        new = 0
        for name, value in environ.items():
            upper = name.upper()
            if _NAME.search(upper) and not _NOT_A_SECRET.search(upper) and _may_be_secret(value):
                new += self.add(value)
            elif upper.endswith(("_URL", "_URI", "_DSN")) and (match := _ADDRESS.match(value)):
                new += _may_be_secret(match["password"]) and self.add(match["password"])
        return new

    def after_fork(self) -> None:
        """In a forked child: the thread that held the lock is not there to free it."""
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"<SecretRegistry of {len(self._values)} values>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretRegistry holds secrets and is not picklable; build one in each process")


def _may_be_secret(value: str) -> bool:
    word = value.isalpha() and len(value) < 16 and (value.islower() or value.isupper())
    if len(value) < 8 or value.isdigit() or word:
        return False
    return not (os.path.isabs(value) and os.path.exists(value))


class Secret:
    """A secret by its name. Printing, comparing and hashing it show or use the name alone; pickling is refused."""

    __slots__ = ("_read", "_registry", "name")

    name: str

    def __init__(self, name: str, *, registry: SecretRegistry, reader: Callable[[], str] | None = None) -> None:
        if not name:
            raise ValueError("a secret needs a name, for instance the environment variable that holds it")
        self.name = name
        self._registry = registry
        self._read = reader

    def value(self) -> str:
        """The secret itself, read now; it is redacted from the store before this returns. ValueError where unset."""
        value = os.environ.get(self.name) if self._read is None else self._read()
        if not value:
            where = "the environment variable is not set" if self._read is None else "its reader returned nothing"
            raise ValueError(f"secret {self.name!r} has no value: {where}; set it, or pass reader= to clew.secret")
        self._registry.add(value)
        return value

    def __repr__(self) -> str:
        return f"<secret {self.name}>"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return self.name == other.name if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self.name))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} is not picklable; send its name and call clew.secret where the value is needed")


_default: SecretRegistry | None = None
_default_lock = RLock()


def default_registry() -> SecretRegistry:
    """The process's registry, made from the environment on first use."""
    global _default
    if _default is None:
        with _default_lock:
            if _default is None:
                _default = SecretRegistry.from_environment()
    return _default


def secret(name: str, *, reader: Callable[[], str] | None = None) -> Secret:
    """A reference to the environment variable `name`, or to what `reader` returns when the value is needed."""
    return Secret(name, registry=default_registry(), reader=reader)
