"""The corpus: every docstring in the source of the installed standard library, read with `ast`, never imported."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

STDLIB = Path(sysconfig.get_paths()["stdlib"])
SKIPPED_FOLDERS = {"test", "tests", "idlelib", "site-packages", "dist-packages", "__pycache__", "lib-dynload"}


class Row(TypedDict):
    """One docstring. `id` is unique: where a name is defined twice (under an `if`, say), the first docstring stands."""

    id: str  # dotted name, "json.dumps"
    module: str
    path: str  # relative to the library's folder, "json/__init__.py"
    line: int  # of the `def` or `class`; 1 for a module
    kind: str  # "module", "class", "function" or "method"
    signature: str  # "(obj, *, skipkeys=False, ...)" for functions and methods, else ""
    doc: str  # cleaned as inspect.cleandoc does


def stdlib_rows() -> list[Row]:
    """All rows, in the order of their files' names and of their lines.

    What is written in C (itertools, math, most built-in types) has no Python source and hence no row.
    """
    rows: dict[str, Row] = {}
    for path in sorted(STDLIB.rglob("*.py"), key=lambda path: path.relative_to(STDLIB).parts):
        parts = path.relative_to(STDLIB).with_suffix("").parts
        if SKIPPED_FOLDERS.intersection(parts) or not all(part.isidentifier() for part in parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # a few files are meant to be broken
            continue
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for row in _rows_of(tree, module, path.relative_to(STDLIB).as_posix(), name=module):
            rows.setdefault(row["id"], row)
    return list(rows.values())


def _rows_of(node: ast.AST, module: str, path: str, *, name: str, in_class: bool = False) -> Iterator[Row]:
    kind, signature = "module", ""
    if isinstance(node, ast.ClassDef):
        kind = "class"
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        kind, signature = "method" if in_class else "function", f"({ast.unparse(node.args)})"
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        doc = (ast.get_docstring(node) or "").strip()
        if doc:
            line = getattr(node, "lineno", 1)
            yield Row(id=name, module=module, path=path, line=line, kind=kind, signature=signature, doc=doc)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return  # what is defined inside a function has no name to ask for
    in_class = isinstance(node, ast.ClassDef) or (in_class and not isinstance(node, ast.Module))
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _rows_of(child, module, path, name=f"{name}.{child.name}", in_class=in_class)
        elif isinstance(child, ast.stmt):  # an `if`, `try` or `with` around definitions
            yield from _rows_of(child, module, path, name=name, in_class=in_class)
