"""Loaded by the interpreter of a replayed program at its start: imports from the recorded root come from the laid-out tree.

`sys.path` alone does not do it: `python -m` and `-c` put the working folder first, programs add folders of their own, and
an editable install has a finder. So each finder is asked as Python would ask it, in its order; entries of `sys.path` under
the recorded root are read as those of the tree, and what a finder finds under the root is taken from the tree. What the
tree does not have (an ignored file that was imported late, a compiled module) comes from its own place, and is noted.

The interpreter's own `sitecustomize`, which this one hides, runs afterwards. Imports nothing of clew.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from threading import local
from types import ModuleType
from typing import Any

STAGE = "CLEW_STAGE"
_NAME = "sitecustomize"
_INSTALLED = {"site-packages", "dist-packages"}


class StageFinder:
    """Asks the other finders, and moves what they find from the recorded root to the laid-out tree."""

    def __init__(self, stage: dict[str, Any]) -> None:
        self.root: str | None = stage["root"]
        self.tree: str = stage["tree"]
        self.modules: str | None = stage["modules"]
        self.clew: str = stage["clew"]
        self.notes: str | None = stage["notes"]
        self._real: dict[str, str] = {}
        self._busy = local()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module as the recorded program would have found it."""
        busy: set[str] = vars(self._busy).setdefault("names", set())
        if name in busy:  # a finder that asks all finders itself: its answer will be moved
            return None
        if name == "clew":  # what replays is the clew that runs now, whatever the program brought
            return PathFinder.find_spec(name, [self.clew], target)
        busy.add(name)
        try:
            return self._find(name, path, target)
        finally:
            busy.discard(name)

    def _find(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        beside: ModuleSpec | None = None
        places = [self.staged(place) for place in (sys.path if path is None else path)]
        for finder in list(sys.meta_path):
            if finder is self:
                continue
            if finder is PathFinder:
                spec = PathFinder.find_spec(name, places, target)
            else:
                find = getattr(finder, "find_spec", None)
                spec = find(name, path, target) if find is not None else None
            if spec is None:
                continue
            moved = self._moved(spec)
            if moved is not None:
                return moved
            beside = beside or spec
        if self.notes is None:
            return beside
        beside = beside or self._in_its_own_place(name, path, target)
        if beside is not None:
            self._note(name, beside)
        return beside

    def staged(self, place: str) -> str:
        """An entry of a search path, in the tree if it is of the root and the tree has it."""
        return self._in_tree(place) or place

    def _in_tree(self, place: str) -> str | None:
        relative = self._relative(place)
        if relative is None:
            return None
        found = os.path.join(self.tree, relative) if relative else self.tree
        return found if os.path.lexists(found) else None

    def _relative(self, place: Any) -> str | None:
        """The path within the recorded root; None for what is not there."""
        if self.root is None or self.root == self.tree or not isinstance(place, str):
            return None
        if os.path.isabs(place):
            real = self._real.get(place)
            if real is None:
                real = self._real[place] = os.path.realpath(place)
        else:
            try:
                real = os.path.realpath(place or os.getcwd())
            except OSError:  # the working folder was deleted
                return None
        if real == self.root:
            return ""
        if real.startswith(self.root + os.sep) and not self._of_the_stage(real):
            return real[len(self.root) + 1 :]
        return None

    def _of_the_stage(self, real: str) -> bool:
        return real == self.tree or real.startswith(self.tree + os.sep)

    def _moved(self, spec: ModuleSpec) -> ModuleSpec | None:
        """The spec, from the tree where it is of the root. None where the tree does not have it."""
        locations = spec.submodule_search_locations
        places = None if locations is None else [self.staged(place) for place in locations]
        if spec.origin is None or not spec.has_location:
            if locations is not None and places != list(locations):
                spec.submodule_search_locations = places
            return spec
        if (relative := self._relative(spec.origin)) is None or not _INSTALLED.isdisjoint(relative.split(os.sep)):
            return spec
        origin = self._in_tree(spec.origin)
        if origin is None:
            return None
        return spec_from_file_location(spec.name, origin, submodule_search_locations=places)

    def _in_its_own_place(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        places = self._own_places(name.rpartition(".")[0], sys.path if path is None else path)
        return PathFinder.find_spec(name, places, target) if places else None

    def _own_places(self, package: str, path: Sequence[Any]) -> list[str]:
        """Where what lies in the tree at `path` was recorded."""
        found: list[str] = []
        for place in path:
            if not isinstance(place, str) or not self._of_the_stage(place):
                continue
            if self.modules is not None and (place + os.sep).startswith(self.modules + os.sep):
                found += self._places_outside(package)
            elif self.root is not None:
                relative = os.path.relpath(place, self.tree)
                found.append(self.root if relative == "." else os.path.join(self.root, relative))
        return found

    def _places_outside(self, package: str) -> list[str]:
        """The folders of a package that was recorded from outside the root, as they are found now."""
        if not package:
            return []
        above, _, _ = package.rpartition(".")
        path = self._places_outside(above) if above else [one for one in sys.path if not self._of_the_stage(one)]
        for finder in sys.meta_path:
            if finder is self or (find := getattr(finder, "find_spec", None)) is None:
                continue
            spec = find(package, path if finder is PathFinder or above else None)
            if spec is not None and spec.submodule_search_locations is not None:
                return [place for place in spec.submodule_search_locations if not self._of_the_stage(place)]
        return []

    def _note(self, name: str, spec: ModuleSpec) -> None:
        if self.notes is not None:
            try:
                with open(self.notes, "a", encoding="utf-8") as notes:
                    notes.write(json.dumps({"module": name, "file": spec.origin}) + "\n")
            except OSError:  # the stage was removed under the program
                pass


def arranged(finder: StageFinder, stage: dict[str, Any], path: list[str], here: str) -> list[str]:
    """`sys.path` as it was recorded: what stood before the standard library, today's, what stood behind it."""
    middle = [finder.staged(place) for place in path if os.path.realpath(place) != here]
    return list(dict.fromkeys([*stage["front"], *middle, *stage["tail"]]))


def begin(text: str) -> None:
    """Put the finder before all others."""
    stage = json.loads(text)
    finder = StageFinder(stage)
    sys.path[:] = arranged(finder, stage, sys.path, os.path.dirname(os.path.realpath(__file__)))
    sys.meta_path.insert(0, finder)
    if finder.notes is not None:
        with open(finder.notes, "a", encoding="utf-8"):
            pass  # that it is there says that the stage was entered


def run_hidden() -> None:
    """Run the `sitecustomize` that would have been found without this one."""
    spec = PathFinder.find_spec(_NAME, sys.path)
    if spec is not None and spec.loader is not None:
        sys.modules[_NAME] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


if __name__ == _NAME and STAGE in os.environ:
    try:
        begin(os.environ[STAGE])
    except Exception as error:
        # `site` would report it and go on: the program would run, with the wrong code
        sys.stderr.write(f"clew: the recorded code cannot be put before this machine's: {error!r}\n")
        raise SystemExit(70) from error
    run_hidden()
