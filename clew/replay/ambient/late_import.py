"""Modules that a program imports later: each is told of when it has run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class LateImport(MetaPathFinder):
    """Stands first among the finders and finds nothing itself; calls `then(name)` after a wanted module has run."""

    def __init__(self, wanted: frozenset[str], then: Callable[[str], None]) -> None:
        self._wanted = wanted
        self._then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._wanted:
            return None
        for finder in list(sys.meta_path):
            found = getattr(finder, "find_spec", None) if finder is not self else None
            spec: ModuleSpec | None = found(fullname, path, target) if found is not None else None
            if spec is not None:
                self._follow(fullname, spec)
                return spec
        return None

    def _follow(self, name: str, spec: ModuleSpec) -> None:
        loader = spec.loader
        run = getattr(loader, "exec_module", None)
        if loader is None or run is None:
            return

        def run_and_tell(module: ModuleType) -> None:
            del loader.exec_module  # the class's own is back
            run(module)
            self._then(name)

        loader.exec_module = run_and_tell  # type: ignore[method-assign]
