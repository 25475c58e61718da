"""What the digest of code is made of, in each process the same, and what has none."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clew.replay.code import callable as code_module
from clew.replay.code import code_of
from clew.replay.code.bytecode import bytecode_of
from clew.replay.code.module import version as installed_version
from clew.store.digest import Digest
from clew.store.errors import ClewError, Unkeyable
from tests.replay.code.bed import Project, changed, code, digest


def test_a_changed_helper_is_the_only_part_that_differs(project: Project) -> None:
    """joblib 1.5 serves the old answer of a caller whose helper was edited."""
    app = "from lib import h\ndef f(): return h() + 1"
    before = code(project(app, lib="def h(): return 1"))
    after = code(project(app, lib="def h(): return 100"))
    assert changed(before, after) == {"lib.h"}


def test_a_changed_constant_is_named_by_its_module(project: Project) -> None:
    app = "import lib\ndef f(): return lib.LIMIT"
    assert changed(code(project(app, lib="LIMIT = 1")), code(project(app, lib="LIMIT = 2"))) == {"lib.LIMIT"}


def test_lambdas_on_one_line_differ() -> None:
    one, other = (lambda: 1), (lambda: 2)
    assert code_of(one).digest != code_of(other).digest


def test_functions_of_one_name_in_different_scopes_differ(project: Project) -> None:
    app = project("""
        class A:
            def m(self): return 1
        def make():
            class A:
                def m(self): return 2
            return A
        B = make()
        B.__qualname__ = 'A'
        B.m.__qualname__ = 'A.m'
        def f(): return A().m()
        def g(): return B().m()
        def h(): return A().m() + B().m()
    """)
    assert code_of(app.A.m).digest != code_of(app.B.m).digest
    assert {"app.A", "app.A #2", "app.A.m", "app.A.m #2"} <= {part.name for part in code(app, "h").parts}


def test_recursion_ends(project: Project) -> None:
    source = (
        "def f(n): return n and g(n - 1)\ndef g(n): return n and {}f(n - 1)\nL = [f]\nL.append(L)\ndef h(): return L"
    )
    before, after = project(source.format("")), project(source.format("-"))
    for name in "fgh":
        assert digest(before, name) != digest(after, name)


DETERMINISTIC = """
import collections, enum, dataclasses, functools, lib
from typing import Optional, Callable, Literal, TypeVar
T = TypeVar('T')
class E(enum.Enum):
    A = 'a'
    B = 'b'
@dataclasses.dataclass(frozen=True)
class D:
    k: Optional[int] = None
    s: set = dataclasses.field(default_factory=lambda: {'x', 'y', 'z'})
class A(lib.B):
    names = frozenset({'one', 'two', 'three'})
    @functools.cached_property
    def p(self): return {E.A, E.B}
    def __call__(self, x: Callable[[T], T], y: Literal['a', 'b'] = 'a'): return x in {'p', 'q', 'r', ('s', 1)}
