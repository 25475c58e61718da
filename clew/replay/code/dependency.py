"""What the behaviour of a callable depends on, walked from the callable: functions, classes, values, modules, versions.

Each thing of a name of its own is a *part* with a digest of its own content, in which other parts stand by name. So a
change in a helper changes the helper's part, not its callers', and recursion ends at a name.
"""

from __future__ import annotations

import builtins
import enum
import functools
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, ModuleType
from typing import Any, NamedTuple, cast

import msgspec

from clew.replay.code import schema
from clew.replay.code import value as values
from clew.replay.code.bytecode import Bytecode, Reference, bytecode_of
from clew.replay.code.dynamic import (
    BY_NAME,
    BY_NAME_WORDS,
    DOCSTRING_WORDS,
    IMPORTERS,
    SPECIAL,
    UNKNOWABLE,
    UNKNOWABLE_WORDS,
)
from clew.replay.code.module import (
    PYTHON,
    Source,
    absolute,
    contents,
    is_installed,
    is_of_its_module,
    module_name,
    public_name,
    sources,
    stands_in,
    versions,
    with_parents,
)
from clew.replay.code.patched import is_patched, is_put, named
from clew.replay.code.reading import ABSENT, cell_content, state_of
from clew.replay.code.witness import Witness
from clew.replay.code.wrapper import MARK, set_on, wrapped_by
from clew.store.digest import Digest
from clew.store.encoding import value_digest
from clew.store.errors import Unkeyable

MAX_VALUES = 1 << 17
_CYTHON = "_cython_"  # the module, with a version in its name, of the functions that Cython compiles
# Of a class: what says where it stands, or is made from the rest of it.
_DERIVED = frozenset((
    "__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__",
    "__annotations_cache__", "_abc_impl", "__abstractmethods__", "_member_map_", "_value2member_map_",
    "_member_names_", "_unhashable_values_", "_unhashable_values_map_", "_hashable_values_", "__pydantic_setattr_handlers__",
    "__pydantic_parent_namespace__",  # the local variables of a function in which it stands
    "__pydantic_core_schema__",  # holds addresses; of what it is made from, the fields cost the module's source
))  # fmt: skip
_BUILTIN = (
    types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, types.MethodWrapperType,
    types.ClassMethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType,
)  # fmt: skip


class Part(msgspec.Struct, frozen=True):
    """One thing that a callable's behaviour depends on. `kind` is function, class, constant, callable, opaque (an object
    whose state is not in the digest), module (a source), distribution or version."""

    kind: str
    name: str
    digest: Digest

    @classmethod
    def of(cls, kind: str, name: str, content: Any) -> Part:
        """The part whose digest is that of `content`."""
        return cls(kind, name, value_digest(content))


class Place(NamedTuple):
    """Where a value was found: its dotted name, and the module whose source counts if the value itself cannot."""

    name: str
    module: str

    def at(self, step: str) -> Place:
        return Place(f"{self.name}.{step}", self.module)


def name_of(thing: Any) -> str:
    """The qualified name of a callable, or of its class if it has none."""
    if isinstance(thing, functools.partial):
        return f"partial({name_of(thing.func)})"
    if not isinstance(getattr(thing, "__qualname__", None), str):
        thing = type(thing)
    module = getattr(thing, "__module__", None) or getattr(thing, "__objclass__", object).__module__
    return f"{public_name(str(module))}.{thing.__qualname__}"


