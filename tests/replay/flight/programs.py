"""A folder as the shared cache, for tests of single-flight and for the programs that they start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clew.replay.flight import Flights
from clew.tracer.boundary import MISSING


class Cache:
    """One file for each key; `computed` lists the keys in the order in which their computations began."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._journal = folder / "journal"
        self._journal.touch()
        self.flights = Flights(folder / "lock")

    def look(self, key: bytes) -> Any:
        path = self.folder / key.hex()
        return path.read_text() if path.exists() else MISSING

    def begin(self, key: bytes) -> None:
        with open(self._journal, "a") as journal:
            journal.write(key.hex() + "\n")

    def put(self, key: bytes, value: str) -> None:
        temporary = self.folder / f"{key.hex()}.{os.getpid()}.{os.urandom(4).hex()}"
        temporary.write_text(value)
        temporary.rename(self.folder / key.hex())

    @property
    def computed(self) -> list[bytes]:
        return [bytes.fromhex(line) for line in self._journal.read_text().split()]

    def get(self, key: bytes, work: Callable[[], str]) -> tuple[str, bool]:
        """The key's value through single-flight."""

        def compute() -> str:
            self.begin(key)
            value = work()
            self.put(key, value)
            return value

        return self.flights.call(key, lambda: self.look(key), compute)


def key_of(number: int, stripe: int | None = None) -> bytes:
    """A key; its stripe is its own unless another number is given."""
    return (number if stripe is None else stripe).to_bytes(2, "big") + number.to_bytes(30, "big")


HEAD = """
import asyncio, os, sys, threading, time
from pathlib import Path
from clew.replay.flight import Flights
from clew.tracer.boundary import MISSING
from tests.replay.flight.programs import Cache, key_of
def say(word):
    print(word, flush=True)
def hear():
    return sys.stdin.readline().strip()
cache = Cache(Path(sys.argv[1]))
"""


def program(body: str, folder: Path) -> subprocess.Popen[str]:
    """A process that runs `body` with `cache`, `say` and `hear`."""
    words = [sys.executable, "-c", HEAD + body, str(folder)]
    root = Path(__file__).parents[3]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], word: str = "go") -> None:
    assert process.stdin is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()
