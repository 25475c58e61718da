"""Arguments whose own methods fail: the program gets and returns them untouched, and its span is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.documents import Document

import clew
from clew.lineage.reader import Reader
from clew.tracer.init import Tracer


class Failed(RuntimeError):
    """What a method of the program's own raises."""


def fails(*arguments: Any, **named: Any) -> Any:
    raise Failed


METHODS = [
    "__hash__", "__eq__", "__ne__", "__repr__", "__str__", "__format__", "__len__", "__bool__", "__iter__",
    "__contains__", "__getattr__", "__getitem__", "__reduce_ex__", "__sizeof__", "__dir__", "__call__", "__instancecheck__",
    "__index__", "__lt__", "__copy__", "__deepcopy__", "__array__", "__fspath__", "__enter__",
]  # fmt: skip


def broken(method: str, *bases: type) -> Any:
    """An object one of whose methods fails."""
    return type("Broken", bases, {method: fails, "__module__": "program"})()


class NoClass:
    @property
    def __class__(self) -> Any:
        raise Failed


class NoFields:
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise Failed


class NoAttribute:
    def __getattribute__(self, name: str) -> Any:
        raise Failed


class NoSubclass(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise Failed

    def __subclasscheck__(cls, subclass: type) -> bool:
        raise Failed


class OfNoSubclass(metaclass=NoSubclass):
    pass


class BrokenText(str):
    __slots__ = ()
    __hash__ = __eq__ = __len__ = __str__ = __repr__ = fails  # type: ignore[assignment]


class BrokenList(list[Any]):
    __iter__ = __len__ = __eq__ = __getitem__ = fails  # type: ignore[assignment]


class BrokenDict(dict[Any, Any]):
    __iter__ = __len__ = __eq__ = keys = items = values = __getitem__ = fails  # type: ignore[assignment]


class BrokenNumber(int):
    __int__ = __index__ = __eq__ = __hash__ = __repr__ = fails  # type: ignore[assignment]


HOSTILE: dict[str, Callable[[], Any]] = {
    **{method: lambda method=method: broken(method) for method in METHODS},
    "a list with a failing __iter__": lambda: broken("__iter__", list),
    "a text with failing methods": lambda: BrokenText("x" * 100),
    "a list with failing methods": lambda: BrokenList([1]),
    "a dict with failing methods": lambda: BrokenDict(a=1),
    "a number with failing methods": lambda: BrokenNumber(3),
    "no __class__": NoClass,
    "no __dict__": NoFields,
    "no attribute at all": NoAttribute,
    "a class that nothing is an instance of": OfNoSubclass,
    "that class itself": lambda: OfNoSubclass,
    "a document with one in its metadata": lambda: Document("text", metadata={"odd": broken("__eq__")}),
}
FORMS: dict[str, Callable[[Any], Any]] = {
    "alone": lambda it: it,
    "inside": lambda it: [1, it, {"a": {"b": it}, 3: (it, it)}],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_function_gets_and_returns_what_it_would_and_its_call_is_recorded(
    tracer: Tracer, reader: Reader, name: str, form: str
) -> None:
    value = FORMS[form](HOSTILE[name]())
    seen: list[Any] = []

    @clew.trace
    def take(first: str, value: Any, *, also: Any = None) -> Any:
        seen.append(value)
        return value

    with clew.run("run") as run:
        assert take("first", value, also=value) is value
        run.output(value)
    assert len(seen) == 1
    assert seen[0] is value
    assert tracer.faults.counts == {}
    spans = {span.name: span for span in reader.spans()}
    taken = next(span for label, span in spans.items() if label.endswith("take"))
    assert (taken.status, spans["run"].status) == ("ok", "ok")
    assert {slot.role for slot in taken.used} == {"first", "value", "also"}
    assert next(slot.value for slot in taken.used if slot.role == "first") == "first"
    assert [slot.role for slot in taken.generated] == ["return"]


async def test_generators_coroutines_blocks_and_attributes_take_them_too(tracer: Tracer, reader: Reader) -> None:
    values = [make() for make in HOSTILE.values()]

    @clew.trace("stream")
    def stream(given: list[Any]) -> Iterator[Any]:
        yield from given

    @clew.trace("later")
    async def later(given: list[Any]) -> list[Any]:
        await asyncio.sleep(0)
        return given

    with clew.run("run"), clew.trace("block") as block:
        assert all(one is other for one, other in zip(stream(values), values, strict=True))
        assert await later(values) is values
        block.used(values)
        block.generated(values)
        assert block.span is not None
        block.span.attributes({f"a{number}": value for number, value in enumerate(values)})
    assert tracer.faults.counts == {}
    assert {span.name: span.status for span in reader.spans()} == dict.fromkeys(
        ("run", "block", "stream", "later"), "ok"
    )


@pytest.mark.parametrize("method", ["__hash__", "__eq__", "__str__", "__repr__", "__len__", "__bool__", "__getattr__"])
def test_an_exception_with_a_failing_method_passes_unchanged(tracer: Tracer, reader: Reader, method: str) -> None:
    error = broken(method, Exception)

    @clew.trace("fail")
    def fail() -> None:
        raise error

    try:
        fail()
    except Exception as caught:
        passed = caught
    assert passed is error
    assert tracer.faults.counts == {}
    (span,) = reader.spans()
    assert (span.status, span.attributes["error.type"]) == ("error", "Broken")