class Dependencies:
    """The parts found so far, and the witness of what they were made from."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {"Python": Part.of("distribution", "Python", PYTHON)}
        self.witness = Witness()
        self._names: dict[int, str] = {}  # by id, of parts and of values that others can be inside of
        self._taken: dict[str, int] = {}
        self._held: list[object] = []  # so that no id is given twice
        self._modules: set[str] = set()

    def add_root(self, root: Callable[..., Any]) -> None:
        """The callable itself, and all that it depends on."""
        module = getattr(root, "__module__", None) or type(root).__module__
        place = Place(name_of(root), str(module))
        form = self.value(root, place)
        if not isinstance(root, (FunctionType, type)) or place.name not in self.parts:
            self._add("callable", f"{place.name}()", ["callable", form])

    def value(self, value: Any, place: Place) -> Any:
        """`value` as it stands in the content of a part: plain itself, everything else a list with its sort in front."""
        cls = type(value)
        if cls in values.LEAVES:
            return value
        if value is ... or value is NotImplemented or value is ABSENT:
            return [cls.__name__]
        known = self._names.get(id(value))
        if known is not None:
            return ["same", known]
        if id(value) in UNKNOWABLE:
            raise Unkeyable(f"{place.name} {UNKNOWABLE[id(value)]}; give the function a version of its own")
        if len(self._held) > MAX_VALUES:
            raise Unkeyable(f"{place.name} is one of more than {MAX_VALUES} values")
        if id(value) in BY_NAME:
            self._namespace_of(place)
        self._held.append(value)
        if cls is FunctionType:
            return self._function(value, place)
        if isinstance(value, type):
            return self._class(value, place)
        if isinstance(value, ModuleType):
            return self._module(value, place)
        if isinstance(value, _BUILTIN) or str(cls.__module__).startswith(_CYTHON):
            return self._builtin(value, place)
        if (said := schema.said(value, self.witness)) is not None:
            return ["said", cls.__name__, *([name, self.value(part, place.at(name))] for name, part in said)]
        if (parts := values.members(value)) is not None:
            return [cls.__name__, *(self.value(part, place.at(name)) for name, part in parts)]
        return self._object(value, place)

    # Code

    def _function(self, function: FunctionType, place: Place) -> Any:
        if (wrapped := wrapped_by(function)) is not None:
            return self._wrapper(function, wrapped, place)
        installed = is_installed(function.__code__.co_filename)
        if installed:
            owner = str(function.__globals__.get("__name__"))
            self._installed(owner, place)
            if is_of_its_module(function):
                self.witness.words.add(function.__name__)  # whatever it is called by where it stands
                return ["installed", owner, function.__qualname__]
        name = self._name(function, name_of(function))
        self.witness.add_function(function)
        here = Place(name, place.module if installed else str(function.__globals__.get("__name__")))
        content = [
            self.mapping(function.__kwdefaults__ or {}, here.at("<default>")),
            [self.value(one, here.at("<default>")) for one in function.__defaults__ or ()],
            [self.value(cell_content(cell), here.at("<closure>")) for cell in function.__closure__ or ()],
            self.mapping({name: one for name, one in function.__dict__.items() if name != MARK}, here),
            self._annotations(function, here),
        ]
        if not installed:
            bytecode = bytecode_of(function.__code__)
            self.witness.words |= bytecode.words
            own_docstring = function.__doc__ is None or function.__doc__ in function.__code__.co_consts[:1]
            content += [bytes(bytecode.digest), self._references(function, bytecode, here)]
            content += [None if own_docstring else self.value(function.__doc__, here)]
        self._add("function", name, content)
        return ["part", name]

    def _wrapper(self, function: FunctionType, wrapped: Any, place: Place) -> Any:
        """One of clew's own wrappers: what it wraps, and what the program set on it."""
        self.witness.add(function)
        self.witness.add_container(function.__dict__)
        form, found = self.value(wrapped, place), set_on(function, wrapped)
        return ["wrapper", form, self.mapping(found, place)] if found else form

    def _annotations(self, function: FunctionType, place: Place) -> Any:
        annotate = getattr(function, "__annotate__", None)  # from Python 3.14: a function, run when they are asked for
        if annotate is not None or sys.version_info >= (3, 14):
            return self.value(annotate, place)
        if not function.__annotations__:
            return []
        return self.mapping(function.__annotations__, place.at("<annotation>"))

    def _references(self, function: FunctionType, bytecode: Bytecode, place: Place) -> list[Any]:
        for word in sorted(bytecode.words & UNKNOWABLE_WORDS.keys()):
            raise Unkeyable(f"{place.name} {UNKNOWABLE_WORDS[word]}; give the function a version of its own")
        if bytecode.words & BY_NAME_WORDS:
            self._namespace_of(place)
        if bytecode.words & DOCSTRING_WORDS:
            self._source(place.module, place.name, "reads docstrings or source")
        for name, level, names in sorted((one.name, one.level, one.names) for one in bytecode.imports):
            package = str(function.__globals__.get("__package__") or "")
            self._import(absolute(name, level, package), names, bytecode.words, place)
        names = tuple(sorted({reference.path[0] for reference in bytecode.references}))
        own, built = function.__globals__, cast(Any, function).__builtins__
        outside = tuple(name for name in names if name not in own)
        self.witness.add_names(own, names)
        if outside:
            self.witness.add_names(built, outside)
        return [
            [list(one.path), self._reference(one, own if one.path[0] in own else built, place, bytecode.changed)]
            for one in sorted(bytecode.references, key=lambda one: (one.path, one.argument or ""))
        ]

    def _reference(
        self, reference: Reference, namespace: Mapping[str, Any], place: Place, changed: frozenset[tuple[str, ...]]
    ) -> Any:
        """What a name, with the attributes read from it, stands for: followed through modules, not into other things."""
        value, owner, rest = namespace.get(reference.path[0], ABSENT), place.module, list(reference.path[1:])
        path = [reference.path[0]]
        installed = namespace is builtins.__dict__ or value is builtins
        if namespace is builtins.__dict__:
            owner = "builtins"
        while isinstance(value, ModuleType) and rest and rest[0] in contents(value):
            owner, path = module_name(value), [rest.pop(0)]
            self.witness.packages.add(owner.partition(".")[0])
            installed = versions(owner) is not None
            if installed:
                self._installed(owner, place)
            self.witness.add_names(contents(value), path[:1])
            value = contents(value)[path[0]]
        if value is ABSENT:
            return ["absent"]
        if id(value) in IMPORTERS and reference.argument is not None:
            return ["import", reference.argument]
        if id(value) in SPECIAL:
            return self.value(value, place)
        if installed and not isinstance(value, ModuleType) and not is_put(value, self.witness):
            return ["installed", owner, path, named(value)]
        here = Place(f"{public_name(owner)}.{path[0]}", owner)
        if isinstance(value, values.CHANGING) and reference.path[: len(reference.path) - len(rest)] in changed:
            self._source(owner, here.name, "is changed by the code")
            return ["state", here.name]
        return self._constant(value, here)

    def _constant(self, value: Any, place: Place) -> Any:
        """The value of a name in a module: a part of its own."""
        form = self.value(value, place)
        if isinstance(value, (FunctionType, type, ModuleType)):
            return form
        name = self._name(None, place.name)
        self._add("constant", name, form)
        return ["part", name]

    def _class(self, cls: type, place: Place) -> Any:
        if type(cls.__module__) is not str:  # made in C, with a name of its own for it
            raise Unkeyable(f"{place.name} is the class {cls.__qualname__}, of no known module")
        if versions(cls.__module__) is not None:
            self._installed(cls.__module__, place)
            if cls.__module__ == "builtins" or (stands_in(cls, cls.__module__) and not is_patched(cls, self.witness)):
                return ["installed", cls.__module__, cls.__qualname__]
        name = self._name(cls, name_of(cls))
        here = Place(name, cls.__module__ if cls.__module__ in sys.modules else place.module)
        self.witness.add_class(cls)
        derived = _DERIVED | set(cls.__members__) if issubclass(cls, enum.Enum) else _DERIVED
        derived = derived - {"__doc__"} if schema.is_described(cls) else derived
        content = [
            [self.value(one, here) for one in (type(cls), *cls.__mro__[1:])],
            [
                [key, self.value(one, here.at(key))]
                for key, one in cls.__dict__.items()
                if key not in derived and not schema.is_compiled(key, one)
            ],
        ]
        if issubclass(cls, enum.Enum):
            content += [[[key, self.value(member, here.at(key))] for key, member in cls.__members__.items()]]
        self._add("class", name, content)
        return ["part", name]

    def _builtin(self, builtin: Any, place: Place) -> Any:
        """A function or descriptor written in C: its name, its version, and what it is bound to."""
        bound = getattr(builtin, "__self__", None)
        owner = getattr(builtin, "__objclass__", None)
        if owner is not None:
            return ["builtin", self.value(owner, place), builtin.__name__]
        if bound is not None and not isinstance(bound, ModuleType):
            return ["builtin", self.value(bound, place), builtin.__name__]
        module = builtin.__module__ or (bound.__name__ if bound is not None else None)
        if module is None:
            raise Unkeyable(f"{place.name} is {builtin!r}, a C function of no known module: its version is unknown")
        if versions(module) is None:
            self._source(module, place.name, "is a C function")
        else:
            self._installed(module, place)
        return ["builtin", module, builtin.__qualname__]

    # Values

    def mapping(self, mapping: Mapping[Any, Any], place: Place) -> list[Any]:
        """Keys and values in order: a program that iterates sees it."""
        return [[self.value(key, place), self.value(one, place.at(str(key)))] for key, one in mapping.items()]

    def _object(self, value: Any, place: Place) -> Any:
        cls = type(value)
        if (content := values.immutable(value)) is not None:
            return ["value", name_of(cls), content]
        if (array := values.array(value)) is not None:
            self.witness.blind = True
            return ["array", array]
        if cls in (tuple, frozenset):  # whether equal ones are one object is the compiler's choice
            return [cls.__name__, self._each(value, place)]
        name = self._name(value, place.name)
        if isinstance(value, enum.Enum):
            self.witness.add_instance(value)
            state = {key: one for key, one in state_of(value).items() if key not in ("__objclass__", "_sort_order_")}
            return ["enum", self.value(cls, place), self.mapping(state, place)]
        content = values.container(value)
        if content is not None:
            self.witness.add_read(value, values.container_parts)
        state = state_of(value)
        if cls.__module__ == "functools":
            state.pop("__doc__", None)
        if content is None and not (values.is_all_python(cls) and (not state or values.is_open(cls, versions))):
            return self._opaque(value, place)
        if state or cls not in values.CONTAINERS:
            self.witness.add_instance(value)
        return ["object", name, self.value(cls, place), self._each(content or (), place), self.mapping(state, place)]

    def _each(self, content: Iterable[Any], place: Place) -> list[Any]:
        if isinstance(content, (set, frozenset)):
            order = {one: values.sort_key(one) for one in content}
            if None in order.values() or len({*order.values()}) < len(order):
                return [self._opaque(content, place)]
            content = sorted(content, key=lambda one: order[one] or b"")
        return [self.value(one, place) for one in content]

    def _opaque(self, value: Any, place: Place) -> Any:
        """An object whose state has no form: its class, and the source of the module where it was found."""
        self._source(place.module, place.name, f"is a {name_of(type(value))}, which has no canonical form")
        cls = self.value(type(value), place)
        name = self._name(None, f"{place.name} (object)")
        self._add("opaque", name, cls)
        return ["part", name]

    # Modules

    def _module(self, module: ModuleType, place: Place) -> Any:
        """A module that is handed about: anything in it may be read."""
        name = module_name(module)
        if versions(name) is not None:
            self._installed(name, place)
            return ["installed", name]
        self._names[id(module)] = f"{public_name(name)} (module)"
        self._source(name, place.name, "hands the module itself on")
        found = {key: one for key, one in contents(module).items() if not key.startswith("__") or key == "__getattr__"}
        self.witness.add_container(contents(module))
        self._add("constant", f"{public_name(name)}.*", self.mapping(found, Place(public_name(name), name)))
        return ["module", public_name(name)]

    def _namespace_of(self, place: Place) -> None:
        module = sys.modules.get(place.module)
        if module is None:
            raise Unkeyable(f"{place.name} looks names up in {place.module}, which is not a loaded module")
        if id(module) not in self._names:
            self._module(module, place)

    def _import(self, name: str, names: tuple[str, ...], words: Iterable[str], place: Place) -> None:
        self.witness.packages.add(name.partition(".")[0])
        for one in with_parents(name, names):
            module = sys.modules.get(one)
            self.witness.add_names(sys.modules, (one,))
            installed = versions(one) is not None
            if installed:
                self._installed(one, place)
            else:
                self._sources(one)
            if isinstance(module, ModuleType):
                found = tuple(sorted(contents(module).keys() & {*words, *names}))
                self.witness.add_names(contents(module), found)
                for key in found:
                    value = contents(module)[key]
                    if id(value) in SPECIAL:
                        self.value(value, place)
                    elif not installed or is_put(value, self.witness):
                        self._constant(value, Place(f"{public_name(one)}.{key}", one))

    def _source(self, module: str, name: str, why: str) -> None:
        if not self._sources(module):
            raise Unkeyable(f"{name} {why}, and module {module} has no source to count instead")

    def _sources(self, module: str) -> bool:
        if module in self._modules:
            return True
        found = False
        for name, source in sources(module):
            self._modules.add(name)
            found = found or name == module
            if isinstance(source, Source):
                part = Part("module", f"{public_name(name)} (source)", source.digest)
                self.parts[part.name] = part
                if name in sys.modules:
                    self.witness.add_names(contents(sys.modules[name]), ("__spec__",))
            else:
                self._versions(source)
        return found

    def _installed(self, module: str, place: Place) -> None:
        self.witness.packages.add(module.partition(".")[0])
        found = versions(module)
        if found is None:
            raise Unkeyable(f"{place.name} is installed, but module {module} belongs to no distribution")
        self._versions(found)

    def _versions(self, found: tuple[str, ...]) -> None:
        for one in found:
            if one != PYTHON:
                name = one.partition(" ")[0]
                self.parts[name] = Part.of("distribution", name, one)

    def _name(self, thing: object, name: str) -> str:
        """A name that no other thing has, numbered in the order of the walk where several want the same."""
        count = self._taken[name] = self._taken.get(name, 0) + 1
        name = name if count == 1 else f"{name} #{count}"
        if thing is not None:
            self._names[id(thing)] = name
        return name

    def _add(self, kind: str, name: str, content: Any) -> None:
        self.parts[name] = Part.of(kind, name, content)
