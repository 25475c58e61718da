"""Ways to reach code that no instruction names: by a name made at run time, through frames, or by a computed import.

Known by identity where a name leads to them, so under any alias; by word where they are attributes of something local.
"""

from __future__ import annotations

import importlib
import inspect
import sys

# With these anything in the reader's module may be looked up, so all of it counts.
BY_NAME = {id(one) for one in (eval, exec, globals, inspect.getdoc, inspect.getmodule, inspect.getsource)}
BY_NAME_WORDS = frozenset(("__globals__", "__code__", "f_code"))
DOCSTRING_WORDS = frozenset((
    "__doc__", "getdoc", "getsource",
    # These describe functions to a model by their docstrings.
    "bind_tools", "convert_to_openai_function", "convert_to_openai_tool", "create_agent", "create_react_agent",
    "from_function", "model_json_schema", "with_structured_output",
))  # fmt: skip

# With these the program reaches code that nothing in the module leads to.
_COMPUTED = "imports a module whose name is computed"
_FRAMES = "reads the frames of its callers"
IMPORTERS = frozenset((id(__import__), id(importlib.import_module)))
UNKNOWABLE = {
    id(sys.modules): "looks modules up in sys.modules",
    **dict.fromkeys(map(id, (sys._getframe, inspect.currentframe, inspect.stack)), _FRAMES),
    **dict.fromkeys(IMPORTERS, _COMPUTED),
}
UNKNOWABLE_WORDS = {
    "__subclasses__": "asks for the subclasses that happen to be loaded",
    **dict.fromkeys(("import_module", "__import__"), _COMPUTED),
    **dict.fromkeys(("_getframe", "currentframe", "f_back", "f_globals", "tb_frame", "gi_frame"), _FRAMES),
}
SPECIAL = BY_NAME | UNKNOWABLE.keys()
