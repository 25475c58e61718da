"""What a value is, for a key: an exact form, in which nothing that may tell two values apart is left out.

The strict encoding takes what says the same as the same (a subclass of str is its text). For a key that is not enough:
here a value is of exactly a type that is known, or an object of a class written in Python, told by its class, the class's
code and all that it holds. Anything else makes no key, and is named.

Plain data stands for itself; everything else is a tuple with its sort in front, tuples too, so that no data looks like it.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import functools
import pathlib
import re
import uuid
from collections.abc import Collection, Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from clew.replay.code import Code, code_of, witnessed
from clew.replay.code.module import name_in
from clew.replay.code.witness import HEAP_TYPE, Witness
from clew.store.encoding import encode_key, qualified_name
from clew.store.errors import EncodingError, Unkeyable

_PLAIN = frozenset((
    type(None), bool, int, float, complex, str, bytes, datetime.date, datetime.timedelta, decimal.Decimal, uuid.UUID,
    pathlib.PosixPath, range,
))  # fmt: skip
_SECRETS = frozenset(("pydantic.types.SecretStr", "pydantic.types.SecretBytes"))
_MADE = re.compile(
    r"\.__(pydantic_\w+|private_attributes|signature|clew_wrapped)__|\.<annotation>\."
).search  # no state: made of code
_DEPTH = 60  # a schema that refers to others is that deep once they are put in
_CONTAINERS = frozenset((list, dict, set, frozenset))
_NONE: frozenset[str] = frozenset()
_OF_SEVERAL = "mMV"  # kinds of numpy's scalars that are in units, or have fields
_POINTER = 8


def identity(value: Any, *, without: Collection[str] = (), witness: Witness | None = None) -> Any:
    """What `value` is, as data a key can be made of; its fields named in `without` are told otherwise. Raises Unkeyable.

    While `witness` holds, which sees all that is read, that is what it is.
    """
    try:
        return _identity(value, type(value).__name__, [], frozenset(without), witness or Witness())
    except EncodingError as error:
        raise Unkeyable(str(error)) from error


def code_digest(function: Any, *, version: str | None = None, witness: Witness | None = None) -> bytes:
    """The digest of a callable's code. Raises Unkeyable where something it holds does not show its state."""
    if version is not None:
        return bytes(code_of(function, version=version).digest)
    return _code(function, witness or Witness())


def is_hidden(value: Any) -> bool:
    """Whether a value is a secret of pydantic's."""
    return qualified_name(type(value)) in _SECRETS


def _code(thing: Any, witness: Witness) -> bytes:
    code, seen = witnessed(thing)
    witness.include(seen)
    return bytes(_seen(code).digest)


def _seen(code: Code) -> Code:
    for part in code.parts:
        if part.kind == "opaque" and not _MADE(part.name):
            raise Unkeyable(f"{code.name} depends on {part.name}, whose state cannot be seen; give it a version")
    return code


