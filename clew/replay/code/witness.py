"""A witness of many objects: whether they still refer to the very same objects, told in a few microseconds.

What a digest was made from is compared by identity (reading.py). Most of it is dictionaries, functions and cells, and of
those the garbage collector's own view (`gc.get_referents`) gives in one call all that they refer to. What it leaves out
are the keys of a dictionary whose keys are texts; they are compared beside. The objects are held, so that no other one
takes their place in memory. What changes without a trace in either (an array, a bytearray) makes a witness `blind`.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from gc import get_referents
from itertools import chain
from operator import itemgetter
from types import FunctionType, MappingProxyType, MemberDescriptorType
from typing import Any, Generic, TypeVar

from clew.replay.code.reading import ABSENT, Reading, look, unchanged
from clew.replay.code.version import version_of

T = TypeVar("T")
_KEPT = 256  # objects of which is known what was made of them
_HEAD, _POINTER = tuple.__basicsize__, struct.calcsize("P")
END = [object()]  # stands between two objects: what the one refers to cannot pass for what the other does
_DICTS = (dict, MappingProxyType)
HEAP_TYPE = (
    1 << 9
)  # of CPython's flags: made by a class statement, as a rule; what stands in another class cannot be set
_HELD = (list, set, tuple, frozenset)


def _addresses(of: tuple[Any, ...]) -> bytes:
    """The addresses that a tuple holds, as they stand in memory: to compare them one by one takes ten times as long."""
    found: bytes = _memory(id(of) + _HEAD)[: _POINTER * len(of)]
    return found


_memory: Any = (ctypes.c_char * sys.maxsize).from_address


def _counted(of: tuple[Any, ...]) -> bytes:
    """The same where Python keeps tuples otherwise."""
    return struct.pack(f"{len(of)}P", *map(id, of))


addresses = _addresses if _addresses((None, END)) == _counted((None, END)) else _counted


class Witness:
    """What was seen of objects when they were added: add one before it is read, and nothing is missed."""

    def __init__(self) -> None:
        self.blind = False
        self.words: set[str] = set()  # names and texts in the code that was seen
        self.packages: set[str] = set()  # that it names something of
        self._owners: list[Any] = []  # what they referred to
        self._owned: set[int] = set()
        self._roots: dict[int, tuple[Any, list[Any]]] = {}  # objects, with what they referred to, by their ids
        self._keyed: dict[int, tuple[dict[Any, Any], list[Any]]] = {}
        self._empty: dict[int, Any] = {}
        self._classes: dict[int, tuple[type, ctypes.c_uint, bytes]] = {}
        self._names: dict[int, tuple[Mapping[str, Any], dict[str, Any]]] = {}  # by the id of a namespace
        self._readings: list[Reading] = []
        self._sealed: _Sealed | None = None

    def holds(self, *owners: Any) -> bool:
        """Whether everything is as it was. `owners` are what `begin` was given."""
        roots, dicts, lookups, told, absent, places, versions = self._sealed or self._seal()
        try:
            seen = get_referents(*owners)
            seen += get_referents(*roots)
            seen += chain.from_iterable(dicts)
            for values in lookups:
                seen += values()
            if addresses(tuple(seen)) != told or b"".join(places) != versions:
                return False
        except (RuntimeError, KeyError):  # another thread changes it now, or a name is gone
            return False
        for space, names in absent:
            if any(map(space.__contains__, names)):
                return False
        return not self._readings or unchanged(self._readings)

    def _seal(self) -> _Sealed:
        roots: list[Any] = []
        seen = list(self._owners)
        for root, referred in self._roots.values():
            roots += (root, END)
            seen += referred
        dicts = [one for one, _ in self._keyed.values()]
        seen += [key for _, keys in self._keyed.values() for key in keys]
        below = {id(owner) for cls, _, _ in self._classes.values() for owner in cls.__mro__[1:]}
        classes = [one for key, one in self._classes.items() if key not in below]  # a version tells of those above, too
        lookups: list[Callable[[], tuple[Any, ...]]] = []
        absent: list[tuple[Mapping[str, Any], list[str]]] = []
        for space, names in self._names.values():
            there = [name for name, value in names.items() if value is not ABSENT]
            gone = [name for name, value in names.items() if value is ABSENT]
            if there:
                there.append(there[0])  # of two names or more it gives a tuple
                lookups.append(functools.partial(itemgetter(*there), space))
                seen += [names[name] for name in there]
            if gone:
                absent.append((space, gone))
        self._sealed = (
            (*roots, *self._empty.values()),
            dicts,
            lookups,
            addresses(tuple(seen)),
            absent,
            [place for _, place, _ in classes],
            b"".join([version for _, _, version in classes]),
        )
        return self._sealed

    def begin(self, *owners: Any) -> None:
        """The objects that `holds` will be given again: they are not held."""
        self._owners += get_referents(*owners)
        self._owned.update(map(id, owners))

    def add(self, *things: Any) -> None:
        """Objects, with all that each refers to but what its parts do in turn."""
        for thing in things:
            if id(thing) not in self._roots and id(thing) not in self._owned:
                self._roots[id(thing)] = thing, get_referents(thing, END)
        self._sealed = None

    def add_container(self, value: Any) -> None:
        """A dict or list, or what is like one, with its items; `blind` where it is like neither."""
        if type(value) is MappingProxyType:
            value = next(iter(get_referents(value)), None)
        self._sealed = None
        if type(value) is dict and value:
            self._keyed.setdefault(id(value), (value, [*value]))
            self.add(value)
        elif type(value) in _HELD and value:
            self.add(value)
        elif type(value) is dict or type(value) in _HELD:
            self._empty[id(value)] = value
        else:
            self.blind = True

    def add_class(self, cls: type) -> None:
        """What stands in a class, and in those that it inherits from."""
        if id(cls) in self._classes:
            return
        place = version_of(cls) if cls.__flags__ & HEAP_TYPE else None
        self._sealed = None
        if place is not None:
            self._classes[id(cls)] = cls, place, bytes(place)
            return
        for owner in cls.__mro__:
            if owner.__flags__ & HEAP_TYPE:
                self.add(owner)
                self.add_container(owner.__dict__)

    def add_function(self, function: FunctionType) -> None:
        """All that can be set on a function, and what is in its cells."""
        inside = function.__dict__, function.__kwdefaults__ or None, function.__annotations__
        self.add(function, *(function.__closure__ or ()))
        for one in inside:
            if one is not None:
                self.add_container(one)

    def add_instance(self, instance: Any) -> None:
        """An object's class, slots and dictionary."""
        fields = getattr(instance, "__dict__", None)
        self.add(instance)
        if fields is not None:
            self.add_container(fields)
        reading = look(functools.partial(_in_slots, _slots(type(instance))), instance)
        if any(one is ABSENT for one in reading[2]):  # its referents do not say which slot is the empty one
            self._readings.append(reading)

    def add_names(self, space: Mapping[str, Any], names: Iterable[str]) -> None:
        """Some names in a namespace."""
        known = self._names.setdefault(id(space), (space, {}))[1]
        for name in names:
            known.setdefault(name, space.get(name, ABSENT))
        self._sealed = None

    def add_read(self, value: Any, reader: Callable[[Any], Sequence[Any]]) -> None:
        """A container, or what must be read anew each time."""
        if type(value) in _HELD or type(value) in _DICTS:
            self.add_container(value)
        else:
            self._readings.append(look(reader, value))

    def include(self, other: Witness) -> None:
        """All that another one has seen, which has no owners."""
        self.blind |= other.blind
        self.words |= other.words
        self.packages |= other.packages
        self._roots = {**other._roots, **self._roots}
        self._keyed = {**other._keyed, **self._keyed}
        self._empty = {**other._empty, **self._empty}
        self._classes = {**other._classes, **self._classes}
        for key, (space, names) in other._names.items():
            known = self._names.setdefault(key, (space, {}))[1]
            for name, value in names.items():
                known.setdefault(name, value)
        self._readings += other._readings
        self._sealed = None


