"""Projects that are written, imported and forgotten."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.replay.code.bed import Project


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
