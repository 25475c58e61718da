"""The digest of the code behind a callable: which edits change it, and which do not."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import subprocess
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.replay.code import code_of
from clew.replay.code.bytecode import bytecode_of
from tests.replay.code.bed import Project, digest

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
    "an empty list that is a field's default": (
        "from pydantic import BaseModel\nclass A(BaseModel):\n x: object = []\ndef f(): return A().x",
        "from pydantic import BaseModel\nclass A(BaseModel):\n x: object = {}\ndef f(): return A().x",
    ),
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
    "the docstring of a model of pydantic, a schema's description": (
        "from pydantic import BaseModel\nclass A(BaseModel):\n 'one'\ndef f(x): return x(A)",
        "from pydantic import BaseModel\nclass A(BaseModel):\n 'two'\ndef f(x): return x(A)",
    ),
    "the docstring of a class in such a model": (
        "from pydantic import BaseModel\nclass A(BaseModel):\n 'one'\nclass B(BaseModel):\n a: A\ndef f(x): return x(B)",
        "from pydantic import BaseModel\nclass A(BaseModel):\n 'two'\nclass B(BaseModel):\n a: A\ndef f(x): return x(B)",
    ),
    "the docstring of a typed dict": (
        "from typing import TypedDict\nclass A(TypedDict):\n 'one'\ndef f(x): return x(A)",
        "from typing import TypedDict\nclass A(TypedDict):\n 'two'\ndef f(x): return x(A)",
    ),
    "the docstring of an enum": (
        "import enum\nclass A(enum.Enum):\n 'one'\n X = 1\ndef f(x): return x(A)",
        "import enum\nclass A(enum.Enum):\n 'two'\n X = 1\ndef f(x): return x(A)",
    ),
    "the docstring of a dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass A:\n 'one'\ndef f(x): return x(A)",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n 'two'\ndef f(x): return x(A)",
    ),
    "the docstring of a function that a model is told of": (
        "def h():\n 'one'\ndef f(x): return x.bind_tools([h])",
        "def h():\n 'two'\ndef f(x): return x.bind_tools([h])",
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