_Sealed = tuple[  # what is compared, as flat lists; no class of its own: it is taken apart each time
    tuple[Any, ...],  # roots, each followed by END; last what is empty, and refers to nothing
    list[dict[Any, Any]],
    list[Callable[[], tuple[Any, ...]]],  # what stands in namespaces
    bytes,  # addresses of what the roots referred to, of the keys of the dictionaries, and of what stood in namespaces
    list[tuple[Mapping[str, Any], list[str]]],  # and of namespaces, the names that did not
    list[ctypes.c_uint],  # where the versions of classes stand
    bytes,  # those
]


class Witnessed(Generic[T]):
    """What was made of objects, kept for as long as each object lives and is as it was."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[object], Witness, T]] = {}

    def of(self, owner: Any, make: Callable[..., T], *more: Any) -> T:
        """What `make` made of the owner and of what more it was given then, or makes of them now: it has the witness, its
        last argument, see all that it reads."""
        known = self._kept.get(id(owner))
        if known is not None and known[0]() is owner and known[1].holds(owner):
            return known[2]
        witness = Witness()
        witness.begin(owner)
        made = make(owner, *more, witness)
        try:
            reference = weakref.ref(owner, functools.partial(_forget, self._kept, id(owner)))
        except TypeError:
            return made
        if not witness.blind:
            if len(self._kept) >= _KEPT:
                self._kept = {}
            self._kept[id(owner)] = reference, witness, made
        return made


def _slots(cls: type) -> list[MemberDescriptorType]:
    """The slots of a class written in Python, and of those that it inherits from."""
    owners = [owner for owner in cls.__mro__ if owner.__flags__ & HEAP_TYPE]
    return [one for owner in owners for one in owner.__dict__.values() if type(one) is MemberDescriptorType]


def _in_slots(slots: Iterable[MemberDescriptorType], instance: Any) -> list[Any]:
    """What stands in each of them; ABSENT where nothing does."""
    found = []
    for slot in slots:
        try:
            found.append(slot.__get__(instance))
        except AttributeError:
            found.append(ABSENT)
    return found


def _forget(kept: dict[int, Any], key: int, dead: object) -> None:
    known = kept.get(key)
    if known is not None and known[0] is dead:  # the id may belong to another object by now
        kept.pop(key, None)
