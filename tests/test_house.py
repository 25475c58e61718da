"""The rules of the house: what each file of clew keeps to, whatever it is about."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "clew").rglob("*.py"))
MODULES = [path for path in FILES if path.name != "__init__.py"]
PACKAGES = sorted(".".join(path.parent.relative_to(ROOT).parts) for path in FILES if path.name == "__init__.py")
MAX_LINES = 450

# What `import clew` may not load: frameworks, and what is large and needed only by some commands.
LAZY = {
    "diskcache", "faiss", "langchain_community", "langchain_core", "langchain_text_splitters", "langgraph", "llama_index",
    "numpy", "obstore", "pandas", "psycopg", "rich", "sklearn", "sqlalchemy", "torch", "typer",
}  # fmt: skip


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def in_a_new_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_importing_clew_loads_no_framework_and_neither_sqlalchemy_nor_typer_nor_rich() -> None:
    program = (
        "import json, sys, clew; print(json.dumps([clew.__file__, *sorted({m.split('.')[0] for m in sys.modules})]))"
    )
    process = in_a_new_process("-W", "error", "-c", program)
    assert process.returncode == 0, process.stderr
    file, *loaded = json.loads(process.stdout)
    assert file == str(ROOT / "clew" / "__init__.py")
    assert LAZY.isdisjoint(loaded), sorted(LAZY.intersection(loaded))


def test_every_folder_of_clew_is_a_package() -> None:
    """Else import-linter does not see what is in it."""
    assert [name_of(path) for path in FILES if not (path.parent / "__init__.py").exists()] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_first_line_of_a_module_tells_its_subject(path: Path) -> None:
    docstring = ast.get_docstring(tree_of(path), clean=False)
    assert docstring, "no docstring"
    assert docstring.splitlines()[0].strip(), "the docstring's first line is empty"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_has_one_subject_and_so_at_most_450_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_imports_pickle(path: Path) -> None:
    imported = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module.split(".")[0])
    assert imported.isdisjoint({"_pickle", "cloudpickle", "dill", "joblib", "pickle", "shelve"})
    assert "marshal.load" not in path.read_text()  # what it writes is compared, and never read back


def test_imports_run_downwards_only() -> None:
    process = in_a_new_process("-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "0 broken" in process.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_that_a_package_hands_on_exists(package: str) -> None:
    module = importlib.import_module(package)
    missing = [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)]
    assert missing == []


def test_the_face_is_complete() -> None:
    """`clew.__all__` holds all that clew defines there, and type checkers see the names that the interpreter sees."""
    face = importlib.import_module("clew")
    promised = {name for name in face.__all__ if name != "__version__"}
    blocks = [node for node in tree_of(ROOT / "clew" / "__init__.py").body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {alias.asname or alias.name for node in imports for alias in node.names} == promised
    own = {name for name in dir(face) if (getattr(getattr(face, name), "__module__", None) or "").startswith("clew.")}
    assert {name for name in own if not name.startswith("_")} <= promised


def test_every_public_name_is_documented() -> None:
    face = importlib.import_module("clew")
    objects = {name: getattr(face, name) for name in face.__all__ if name != "__version__"}
    assert [name for name, value in objects.items() if not inspect.getdoc(value)] == []


def test_the_oldest_versions_tested_are_the_lower_bounds_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    frameworks = {
        name: extra for name, extra in project["optional-dependencies"].items() if name not in {"test", "lint"}
    }
    requirements = [*project["dependencies"], *(line for extra in frameworks.values() for line in extra)]
    promised = {
        found["name"]: found["version"]
        for line in requirements
        if (found := re.match(r"(?P<name>[\w.-]+)(\[[\w,]+\])?>=(?P<version>[\w.]+)", line))
        and found["name"] != "torch"
    }
    text, _, _ = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").partition("\n\n")
    tested = dict(line.split("==") for line in text.splitlines() if not line.startswith("#"))
    assert promised == tested
