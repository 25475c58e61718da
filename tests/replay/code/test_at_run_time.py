"""What is set, replaced or kept while a program runs, and the digest of its code."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import string
import sys
import textwrap
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clew.replay.code import code_of
from clew.store.errors import Unkeyable
from tests.replay.code.bed import Project, code, digest


def test_a_file_that_was_changed_after_its_import_does_not_count_as_the_source(project: Project) -> None:
    app = project("def h(): return 1\ndef f(x): return eval(x)")
    assert app.__file__ is not None
    Path(app.__file__).write_text("def h(): return 2222\ndef f(x): return eval(x)")
    with pytest.raises(Unkeyable, match="changed after it was imported"):
        code(app)


REBINDS: dict[str, Callable[[Any], object]] = {
    "a global": lambda app: setattr(app, "K", 2),
    "a global to None": lambda app: setattr(app, "K", None),
    "a missing global": lambda app: setattr(app, "missing", 1),
    "a builtin by a global": lambda app: setattr(app, "len", lambda x: 0),
    "a helper": lambda app: setattr(app, "h", lambda: 2),
    "a helper's code": lambda app: setattr(app.h, "__code__", (lambda: 2).__code__),
    "a helper's default": lambda app: setattr(app.d, "__defaults__", (2,)),
    "a helper's keyword default": lambda app: app.d.__kwdefaults__.update(y=2),
    "a helper's attribute": lambda app: setattr(app.h, "new", 2),
    "a helper in another module": lambda app: setattr(app.lib, "h", lambda: 2),
    "an entry of a dict": lambda app: app.TABLE.update(k=2),
    "the order of a dict": lambda app: app.TABLE.update(k=app.TABLE.pop("k")),
    "an item of a nested list": lambda app: app.TABLE["l"][0].append(2),
    "a member of a set": lambda app: app.TABLE["s"].add(2),
    "a byte": lambda app: app.TABLE["b"].__setitem__(0, 7),
    "a method": lambda app: setattr(app.A, "m", lambda self: 2),
    "a class attribute": lambda app: setattr(app.A, "k", 2),
    "an inherited method": lambda app: setattr(app.B, "n", lambda self: 2),
    "a base class": lambda app: setattr(app.A, "__bases__", (app.C,)),
    "an instance's attribute": lambda app: setattr(app.OBJECT, "k", 2),
    "an instance's class": lambda app: setattr(app.OBJECT, "__class__", app.B2),
    "a closure's variable": lambda app: app.set_cell(2),
    "a function of an installed module": lambda app: setattr(app.textwrap, "dedent", lambda x: x),
}
REBINDABLE = """
import textwrap
import lib
K = 1
TABLE = {"k": 1, "l": [[1]], "s": {1}, "b": bytearray(b"a")}
def h(): return 1
def d(x=1, *, y=1): return x, y
class C: pass
class B(C):
    def n(self): return 1
class A(B):
    k = 1
    def m(self): return 1
class B1: pass
class B2: pass
OBJECT = B1()
OBJECT.k = 1
def make():
    x = 1
    def get(): return x
    def put(y):
        nonlocal x
        x = y
    return get, put
cell, set_cell = make()
def f(x):
    missing
    return K, len(x), h(), d(), lib.h(), TABLE, A(), OBJECT.k, cell(), textwrap.dedent(x)
