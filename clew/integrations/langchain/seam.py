"""How LangChain's implementation classes are wrapped, and how every wrapper is taken off again.

A *family* is a framework base class with the methods below it that are boundaries. Its subclasses are found by one walk
of `__subclasses__()`, later ones by `__init_subclass__` on the base, and what both miss (a class that overrides
`__init_subclass__` without calling super) by its first use. A method is wrapped only where it stands in a class's own
`__dict__`: a wrapper put on a class that inherits the method would change what LangChain's "is it overridden" sees.

A wrapper does nothing unless a tracer is installed and acts here: everywhere after `clew.instrument()`, and with
`clew.callback()` alone only below that callback.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from clew.tracer import context
from clew.tracer.init import Tracer

C = TypeVar("C")
Function = Callable[..., Any]
Wrap = Callable[[Function], Function]
_MARK = "__clew_wrapped__"


class Family(NamedTuple):
    """A base class, the methods of it that are boundaries, and how each is wrapped.

    `own` names the methods that are wrapped on the base as well. `inner` are methods of the base alone, such as those
    that call the boundaries.
    """

    base: type
    methods: dict[str, Wrap]
    own: frozenset[str] = frozenset()
    inner: Mapping[str, Wrap] = MappingProxyType({})


class Installed:
    """What one `install` put in place. `always`: the wrappers act outside any span of clew's, too."""

    def __init__(self, tracer: Tracer, families: list[Family], *, always: bool) -> None:
        self.tracer = tracer
        self.always = always
        self.families = families
        self._covered: weakref.WeakSet[type] = weakref.WeakSet()
        self._touched: weakref.WeakSet[type] = weakref.WeakSet()
        self._hooks: list[tuple[Any, Any, Any]] = []

    def put(self) -> None:
        """Wrap what exists, and watch for what comes."""
        for family in self.families:
            with self.tracer.faults.guard(f"wrapping {family.base.__name__}"):
                for name, wrap in family.inner.items():
                    self._wrap(family.base, name, wrap, None)
                for name in family.own:
                    self._wrap(family.base, name, family.methods[name], None)
                self._watch(family)
                found: list[type] = list(family.base.__subclasses__())
                for cls in found:  # grows while it is read
                    below: list[type] = cls.__subclasses__()
                    found.extend([one for one in below if one not in found])
                    self._cover(cls, family)
                self._covered.update(found)

    def cover(self, cls: type) -> None:
        """Wrap a class's boundary methods, if that was not done yet. Cheap to call again."""
        if cls in self._covered:
            return
        self._covered.add(cls)
        for family in self.families:
            if issubclass(cls, family.base):
                self._cover(cls, family)

    def cover_duck(self, cls: type, methods: dict[str, Wrap]) -> None:
        """Wrap methods of a class that only behaves like one of a family."""
        if cls in self._covered:
            return
        self._covered.add(cls)
        for ancestor in cls.__mro__[:-1]:
            for name, wrap in methods.items():
                self._wrap(ancestor, name, wrap, None)

    def take_off(self) -> None:
        """Every class as it was. What somebody wrapped over ours stays, and ours below it does nothing any more."""
        for base, before, ours in reversed(self._hooks):
            if base.__dict__.get("__init_subclass__") is ours:
                if before is None:
                    del base.__init_subclass__
                else:
                    base.__init_subclass__ = before
        self._hooks.clear()
        for cls in list(self._touched):
            for name, value in list(cls.__dict__.items()):
                before = _before(value)
                if before is not None:
                    setattr(cls, name, before)

    def _watch(self, family: Family) -> None:
        base: Any = family.base
        before = base.__dict__.get("__init_subclass__")

        def hook(cls: Any, /, **kwargs: Any) -> None:
            if before is not None:
                before.__get__(None, cls)(**kwargs)
            else:
                super(base, cls).__init_subclass__(**kwargs)
            with self.tracer.faults.guard(f"wrapping {cls.__name__}"):
                self.cover(cls)

        ours: Any = classmethod(hook)
        base.__init_subclass__ = ours
        self._hooks.append((base, before, ours))

    def _cover(self, cls: type, family: Family) -> None:
        above = set(family.base.__mro__)
        for ancestor in cls.__mro__:
            if ancestor in above:
                continue
            # A mixin may serve classes that are none of ours.
            only = None if issubclass(ancestor, family.base) else family.base
            for name, wrap in family.methods.items():
                if name in ancestor.__dict__:
                    self._wrap(ancestor, name, wrap, only)

    def _wrap(self, cls: type, name: str, wrap: Wrap, only: type | None) -> None:
        before = cls.__dict__.get(name)
        if before is None or getattr(before, "__isabstractmethod__", False):
            return
        if _before(before) is not None:  # such as `_run = Other._run` in a class body
            self._touched.add(cls)
            return
        function = before.__func__ if isinstance(before, classmethod) else before
        if isinstance(before, staticmethod) or isinstance(function, type) or not _is_function(function):
            return
        wrapped = functools.wraps(function)(_for_instances(function, wrap(function), only))
        wrapped.__dict__[_MARK] = (weakref.ref(wrapped), before)
        setattr(cls, name, classmethod(wrapped) if isinstance(before, classmethod) else wrapped)
        self._touched.add(cls)


