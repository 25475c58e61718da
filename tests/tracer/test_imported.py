"""Imported project modules, and files that changed after they were imported, in real interpreters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from clew.tracer.code import capture
from clew.tracer.imported import project_modules

CLEW = Path(__file__).parents[2]


def probe(folder: Path, program: str, *, path: list[Path] | None = None, bytecode: bool = True) -> dict[str, list[str]]:
    """Run `program` as folder/main.py and return what it captures of itself at its end."""
    tail = """
    import json, sys
    from pathlib import Path
    from clew.tracer.code import capture
    tree = capture(Path(__file__), cwd=Path.cwd())
    print(json.dumps({
        "files": [file.path for file in tree.files],
        "changed": tree.changed_after_import,
        "folder": [tree.modules_folder],
    }))
    """
    (folder / "main.py").write_text(textwrap.dedent(program) + textwrap.dedent(tail))
    variables = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    variables["PYTHONPATH"] = os.pathsep.join(str(item) for item in [*(path or []), CLEW])
    if not bytecode:
        variables["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=folder, env=variables, check=True, capture_output=True, text=True
    )
    result: dict[str, list[str]] = json.loads(done.stdout)
    return result


def test_nothing_has_changed_in_a_program_that_leaves_its_files_alone(tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text("def f():\n    return 1\n")
    assert probe(tmp_path, "import tool")["changed"] == []


@pytest.mark.parametrize("bytecode", [True, False])
def test_a_file_edited_after_its_import_is_reported(tmp_path: Path, bytecode: bool) -> None:
    (tmp_path / "tool.py").write_text("def f():\n    return 1\n")
    (tmp_path / "calm.py").write_text("def g():\n    return 1\n")
    program = """
    import tool, calm
    open("tool.py", "w").write("def f():\\n    return 2222\\n")
    """
    assert probe(tmp_path, program, bytecode=bytecode)["changed"] == ["tool.py"]


@pytest.mark.parametrize("bytecode", [True, False])
def test_a_file_written_by_the_program_before_it_imported_it_is_not(tmp_path: Path, bytecode: bool) -> None:
    program = """
    open("made.py", "w").write("LIMIT = 3\\nclass A:\\n    def f(self):\\n        return (lambda: 1)()\\n")
    import made
    made.A().f()
    """
    result = probe(tmp_path, program, bytecode=bytecode)
    assert "made.py" in result["files"]
    assert result["changed"] == []


def test_an_edit_that_another_process_compiled_meanwhile_is_seen_in_the_living_functions(tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text("class A:\n    def f(self):\n        return 1\n")
    program = """
    import subprocess, sys, tool
    open("tool.py", "w").write("class A:\\n    def f(self):\\n        return 2222\\n")
    subprocess.run([sys.executable, "-c", "import tool"], check=True)
    """
    assert probe(tmp_path, program)["changed"] == ["tool.py"]


def test_a_file_moved_into_place_with_an_old_time_is_reported(tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text("X = 1\n")
    program = """
    import os, tool
    open("new", "w").write("X = 2222\\n")
    os.utime("new", (1_000_000_000, 1_000_000_000))
    os.replace("new", "tool.py")
    """
    assert probe(tmp_path, program)["changed"] == ["tool.py"]


def test_a_deleted_file_leaves_no_trace_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text("X = 1\n")
    result = probe(tmp_path, "import os, tool\nos.remove('tool.py')")
    assert "tool.py" not in result["files"]
    assert "main.py" in result["files"]
    assert result["changed"] == []


def test_imported_modules_from_outside_the_root_are_laid_out_for_sys_path(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (outside / "kit" / "deep").mkdir(parents=True)
    root.mkdir()
    for name in ("kit/__init__.py", "kit/deep/__init__.py", "kit/deep/leaf.py", "kit/unused.py", "single.py"):
        (outside / name).write_text("")
    files = probe(root, "import json, single, kit.deep.leaf", path=[outside])["files"]
    placed = {path for path in files if path.startswith("modules/") and not path.startswith("modules/clew/")}
    assert placed == {
        "modules/kit/__init__.py",
        "modules/kit/deep/__init__.py",
        "modules/kit/deep/leaf.py",
        "modules/single.py",
    }


def test_a_project_with_a_modules_folder_of_its_own_keeps_it_apart(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "modules").mkdir(parents=True)
    outside.mkdir()
    (root / "modules" / "single.py").write_text("mine = 1")
    (outside / "single.py").write_text("theirs = 1")
    result = probe(root, "import single", path=[outside])
    assert result["folder"] == ["_modules"]
    assert {"modules/single.py", "_modules/single.py"} <= set(result["files"])


def test_a_module_below_a_link_in_the_root_enters_by_its_real_place(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    (outside / "kit").mkdir(parents=True)
    (outside / "kit" / "__init__.py").write_text("x = 1")
    (root / "kit").symlink_to(outside / "kit")
    files = probe(root, "import kit")["files"]
    assert "modules/kit/__init__.py" in files
    assert "kit/__init__.py" not in files


def test_the_standard_library_and_installed_distributions_are_no_project_modules() -> None:
    names = {"json", "json.decoder", "pytest", "msgspec", "_pytest.config"}
    assert project_modules({name: sys.modules.get(name) or __import__(name) for name in names}) == []


def test_no_code_of_a_strange_module_runs(tmp_path: Path) -> None:
    class Strange(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"asked for {name}")

    odd: dict[str, object] = {"strange": Strange("strange"), "none": None, "number": 3, "slotted": object()}
    fake = ModuleType("fake")
    fake.__file__ = "<string>"
    odd["fake"] = fake
    assert project_modules(odd) == []  # type: ignore[arg-type]
    assert capture(None, cwd=tmp_path, modules=odd).files == []  # type: ignore[arg-type]
