"""Classes whose values are encoded."""

from __future__ import annotations

import collections
import dataclasses
import enum
from typing import Any

import msgspec
import pydantic


class Colour(enum.Enum):
    RED = 1


class Access(enum.Flag, boundary=enum.KEEP):
    READ = 1
    WRITE = 2


class Rank(enum.IntEnum):
    FIRST = 1


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


class Struct(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel, extra="allow"):
    x: int


Pair = collections.namedtuple("Pair", "left right")