SET = {E.A, E.B, 'c', D, len, (1, 'x')}
CALL = A()
def f(x): return [x in {'a', 'b', 'c', None}, lambda: {'d', 'e'}, SET, CALL, D(), collections.Counter]
"""
PRINT = "from clew.replay.code import code_of; print(code_of({}.f).digest)"


def run(folder: Path, *arguments: str, seed: str = "0") -> str:
    root = Path(__file__).parents[3]
    environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": f"{folder}:{root}"}
    process = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_the_digest_is_the_same_in_every_process_and_for_the_main_program(tmp_path: Path) -> None:
    (tmp_path / "lib.py").write_text("class B:\n def m(self): return {'u', 'v'}")
    (tmp_path / "app.py").write_text(
        DETERMINISTIC + "if __name__ == '__main__':\n import sys\n " + PRINT.format("sys.modules[__name__]")
    )
    imported = {run(tmp_path, "-c", f"import app; {PRINT.format('app')}", seed=seed) for seed in "12"}
    imported.add(run(tmp_path, "-c", f"import lib, json, enum, app; {PRINT.format('app')}", seed="3"))
    assert imported == {run(tmp_path, "app.py", seed="4")}


def test_a_function_of_an_interactive_program_has_a_digest_only_if_its_names_resolve(tmp_path: Path) -> None:
    program = "def h(): return 1\ndef f(): return h()\ndef g(x): return eval(x)\nfrom clew.replay.code import code_of\n"
    assert run(tmp_path, "-c", program + "print(code_of(f).digest)").startswith("b3:")
    refused = "from clew.store.errors import Unkeyable\ntry: code_of(g)\nexcept Unkeyable as error: print(error)"
    assert "module __main__ has no source" in run(tmp_path, "-c", program + refused)


UNCACHEABLE = {
    "a computed import": ("import importlib\ndef f(x): return importlib.import_module(x)", "name is computed"),
    "a computed import under an alias": ("from importlib import import_module as i\ndef f(x): return i(x)", "computed"),
    "a computed import by the builtin": ("def f(x): return __import__(x)", "name is computed"),
    "an import in the body": ("def f(x):\n import importlib\n return importlib.import_module(x)", "name is computed"),
    "a helper's computed import": ("def h(x): return __import__(x)\ndef f(x): return h(x)", "app.h imports"),
    "sys.modules": ("import sys\ndef f(x): return sys.modules[x].h()", "sys.modules"),
    "sys.modules in the body": ("def f(x):\n import sys\n return sys.modules[x].h()", "sys.modules"),
    "the caller's frame": ("import sys\ndef f(): return sys._getframe(1).f_locals", "frames"),
    "loaded subclasses": ("class A: pass\ndef f(): return A.__subclasses__()", "subclasses"),
}


@pytest.mark.parametrize("case", UNCACHEABLE)
def test_what_reaches_unknown_code_has_no_digest_and_the_error_says_why(case: str, project: Project) -> None:
    source, reason = UNCACHEABLE[case]
    with pytest.raises(Unkeyable, match=reason) as caught:
        code(project(source))
    assert "app." in str(caught.value)
    assert isinstance(caught.value, ClewError)


def test_a_c_function_of_no_known_module_has_no_digest(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import blake3

    app = project("import blake3\ndef f(x): return blake3.blake3(x)")
    assert "blake3" in {part.name for part in code(app).parts}
    code_module._known.clear()
    monkeypatch.setattr("clew.replay.code.module.owners", lambda top: frozenset())
    assert blake3.__file__
    with pytest.raises(Unkeyable, match="no distribution owns it"):
        code(app)


def test_another_version_of_a_distribution_is_another_digest(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    app = project("import msgspec\nfrom json import dumps\ndef f(x): return msgspec.json.encode(x), dumps(x)")
    before = code(app)
    assert {part.name for part in before.parts} == {"Python", "app.f", "msgspec"}
    code_module._known.clear()
    installed_version.cache_clear()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "999")
    assert changed(before, code(app)) == {"msgspec"}
    installed_version.cache_clear()


def test_a_version_of_its_own_stands_for_all_the_code(project: Project) -> None:
    before = project("def h(): return 1\ndef f(x): return eval(x), h()")
    first, third = code_of(before.f, version="1"), code_of(before.f, version="3")
    after = project("def f(x): return 2")
    assert code_of(after.f, version="3") == third != first
    assert [(part.kind, part.name) for part in third.parts] == [("version", "app.f")]


@pytest.mark.parametrize(
    "function", [len, str.join, [].append, dict, dict.fromkeys, textwrap.dedent, textwrap.TextWrapper]
)
def test_what_is_installed_counts_as_its_version(function: Callable[..., Any]) -> None:
    assert {part.kind for part in code_of(function).parts} == {"distribution", "callable"}


def test_installed_functions_differ_by_name() -> None:
    functions = [len, abs, str.join, bytes.join, dict, list, textwrap.dedent, textwrap.indent, dict.fromkeys]
    assert len({code_of(function).digest for function in functions}) == len(functions)


def test_an_object_whose_state_is_not_in_the_digest_is_a_part_that_says_so(project: Project) -> None:
    found = code(project("import threading\nK = threading.local()\ndef f(): return K"))
    assert [part.name for part in found.parts if part.kind == "opaque"] == ["app.K (object)"]
    assert "app (source)" in {part.name for part in found.parts}


def test_code_is_plain_data(project: Project) -> None:
    found = code(project("def f(): return 1"))
    plain = msgspec.json.decode(msgspec.json.encode(found.plain()))
    assert plain["digest"] == str(found.digest)
    assert {part["name"]: Digest.parse(part["digest"]) for part in plain["parts"]} == {
        part.name: part.digest for part in found.parts
    }


def test_code_objects_that_differ_in_what_they_catch_where_differ() -> None:
    def guarded(x: Any) -> Any:
        try:
            return x()
        except ValueError:
            return 1

    unguarded = guarded.__code__.replace(co_exceptiontable=b"")
    assert bytecode_of(unguarded).digest != bytecode_of(guarded.__code__).digest
