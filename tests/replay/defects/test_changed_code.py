"""Code that was changed, and an answer of the code before."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from langchain_core.tools import StructuredTool

import clew
from tests.replay.conftest import Caching

Edit = Callable[..., ModuleType]
CALLER = "import defects_helper\n\ndef answer(x):\n    return defects_helper.helper(x) + 1\n"


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """`edit(body)`: a program of two modules, the second of which has a helper with this body, started anew."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def edited(body: str) -> ModuleType:
        (tmp_path / "defects_helper.py").write_text(f"def helper(x):\n    {body}\n")
        (tmp_path / "defects_caller.py").write_text(CALLER)
        for name in ("defects_helper", "defects_caller"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module("defects_caller")

    yield edited
    for name in ("defects_helper", "defects_caller"):
        sys.modules.pop(name, None)


def as_function(module: ModuleType) -> Any:
    return clew.cached(module.answer)(1)


def as_tool(module: ModuleType) -> Any:
    function = clew.effect("pure")(module.answer)
    return StructuredTool.from_function(function, name="answer", description="Answer.").invoke({"x": 1})


@pytest.mark.parametrize("way", [as_function, as_tool], ids=lambda way: way.__name__)
def test_joblib_a_helper_that_was_edited(caching: Caching, edit: Edit, way: Any) -> None:
    """joblib: the caller of a helper that was edited still returned 2 instead of 101."""
    with caching():
        said = [way(edit(body)) for body in ("return x", "return x + 99", "return x  # as it was")]
    assert said == [2, 101, 2]


def test_joblib_a_constant_that_was_edited(caching: Caching) -> None:
    """joblib, for what is no function: a threshold in the module."""
    source = "LIMIT = {}\n\ndef clip(x):\n    return min(x, LIMIT)\n"
    said = []
    with caching():
        for limit in (1, 5, 1):
            module = ModuleType("defects_limit")
            exec(source.format(limit), module.__dict__)
            said.append(clew.cached(module.clip)(9))
    assert said == [1, 5, 1]


def test_joblib_a_closure_that_holds_something_else(caching: Caching) -> None:
    """joblib tells functions by their source: those that one function makes have the same."""

    def scaled(by: int) -> Any:
        def scale(x: int) -> int:
            return x * by

        return clew.cached(scale)

    with caching():
        assert [scaled(by)(3) for by in (1, 2, 1)] == [3, 6, 3]