_installed: Installed | None = None
_lock = threading.RLock()


def install(tracer: Tracer, *, always: bool = False) -> Callable[[], None]:
    """Put the boundaries in place; returns what takes them off again, which is safe to call twice.

    Installing again keeps what is there; `always=True` stays, once asked for.
    """
    global _installed
    with _lock:
        if _installed is not None and _installed.tracer is not tracer:
            _take_off(_installed)
        if _installed is None:
            from clew.integrations.langchain import embedding, model, retriever, splitter, tool, vectorstore

            parts = (embedding, model, retriever, splitter, tool, vectorstore)
            families = [family for part in parts for family in part.families()]
            _installed = Installed(tracer, families, always=always)
            _installed.put()
        _installed.always |= always
        return functools.partial(_take_off, _installed)


def _take_off(one: Installed) -> None:
    global _installed
    with _lock:
        if _installed is one:
            _installed = None
            one.take_off()


def installed() -> Installed | None:
    """What is in place now; None without."""
    return _installed


def acting() -> Tracer | None:
    """The tracer, if the wrappers act at this place; else None."""
    here = _installed
    if here is None or here.tracer.closed:
        return None
    return here.tracer if here.always or context.enclosing() is not None else None


def traced() -> Tracer | None:
    """The tracer the wrappers belong to, whether or not they act at this place."""
    here = _installed
    return None if here is None or here.tracer.closed else here.tracer


def cover(cls: type) -> None:
    """The backstop: a class that is used and was missed."""
    here = _installed
    if here is not None:
        here.cover(cls)


def described(tracer: Tracer, where: str, describe: Callable[[], C]) -> C | None:
    """What `describe` returns; None where it failed, counted as a fault: the user's call goes on without us."""
    try:
        return describe()
    except Exception as error:
        tracer.faults.add(where, error)
        return None


def every(names: Iterable[str], wrap: Callable[[str, Function], Function]) -> dict[str, Wrap]:
    """The same way of wrapping for several methods; `wrap(name, original)`."""
    return {name: functools.partial(wrap, name) for name in names}


def _is_function(value: object) -> bool:
    return callable(value) and hasattr(type(value), "__get__")


def _for_instances(original: Function, wrapped: Function, only: type | None) -> Function:
    if only is None:
        return wrapped

    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        of = self if isinstance(self, type) else type(self)
        return (wrapped if issubclass(of, only) else original)(self, *args, **kwargs)

    return checked


def _before(value: Any) -> Any:
    """What stood where our wrapper `value` stands; None if it is no wrapper of ours.

    `functools.wraps` copies a function's attributes, so somebody's wrapper over ours carries our mark: it is ours only
    on the very function it was put on.
    """
    function = value.__func__ if isinstance(value, classmethod) else value
    mark = getattr(function, "__dict__", {}).get(_MARK)
    return mark[1] if mark is not None and mark[0]() is function else None