"""


@pytest.mark.parametrize("case", REBINDS)
def test_a_change_at_run_time_is_seen(case: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textwrap, "dedent", textwrap.dedent)  # put back afterwards
    app = project(REBINDABLE, lib="def h(): return 1")
    before = digest(app)
    assert code(app) is code(app), "not remembered: the test would not test what is"
    REBINDS[case](app)
    after = digest(app)
    assert after != before
    assert digest(app) == after


FIELDS: dict[str, Callable[[Any], object]] = {
    "a default": lambda fields: setattr(fields["x"], "default", 2),
    "a description": lambda fields: setattr(fields["x"], "description", "what x is"),
    "an empty default": lambda fields: fields["empty"].default.append(1),
    "an empty list": lambda fields: fields["x"].metadata.append("new"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_field_of_pydantic_that_is_changed_in_place_is_seen(case: str, project: Project) -> None:
    app = project("""
        from pydantic import BaseModel
        class A(BaseModel):
            x: int = 1
            empty: object = []
        def f(): return A.model_construct()
    """)
    before = digest(app)
    assert code(app) is code(app)
    FIELDS[case](app.A.model_fields)
    assert digest(app) != before


def test_a_module_that_is_reloaded_is_read_anew(project: Project) -> None:
    app = project("import lib\ndef f(x): return getattr(lib, x)", lib="def h(): return 1")
    before = digest(app)
    Path(app.lib.__file__).write_text("def h(): return 1000")
    importlib.reload(app.lib)
    assert digest(app) != before


def calls_of(function: Callable[[], object]) -> int:
    """How many calls are made in it, those of C functions too."""
    count = 0

    def on(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(on)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def test_asking_again_takes_few_calls_however_many_helpers_there_are(project: Project) -> None:
    """Measured in November 2026: 10 to 19 us for a function with five helpers, in 43 calls."""

    def first_and_again(number: int) -> tuple[int, int]:
        helpers = "\n".join(f"def h{n}(x): return x + {n}" for n in range(number))
        called = "\n".join(f"    x = h{n}(x)" for n in range(number))
        app = project(f"{helpers}\ndef f(x):\n{called}")
        return calls_of(lambda: code_of(app.f)), calls_of(lambda: code_of(app.f))

    few, many = first_and_again(5), first_and_again(50)
    assert many[1] == few[1] < 60
    assert many[0] > 10_000


def test_an_array_that_is_changed_in_place_is_seen(project: Project) -> None:
    app = project("import numpy\nK = numpy.zeros(2)\ndef f(): return K")
    before = digest(app)
    app.K[0] = 7
    assert digest(app) != before


class Put:
    def method(self, text: str) -> str:
        return "put"


def put(text: str) -> str:
    return "put"


PUT: dict[str, Any] = {
    "a bound method": Put().method,
    "a method": Put.method,
    "a partial": functools.partial(put, "text"),
    "a partial of a library's": functools.partial(textwrap.fill, width=4),
    "a remembered function": functools.lru_cache(put),
    "another function of a library": textwrap.fill,
    "a function of another library": string.capwords,
    "a C function": ascii,
    "a class": Put,
}


@pytest.mark.parametrize("case", PUT)
def test_what_is_put_into_an_installed_module_is_seen(
    case: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = project("import textwrap\ndef f(x): return textwrap.dedent(x)")
    before = digest(app)
    with monkeypatch.context() as patch:
        patch.setattr(textwrap, "dedent", PUT[case])
        after = digest(app)
    assert after != before


def test_a_mock_in_an_installed_module_counts_as_an_object_that_is_not_seen(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = project("import textwrap\ndef f(x): return textwrap.dedent(x)")
    with monkeypatch.context() as patch:
        patch.setattr(textwrap, "dedent", unittest.mock.Mock(return_value="put"))
        parts = code(app).parts
    assert "opaque" in {part.kind for part in parts}


def test_a_remembered_function_that_is_put_into_an_installed_class_is_seen(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = project("import string\ndef f(x): return string.Template(x).substitute()")
    before = digest(app)
    with monkeypatch.context() as patch:
        patch.setattr(string.Template, "substitute", functools.lru_cache(put))
        after = digest(app)
    assert after != before


STATE = """
SEEN = []
COUNTS = {}
TABLE = {"a": 1}

def f(x):
    SEEN.append(x)
    COUNTS[x] = COUNTS.get(x, 0) + 1
    return g(x)

def g(x):
    return TABLE.get(x)
"""


def test_what_the_code_changes_is_no_constant(project: Project) -> None:
    module = project(STATE)
    before = code_of(module.f)
    module.f("a")
    assert module.SEEN
    assert code_of(module.f).digest == before.digest


def test_what_it_only_reads_is_one(project: Project) -> None:
    module = project(STATE)
    before = code_of(module.f)
    module.TABLE["a"] = 2
    assert code_of(module.f).digest != before.digest


def test_where_the_code_keeps_something_counts_by_its_source(project: Project) -> None:
    assert code_of(project(STATE).f).digest != code_of(project(STATE.replace("SEEN = []", "SEEN = [0]")).f).digest


READ_BESIDE = {  # an item is set, of something else
    "an item of a local": "def f(x):\n made = {}\n made[x] = TABLE[x]\n return made",
    "in a loop": "def f(x):\n made = {}\n for one in TABLE:\n  made[one] = TABLE[one]\n return made",
    "an item of one of two": "def f(x):\n made = TABLE if x else {}\n made[x] = 1",
    "an item of an argument": "def f(x, made):\n if x: made = TABLE\n made[x] = 1",
    "beside another's": "def f(x):\n COUNTS[x] = TABLE[x]",
}


@pytest.mark.parametrize("case", READ_BESIDE)
def test_what_is_read_where_an_item_of_something_else_is_set_is_a_constant(case: str, project: Project) -> None:
    """It was taken for state, and a function was served that had read another table."""
    module = project("COUNTS = {}\nTABLE = {1: 1}\n" + READ_BESIDE[case])
    before = code_of(module.f)
    module.TABLE[1] = 2
    assert code_of(module.f).digest != before.digest


SET_ITEMS = {
    "an item": "def f(x): STATE[x] = 1",
    "an item that is counted up": "def f(x): STATE[x] += len(TABLE)",
    "an item that is deleted": "def f(x): del STATE[x]",
    "an item of what it holds": "def f(x): STATE[x][1] = 2",
    "under a local name": "def f(x):\n kept = STATE\n if x not in kept:\n  kept[x] = TABLE[x]\n return kept[x]",
    "where nothing is known": "def f(x):\n try: return STATE[x]\n except KeyError: STATE[x] = TABLE.get(x)",
    "in a function inside": "def f(x):\n def put(): STATE[x] = 1\n put()",
}


@pytest.mark.parametrize("case", SET_ITEMS)
def test_a_container_that_items_are_set_in_is_no_constant(case: str, project: Project) -> None:
    module = project("STATE = {}\nTABLE = {1: 1}\n" + SET_ITEMS[case])
    before = code_of(module.f)
    module.STATE[1] = 2
    assert code_of(module.f).digest == before.digest
