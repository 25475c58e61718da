"""A function that is named by its module, `module:function`, so that another process can be given it.

The module is found where the replay is asked for: in the working folder, else among what is installed. One of the
working folder is read from its file as it is today, under a name of its own, so that it stands in no recorded module's
place; what it imports is what the program would import there, the recorded code first. An installed one is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import msgspec

from clew.store.errors import Unpatchable

_INSTALLED = {"site-packages", "dist-packages"}


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The name of a function. `file` is that of its module, where it is to be read from there."""

    module: str
    function: str
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.module}:{self.function}"

    @classmethod
    def parsed(cls, text: str) -> Reference:
        """ValueError for what is no name of a function."""
        module, _, function = text.partition(":")
        if not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f"{text!r} names no function: write module:function, such as tools.search:find")
        return cls(module=module, function=function)

    def located(self) -> Reference:
        """Found from here, and nothing of it run. ValueError where there is no such module, or not such a function in it."""
        if self.module.partition(".")[0] in sys.stdlib_module_names:
            return self
        spec, places = None, [os.getcwd(), *sys.path]
        for end in range(1, self.module.count(".") + 2):
            above: Sequence[str] | None = places if spec is None else spec.submodule_search_locations
            spec = None if above is None else PathFinder.find_spec(".".join(self.module.split(".")[:end]), above)
            if spec is None:
                raise ValueError(f"{self}: there is no module {self.module} in {os.getcwd()}, and none is installed")
        file = spec.origin if spec is not None and spec.has_location else None
        if file is None or not file.endswith(".py") or _INSTALLED & set(Path(file).parts):
            return self  # installed: imported by its name
        if not re.search(rf"(?<!\w){self.function}(?!\w)", Path(file).read_text("utf-8", "replace")):
            raise ValueError(f"{self}: {file} has no {self.function}")
        return Reference(module=self.module, function=self.function, file=os.path.realpath(file))

    def load(self) -> Any:
        """The function. Unpatchable where it cannot be had."""
        try:
            found = getattr(self._module(), self.function)
        except Exception as error:  # the module is the user's, and may do anything
            raise Unpatchable(f"{self} cannot be imported: {type(error).__name__}: {error}") from error
        if not callable(found) and not hasattr(found, "invoke"):
            raise Unpatchable(f"{self} is neither a function nor a tool, but a {type(found).__name__}")
        return found

    def _module(self) -> Any:
        if self.file is None:
            return importlib.import_module(self.module)
        name = f"clew_patch_{self.module.replace('.', '_')}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, self.file)
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = module = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
        return sys.modules[name]
