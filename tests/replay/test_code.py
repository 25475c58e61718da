"""The digest of the code behind a callable: what changes it, what does not, and what has none."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.replay.code import Code, code_of
from clew.replay.code import callable as code_module
from clew.replay.code.bytecode import bytecode_of
from clew.replay.code.module import version as installed_version
from clew.store.digest import Digest
from clew.store.errors import ClewError, Unkeyable

Project = Callable[..., ModuleType]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project of modules by name, written into a new folder and imported as it stands; the answer is its `app`."""
    folders: list[str] = []
    names: set[str] = set()

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] in names]:
            del sys.modules[name]
        for folder in folders:
            if folder in sys.path:
                sys.path.remove(folder)
        importlib.invalidate_caches()

    def imported(app: str, **modules: str) -> ModuleType:
        forget()
        folder = tmp_path / str(len(folders))
        for name, source in {"app": app, **modules}.items():
            file = folder / (name.replace("__", "/") + ".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            if "__" in name:
                (file.parent / "__init__.py").touch()
            file.write_text(textwrap.dedent(source))
            names.add(name.partition("__")[0])
        folders.append(str(folder))
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        return importlib.import_module("app")

    yield imported
    forget()


def code(module: ModuleType, name: str = "f") -> Code:
    return code_of(getattr(module, name))


def digest(module: ModuleType, name: str = "f") -> Digest:
    return code(module, name).digest


def changed(before: Code, after: Code) -> set[str]:
    """Names of the parts that differ."""
    return {part.name for part in {*before.parts} ^ {*after.parts}}


# What changes the digest: each case is a program before and after an edit outside f's own lines, or in them.
EDITS = {
    "the body": ("def f(x): return x + 1", "def f(x): return x + 2"),
    "an operator": ("def f(x): return x + 1", "def f(x): return x - 1"),
    "1 to 1.0": ("def f(x): return 1", "def f(x): return 1.0"),
    "1 to True": ("def f(x): return 1", "def f(x): return True"),
    "0.0 to -0.0": ("def f(x): return 0.0", "def f(x): return -0.0"),
    "text to bytes": ("def f(x): return 'a'", "def f(x): return b'a'"),
    "a name": ("def f(x): return x.real", "def f(x): return x.imag"),
    "a keyword": ("def f(x): return x(a=1)", "def f(x): return x(b=1)"),
    "the order of arguments": ("def f(x, y): return x", "def f(y, x): return x"),
    "positional to keyword only": ("def f(a, b): return a", "def f(a, *, b): return a"),
    "what is caught": (
        "def f(x):\n try: x()\n except KeyError: return 1",
        "def f(x):\n try: x()\n except ValueError: return 1",
    ),
    "how much is in the try": (
        "def f(x):\n try:\n  x()\n  x()\n except Exception: return 1",
        "def f(x):\n try:\n  x()\n except Exception: return 1\n x()",
    ),
    "a generator": ("def f(x): yield x", "def f(x): return x"),
    "a coroutine": ("async def f(x): return x", "def f(x): return x"),
    "a default": ("def f(x=1): return x", "def f(x=2): return x"),
    "a keyword default": ("def f(*, x=1): return x", "def f(*, x=2): return x"),
    "a default function": (
        "def h(): return 1\ndef f(x=h): return x()",
        "def h(): return 2\ndef f(x=h): return x()",
    ),
    "an annotation": ("def f(x: int): return x", "def f(x: str): return x"),
    "a helper": ("def h(): return 2\ndef f(): return h()", "def h(): return 101\ndef f(): return h()"),
    "a helper of a helper": (
        "def g(): return 2\ndef h(): return g()\ndef f(): return h()",
        "def g(): return 3\ndef h(): return g()\ndef f(): return h()",
    ),
    "a helper in a comprehension": (
        "def h(x): return 1\ndef f(xs): return [h(x) for x in xs]",
        "def h(x): return 2\ndef f(xs): return [h(x) for x in xs]",
    ),
    "a helper in a nested function": (
        "def h(): return 1\ndef f():\n def g(): return h()\n return g()",
        "def h(): return 2\ndef f():\n def g(): return h()\n return g()",
    ),
    "a helper in a class in the function": (
        "def h(): return 1\ndef f():\n class A:\n  x = h()\n return A.x",
        "def h(): return 2\ndef f():\n class A:\n  x = h()\n return A.x",
    ),
    "a lambda": ("h = lambda: 1\ndef f(): return h()", "h = lambda: 2\ndef f(): return h()"),
    "a constant": ("K = 1\ndef f(): return K", "K = 2\ndef f(): return K"),
    "a constant's type": ("K = 1\ndef f(): return K", "K = True\ndef f(): return K"),
    "a constant of a tuple": ("K = (1, ('a',))\ndef f(): return K", "K = (1, ('b',))\ndef f(): return K"),
    "the order of a dict": ("K = dict(a=1, b=2)\ndef f(): return K", "K = dict(b=2, a=1)\ndef f(): return K"),
    "a list to a tuple": ("K = [1]\ndef f(): return K", "K = (1,)\ndef f(): return K"),
    "a dispatch table": (
        "def h(): return 1\nK = {'h': h}\ndef f(x): return K[x]()",
        "def h(): return 2\nK = {'h': h}\ndef f(x): return K[x]()",
    ),
    "a set of functions": (
        "def h(): return 1\nK = {h, len}\ndef f(): return K",
        "def h(): return 2\nK = {h, len}\ndef f(): return K",
    ),
    "a default factory": (
        "import collections\nK = collections.defaultdict(lambda: 1)\ndef f(x): return K[x]",
        "import collections\nK = collections.defaultdict(lambda: 2)\ndef f(x): return K[x]",
    ),
    "an enum's value": (
        "import enum\nclass E(enum.Enum):\n A = 1\ndef f(): return E.A.value",
        "import enum\nclass E(enum.Enum):\n A = 2\ndef f(): return E.A.value",
    ),
    "an enum member's class": (
        "import enum\nclass E(enum.Enum):\n A = 1\nA = E.A\ndef f(): return A.value",
        "import enum\nclass E(enum.Enum):\n A = 2\nA = E.A\ndef f(): return A.value",
    ),
    "a regular expression": (
        "import re\nK = re.compile('a')\ndef f(x): return K.sub('', x)",
        "import re\nK = re.compile('b')\ndef f(x): return K.sub('', x)",
    ),
    "its flags": (
        "import re\nK = re.compile('a')\ndef f(x): return K.sub('', x)",
        "import re\nK = re.compile('a', re.I)\ndef f(x): return K.sub('', x)",
    ),
    "a method that is patched into an installed class": (
        "import textwrap as t\nclass W(t.TextWrapper): pass\nW.m = lambda s: 1\nW.__module__ = 'textwrap'\nt.W = W\n"
        "def f(): return t.W().m()",
        "import textwrap as t\nclass W(t.TextWrapper): pass\nW.m = lambda s: 2\nW.__module__ = 'textwrap'\nt.W = W\n"
        "def f(): return t.W().m()",
    ),
    "a method of a logger's class": (
        "import logging\nclass L(logging.Logger):\n def m(self): return 1\nK = L('a')\ndef f(): return K.m()",
        "import logging\nclass L(logging.Logger):\n def m(self): return 2\nK = L('a')\ndef f(): return K.m()",
    ),
    "a time zone": (
        "import datetime as d\nK = d.timezone(d.timedelta(hours=1))\ndef f(x): return K",
        "import datetime as d\nK = d.timezone(d.timedelta(hours=2))\ndef f(x): return K",
    ),
    "an array": (
        "import numpy\nK = numpy.array([1, 2])\ndef f(x): return K @ x",
        "import numpy\nK = numpy.array([1, 3])\ndef f(x): return K @ x",
    ),
    "an instance's state": (
        "class A:\n def __init__(self, k): self.k = k\nK = A(1)\ndef f(): return K.k",
        "class A:\n def __init__(self, k): self.k = k\nK = A(2)\ndef f(): return K.k",
    ),
    "an instance's slot": (
        "class A:\n __slots__ = ('__k',)\n def __init__(self, k): self.__k = k\nK = A(1)\ndef f(): return K",
        "class A:\n __slots__ = ('__k',)\n def __init__(self, k): self.__k = k\nK = A(2)\ndef f(): return K",
    ),
    "an instance's method": (
        "class A:\n def m(self): return 1\nK = A()\ndef f(): return K.m()",
        "class A:\n def m(self): return 2\nK = A()\ndef f(): return K.m()",
    ),
    "the method of a str subclass": (
        "class A(str):\n def m(self): return 1\nK = A('a')\ndef f(): return K.m()",
        "class A(str):\n def m(self): return 2\nK = A('a')\ndef f(): return K.m()",
    ),
    "a method": (
        "class A:\n def m(self): return 1\ndef f(): return A().m()",
        "class A:\n def m(self): return 2\ndef f(): return A().m()",
    ),
    "a method of a base class": (
        "class B:\n def m(self): return 1\nclass A(B): pass\ndef f(): return A().m()",
        "class B:\n def m(self): return 2\nclass A(B): pass\ndef f(): return A().m()",
    ),
    "the order of base classes": (
        "class B: k = 1\nclass C: k = 2\nclass A(B, C): pass\ndef f(): return A.k",
        "class B: k = 1\nclass C: k = 2\nclass A(C, B): pass\ndef f(): return A.k",
    ),
    "a metaclass": (
        "class M(type):\n def __call__(cls): return 1\nclass A(metaclass=M): pass\ndef f(): return A()",
        "class M(type):\n def __call__(cls): return 2\nclass A(metaclass=M): pass\ndef f(): return A()",
    ),
    "a property": (
        "class A:\n @property\n def p(self): return 1\ndef f(): return A().p",
        "class A:\n @property\n def p(self): return 2\ndef f(): return A().p",
    ),
    "a cached property": (
        "import functools\nclass A:\n @functools.cached_property\n def p(self): return 1\ndef f(): return A().p",
        "import functools\nclass A:\n @functools.cached_property\n def p(self): return 2\ndef f(): return A().p",
    ),
    "a static method": (
        "class A:\n @staticmethod\n def s(): return 1\ndef f(): return A.s()",
        "class A:\n @staticmethod\n def s(): return 2\ndef f(): return A.s()",
    ),
    "a class method": (
        "class A:\n @classmethod\n def s(cls): return 1\ndef f(): return A.s()",
        "class A:\n @classmethod\n def s(cls): return 2\ndef f(): return A.s()",
    ),
    "a class attribute": ("class A: k = 1\ndef f(): return A.k", "class A: k = 2\ndef f(): return A.k"),
    "the default of a dataclass": (
        "import dataclasses as d\n@d.dataclass\nclass A:\n k: int = 1\ndef f(): return A()",
        "import dataclasses as d\n@d.dataclass\nclass A:\n k: int = 2\ndef f(): return A()",
    ),
    "the default factory of a dataclass": (
        "import dataclasses as d\n@d.dataclass\nclass A:\n k: int = d.field(default_factory=lambda: 1)\ndef f(): return A()",
        "import dataclasses as d\n@d.dataclass\nclass A:\n k: int = d.field(default_factory=lambda: 2)\ndef f(): return A()",
    ),
    "the fields of a named tuple": (
        "import collections as c\nA = c.namedtuple('A', 'a b')\ndef f(): return A(1, 2).a",
        "import collections as c\nA = c.namedtuple('A', 'b a')\ndef f(): return A(1, 2).a",
    ),
    "a pydantic validator": (
        "import pydantic\nclass A(pydantic.BaseModel):\n k: int\n @pydantic.field_validator('k')\n def c(cls, v): return v\ndef f(): return A(k=1)",
        "import pydantic\nclass A(pydantic.BaseModel):\n k: int\n @pydantic.field_validator('k')\n def c(cls, v): return 2\ndef f(): return A(k=1)",
    ),
    "a decorator": (
        "import functools\ndef d(g):\n @functools.wraps(g)\n def w(): return 1\n return w\n@d\ndef f(): pass",
        "import functools\ndef d(g):\n @functools.wraps(g)\n def w(): return 2\n return w\n@d\ndef f(): pass",
    ),
    "what is decorated": (
        "import functools\ndef d(g):\n @functools.wraps(g)\n def w(): return g()\n return w\n@d\ndef f(): return 1",
        "import functools\ndef d(g):\n @functools.wraps(g)\n def w(): return g()\n return w\n@d\ndef f(): return 2",
    ),
    "what the standard library decorates": (
        "import contextlib\n@contextlib.contextmanager\ndef f(): yield 1",
        "import contextlib\n@contextlib.contextmanager\ndef f(): yield 2",
    ),
    "what an installed decorator makes of it": (
        "import tenacity\n@tenacity.retry(stop=tenacity.stop_after_attempt(1))\ndef f(): return 1",
        "import tenacity\n@tenacity.retry(stop=tenacity.stop_after_attempt(2))\ndef f(): return 1",
    ),
    "what lru_cache keeps": (
        "import functools\n@functools.lru_cache\ndef f(): return 1",
        "import functools\n@functools.lru_cache\ndef f(): return 2",
    ),
    "a registered single dispatch": (
        "import functools\n@functools.singledispatch\ndef f(x): return 0\n@f.register\ndef _(x: int): return 1",
        "import functools\n@functools.singledispatch\ndef f(x): return 0\n@f.register\ndef _(x: int): return 2",
    ),
    "a partial's argument": (
        "import functools\ndef h(x): return x\nf = functools.partial(h, 1)",
        "import functools\ndef h(x): return x\nf = functools.partial(h, 2)",
    ),
    "a partial's function": (
        "import functools\ndef h(x): return x\nf = functools.partial(h, 1)",
        "import functools\ndef h(x): return -x\nf = functools.partial(h, 1)",
    ),
    "a closure": (
        "def make(k):\n def f(): return k\n return f\nf = make(1)",
        "def make(k):\n def f(): return k\n return f\nf = make(2)",
    ),
    "a function in a closure": (
        "def make(k):\n def f(): return k()\n return f\nf = make(lambda: 1)",
        "def make(k):\n def f(): return k()\n return f\nf = make(lambda: 2)",
    ),
    "a bound method's function": (
        "class A:\n def m(self): return 1\nf = A().m",
        "class A:\n def m(self): return 2\nf = A().m",
    ),
    "a bound method's class": (
        "class A:\n def g(self): return 1\n def m(self): return self.g()\nf = A().m",
        "class A:\n def g(self): return 2\n def m(self): return self.g()\nf = A().m",
    ),
    "a callable object": (
        "class A:\n def __call__(self): return 1\nf = A()",
        "class A:\n def __call__(self): return 2\nf = A()",
    ),
    "a callable object's state": (
        "class A:\n def __init__(self, k): self.k = k\n def __call__(self): return self.k\nf = A(1)",
        "class A:\n def __init__(self, k): self.k = k\n def __call__(self): return self.k\nf = A(2)",
    ),
    "a class that is called": (
        "class f:\n def __init__(self): self.k = 1",
        "class f:\n def __init__(self): self.k = 2",
    ),
    "a shadowed builtin": ("def f(x): return len(x)", "def len(x): return 0\ndef f(x): return len(x)"),
    "an attribute of a function": (
        "def f(): return f.k\nf.k = 1",
        "def f(): return f.k\nf.k = 2",
    ),
    "a docstring that is read": (
        "def h(): 'one'\ndef f(): return h.__doc__",
        "def h(): 'two'\ndef f(): return h.__doc__",
    ),
    "a docstring that is read by a constant name": (
        "def h(): 'one'\ndef f(): return getattr(h, '__doc__')",
        "def h(): 'two'\ndef f(): return getattr(h, '__doc__')",
    ),
    "a docstring that is set": (
        "def f(): return 1\nf.__doc__ = 'one'",
        "def f(): return 1\nf.__doc__ = 'two'",
    ),
    "a name looked up in globals": (
        "def h(): return 1\ndef f(x): return globals()[x]()",
        "def h(): return 2\ndef f(x): return globals()[x]()",
    ),
    "a name looked up under an alias": (
        "def h(): return 1\nlook = globals\ndef f(x): return look()[x]()",
        "def h(): return 2\nlook = globals\ndef f(x): return look()[x]()",
    ),
    "an evaluated text": (
        "def h(): return 1\ndef f(x): return eval(x)",
        "def h(): return 2\ndef f(x): return eval(x)",
    ),
    "an object with no form": (
        "import threading\nK = threading.local()\nK.x = 1\ndef f(): return K.x",
        "import threading\nK = threading.local()\nK.x = 2\ndef f(): return K.x",
    ),
}

# The same for what stands in a module `lib` beside the app.
LIB_EDITS = {
    "a helper by name": ("from lib import h\ndef f(): return h()", "def h(): return {}"),
    "a helper by module": ("import lib\ndef f(): return lib.h()", "def h(): return {}"),
    "a helper by alias": ("import lib as l\ndef f(): return l.h()", "def h(): return {}"),
    "a constant by module": ("import lib\ndef f(): return lib.K", "K = {}"),
    "a constant by name": ("from lib import K\ndef f(): return K", "K = {}"),
    "a module as a value": ("import lib\ndef f(x): return getattr(lib, x)()", "def h(): return {}"),
    "a module under a local name": ("import lib\ndef f():\n m = lib\n return m.h()", "def h(): return {}"),
    "a module that makes names": ("import lib\ndef f(): return lib.h()", "def __getattr__(name): return lambda: {}"),
    "an import in the body": ("def f():\n import lib\n return lib.h()", "def h(): return {}"),
    "a from import in the body": ("def f():\n from lib import h\n return h()", "def h(): return {}"),
    "an import in a nested body": (
        "def f():\n def g():\n  import lib\n  return lib.h()\n return g()",
        "def h(): return {}",
    ),
    "an import by constant name": (
        "import importlib\ndef f(): return importlib.import_module('lib').h()",
        "def h(): return {}",
    ),
    "what made an object with no form": (
        "from lib import K\ndef f(): return K.x",
        "import threading\nK = threading.local()\nK.x = {}",
    ),
    "what the module of an object with no form imports": (
        "import threading\nimport lib\nK = threading.local()\nK.x = getattr(lib, 'x')\ndef f(): return K.x",
        "x = {}",
    ),
    "a base class": ("import lib\nclass A(lib.B): pass\ndef f(): return A().m()", "class B:\n def m(self): return {}"),
    "the class of an argument": ("import lib\ndef f(x: lib.A): return x.m()", "class A:\n def m(self): return {}"),
}


@pytest.mark.parametrize("case", EDITS)
def test_the_digest_changes_with(case: str, project: Project) -> None:
    before, after = EDITS[case]
    first = digest(project(before))
    assert digest(project(after)) != first
    assert digest(project(before)) == first


@pytest.mark.parametrize("case", LIB_EDITS)
def test_the_digest_changes_in_another_module_with(case: str, project: Project) -> None:
    app, lib = LIB_EDITS[case]
    first = digest(project(app, lib=lib.format(1)))
    assert digest(project(app, lib=lib.format(2))) != first
    assert digest(project(app, lib=lib.format(1))) == first


# What keeps the digest: f and the same f laid out or commented otherwise.
SAME = {
    "comments": ("def f(x):\n return x", "# before\ndef f(x):  # on the line\n # alone\n return x"),
    "a docstring": ("def f(x):\n return x", "def f(x):\n '''It returns.'''\n return x"),
    "a docstring that is also a constant": ("def f(x):\n return 'x', 1", "def f(x):\n 'x'\n return 'x', 1"),
    "another docstring": ("def f(x):\n 'one'\n return x", "def f(x):\n 'two'\n return x"),
    "a helper's docstring": ("def h(): 'one'\ndef f(): return h()", "def h(): 'two'\ndef f(): return h()"),
    "a class's docstring": (
        "class A:\n 'one'\n def m(self): 'one'\ndef f(): return A()",
        "class A:\n def m(self): 'two'\ndef f(): return A()",
    ),
    "the docstring of a class in the function": (
        "def f():\n class A:\n  'one'\n return A",
        "def f():\n class A:\n  'two'\n return A",
    ),
    "the docstring of a property": (
        "import functools\nclass A:\n @functools.cached_property\n def p(self): 'one'\ndef f(): return A()",
        "import functools\nclass A:\n @functools.cached_property\n def p(self): 'two'\ndef f(): return A()",
    ),
    "line breaks": (
        "def f(x): return [x, (x + 1), {'a': x}]",
        "def f(\n x,\n):\n return [\n  x,\n  x + 1,\n  {\n 'a': x}\n ]",
    ),
    "line breaks in conditions": (
        "def f(x):\n if x and (x or f(x)): pass\n return x",
        "def f(x):\n if (\n  x\n  and (\n   x or\n   f(x)\n  )\n ):\n\n  pass\n return x",
    ),
    "the place in the file": ("def f(x): return x", "\n\n\nK = 1\ndef g(): return 3\n\ndef f(x): return x"),
    "a neighbour that is not used": ("def g(): return 1\ndef f(x): return x", "def g(): return 2\ndef f(x): return x"),
    "a constant written otherwise": ("K = 1_000\ndef f(): return K", "K = 10 ** 3\ndef f(): return K"),
    "a logger": (
        "import logging\nlog = logging.getLogger('a')\ndef f(): log.info('x')",
        "import logging\nlog = logging.getLogger('a')\nlog.setLevel(10)\ndef f(): log.info('x')",
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_the_digest_stays_with(case: str, project: Project) -> None:
    before, after = SAME[case]
    assert digest(project(before)) == digest(project(after))


def functions_in(source: str) -> list[Any]:
    compiled = compile(source, "<source>", "exec", dont_inherit=True)
    return [one for one in compiled.co_consts if hasattr(one, "co_code")]


@pytest.mark.parametrize("module", [textwrap, ast, importlib.metadata, subprocess], ids=lambda module: module.__name__)
def test_real_code_keeps_its_digest_when_it_is_laid_out_anew(module: ModuleType) -> None:
    assert module.__file__ is not None
    source = Path(module.__file__).read_text()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Expr(ast.Constant("another"))
    pairs = zip(functions_in(source), functions_in(ast.unparse(tree)), strict=True)
    pairs = [(one, other) for one, other in pairs if one.co_flags & 2]  # functions, not the bodies of classes
    assert [one.co_name for one, other in pairs if bytecode_of(one).digest != bytecode_of(other).digest] == []


CONSTANTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
    | st.binary(max_size=3),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)


@given(CONSTANTS, CONSTANTS)
def test_two_closures_share_a_digest_only_if_they_hold_the_same_value(one: Any, other: Any) -> None:
    def closure(value: Any) -> Any:
        return lambda: value

    def written(value: Any) -> str:
        """The value with its types; sets in one order."""
        if not isinstance(value, (tuple, frozenset)):
            return repr(value)
        inner = [*map(written, value)]
        return f"{type(value).__name__}({','.join(inner if isinstance(value, tuple) else sorted(inner))})"

    assert (code_of(closure(one)).digest == code_of(closure(other)).digest) == (written(one) == written(other))


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
    root = Path(__file__).parents[2]
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


def test_a_file_that_was_changed_after_its_import_does_not_count_as_the_source(project: Project) -> None:
    app = project("def h(): return 1\ndef f(x): return eval(x)")
    assert app.__file__ is not None
    Path(app.__file__).write_text("def h(): return 2222\ndef f(x): return eval(x)")
    with pytest.raises(Unkeyable, match="changed after it was imported"):
        code(app)


def test_a_c_function_of_no_known_module_has_no_digest(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import blake3

    app = project("import blake3\ndef f(x): return blake3.blake3(x)")
    assert "blake3" in {part.name for part in code(app).parts}
    code_module._known.clear()
    monkeypatch.setattr("clew.replay.code.module._owners", dict)
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


def test_a_module_that_is_reloaded_is_read_anew(project: Project) -> None:
    app = project("import lib\ndef f(x): return getattr(lib, x)", lib="def h(): return 1")
    before = digest(app)
    Path(app.lib.__file__).write_text("def h(): return 1000")
    importlib.reload(app.lib)
    assert digest(app) != before


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


def test_asking_again_is_cheap(project: Project) -> None:
    """Measured in November 2026: 10 to 19 us for a function with five helpers; the bound is for a machine under load."""
    helpers = "\n".join(f"def h{n}(x): return x + {n}" for n in range(5))
    app = project(helpers + "\ndef f(x): return h0(h1(h2(h3(h4(x)))))")
    digest(app)
    times = []
    for _ in range(200):
        start = time.perf_counter_ns()
        code_of(app.f)
        times.append(time.perf_counter_ns() - start)
    assert min(times) < 100_000


def test_an_array_that_is_changed_in_place_is_seen(project: Project) -> None:
    app = project("import numpy\nK = numpy.zeros(2)\ndef f(): return K")
    before = digest(app)
    app.K[0] = 7
    assert digest(app) != before


def test_code_objects_that_differ_in_what_they_catch_where_differ() -> None:
    def guarded(x: Any) -> Any:
        try:
            return x()
        except ValueError:
            return 1

    unguarded = guarded.__code__.replace(co_exceptiontable=b"")
    assert bytecode_of(unguarded).digest != bytecode_of(guarded.__code__).digest


# -- what code keeps something in


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