def _identity(value: Any, place: str, around: list[int], without: frozenset[str], witness: Witness) -> Any:
    cls = type(value)
    if cls in _PLAIN:
        return value
    if id(value) in around or len(around) > _DEPTH:
        raise Unkeyable(f"{place} holds itself, or is nested too deeply")
    around = [*around, id(value)]

    def inside(part: Any, place: str) -> Any:
        return _identity(part, place, around, _NONE, witness)

    if cls in _CONTAINERS:
        witness.add_container(value)
    if cls is list:
        return [inside(part, f"{place}[{at}]") for at, part in enumerate(value)]
    if cls is tuple:
        return ("tuple", *(inside(part, f"{place}[{at}]") for at, part in enumerate(value)))
    if cls is dict:
        told = [(key, inside(part, f"{place}[{key!r}]"[:200])) for key, part in value.items()]
        if all(type(key) is str for key in value):
            return dict(told)
        return ("dict", _sorted((inside(key, f"{place}.<key>"), part) for key, part in told))
    if cls is set or cls is frozenset:
        return (cls.__name__, _sorted(inside(part, f"{place}.<member>") for part in value))
    if cls in (datetime.datetime, datetime.time):
        return (cls.__name__, value.isoformat(), value.fold, inside(value.tzinfo, f"{place}.tzinfo"))
    if qualified_name(cls) == "zoneinfo.ZoneInfo" and value.key is not None:
        return ("zone", value.key)
    if cls is datetime.timezone:
        return ("timezone", repr(value))
    if cls is bytearray:
        witness.blind = True
        return ("bytearray", bytes(value))
    if isinstance(value, enum.Enum):
        witness.add_instance(value)
        return ("enum", _class(cls, place, witness), value.name, inside(value.value, f"{place}.value"))
    if cls.__module__ == "numpy":
        witness.blind = True
        return _array(value, place)
    if cls is FunctionType:
        return ("function", name_in(value), _code(value, witness))
    if cls is MethodType:
        return ("method", _code(value.__func__, witness), inside(value.__self__, place))
    if cls is functools.partial:
        witness.add_instance(value)
        held = [value.func, value.args, value.keywords]
        return ("partial", *(inside(one, f"{place}.<partial>") for one in held))
    if cls is re.Pattern:
        return ("pattern", value.pattern, value.flags)
    if cls is BuiltinFunctionType and (value.__self__ is None or isinstance(value.__self__, ModuleType)):
        return ("builtin", f"{value.__module__}.{value.__qualname__}")
    if isinstance(value, type):
        return _class(value, place, witness)
    if is_hidden(value):  # what it hides is redacted by the name it stands under here
        witness.add_instance(value)
        return ("secret", name_in(cls), {"secret": value.get_secret_value()})
    return _object(value, place, around, without, witness)


def _sorted(forms: Iterable[Any]) -> list[Any]:
    """Forms in an order that every process gives them. None is lost: two things may be told alike."""
    return sorted(forms, key=encode_key)


def _object(value: Any, place: str, around: list[int], without: frozenset[str], witness: Witness) -> Any:
    cls = type(value)
    slots = list(_slots(cls))
    own = [name for name in slots if name not in ("__dict__", "__weakref__")]
    pointers = len(own) + (cls.__dictoffset__ != 0) + (cls.__weakrefoffset__ != 0)
    in_python = cls.__flags__ & HEAP_TYPE and not cls.__itemsize__
    if not in_python or cls.__basicsize__ > object.__basicsize__ + _POINTER * pointers:
        raise Unkeyable(f"{place} is a {qualified_name(cls)}, which has no canonical form")
    witness.add_instance(value)
    fields = dict(getattr(value, "__dict__", None) or {})
    fields.update((name, getattr(value, name)) for name in own if hasattr(value, name))
    given = fields.pop("__pydantic_fields_set__", None)
    if given is not None:
        witness.add_container(given)
    if type(private := fields.get("__pydantic_private__")) is dict:
        witness.add_container(private)
        fields["__pydantic_private__"] = {name: part for name, part in private.items() if name not in without}
    told = {
        name: _identity(part, f"{place}.{name}", around, _NONE, witness)
        for name, part in sorted(fields.items())
        if name not in without
    }
    return ("object", _class(cls, place, witness), told, sorted(given) if given and not without else None)


def _slots(cls: type) -> Iterator[str]:
    for owner in cls.__mro__:
        slots = owner.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            yield f"_{owner.__name__.lstrip('_')}{name}" if private else name


def _class(cls: type, place: str, witness: Witness) -> Any:
    try:
        return ("class", name_in(cls), _code(cls, witness))
    except Unkeyable as error:
        raise Unkeyable(f"{place}: {error}") from error


def _array(value: Any, place: str) -> Any:
    if qualified_name(type(value)) == "numpy.ndarray":
        if value.dtype.hasobject:
            raise Unkeyable(f"{place} is an array of objects")
        return ("array", value)
    if hasattr(value, "tobytes") and hasattr(value, "dtype") and not value.shape and not value.dtype.hasobject:
        of = [str(value.dtype)] if value.dtype.kind in _OF_SEVERAL else []
        return ("numpy", type(value).__name__, *of, value.tobytes())
    raise Unkeyable(f"{place} is a {qualified_name(type(value))}, which has no canonical form")
