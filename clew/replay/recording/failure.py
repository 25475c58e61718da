"""What was raised, as data, and raised again: the same class where the program has it loaded, with the same arguments.

Reading imports nothing and calls no constructor: an exception is made of its class, its arguments and its attributes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import msgspec

from clew.replay.answer import pack, unpack
from clew.store.errors import ReplayedError, Unstorable
from clew.tracer.light import told_of

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str, str, msgspec.Raw]).decode
_NOTHING = _encode(None)
Out = Callable[[Any], Any]
_registered: list[tuple[type, str, Out, Out]] = []


def register_failure(cls: type[BaseException], dump: Out, again: Out, name: str | None = None) -> None:
    """How exceptions of a class are kept: `dump(error)` gives data, and `again(data)` does what raising it did: it raises,
    or returns the answer of the call."""
    _registered.insert(0, (cls, name or f"{cls.__module__}.{cls.__qualname__}", dump, again))


def dump(error: BaseException, *, causes: int = 8) -> bytes:
    """An exception as bytes: its class's name, its message, and what it holds, with what it was raised from (so many of
    those at most). Of an attribute that cannot be kept, such as the response of a client, its name is."""
    cls, held = type(error), _NOTHING
    module, name = cls.__module__, cls.__qualname__
    try:
        known = next((one for one in _registered if isinstance(error, one[0])), None)
        if known is not None:
            module, name, held = "", known[1], pack(known[2](error))
        else:
            told = {name: one for name, one in vars(error).items() if name != "__notes__"}
            kept = {name: one for name, one in told.items() if _is_storable(one)}
            held = pack([list(error.args), kept, _causes(error, causes), sorted(told.keys() - kept.keys())])
    except Unstorable:
        pass
    return _encode([module, name, told_of(error)[0], msgspec.Raw(held)])


def again(data: bytes) -> Any:
    """Raise what was raised: a ReplayedError that names it where its class is not loaded, or what it held was not kept.
    Returns an answer only where what was raised was none but a way to ask for one."""
    module, name, _, raw = _decode(data)
    held = bytes(raw)
    if not module and held != _NOTHING:
        known = next((one for one in _registered if one[1] == name), None)
        if known is not None:
            return known[3](unpack(held))
    raise _again(data)


def lost(data: bytes) -> list[str]:
    """The attributes without which an exception is raised again, as they could not be kept."""
    module, _, _, raw = _decode(data)
    held = unpack(bytes(raw)) if module and bytes(raw) != _NOTHING else []
    return list(held[3]) if len(held) > 3 else []


def _is_storable(value: Any) -> bool:
    try:
        pack(value)
    except Unstorable:
        return False
    return True


def _causes(error: BaseException, causes: int) -> bytes:
    return b"" if error.__cause__ is None or not causes else dump(error.__cause__, causes=causes - 1)


def _again(data: bytes) -> Exception:
    module, name, message, raw = _decode(data)
    return _made(module, name, bytes(raw)) or ReplayedError(f"{module}.{name}: {message}".lstrip("."))


def _made(module: str, name: str, held: bytes) -> Exception | None:
    cls: Any = sys.modules.get(module)
    for part in name.split("."):
        cls = getattr(cls, part, None)
    if held == _NOTHING or not isinstance(cls, type) or not issubclass(cls, Exception):
        return None
    try:
        arguments, attributes, *causes = unpack(held)
        made = cls.__new__(cls, *arguments)
        made.args = tuple(arguments)
        made.__dict__.update(attributes)
        if causes and causes[0]:
            made.__cause__ = _again(causes[0])
        return made
    except Exception:  # a class that is made otherwise
        return None
