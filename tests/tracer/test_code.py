"""The captured code tree: what enters it, what stays out, and that equal trees are equal."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from clew.store.digest import Domain, digest
from clew.tracer import code, exclusion
from clew.tracer.code import CodeTree, Omission, capture


@pytest.fixture(autouse=True)
def plain_git(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    # No repository above the temporary folder, whatever machine this is.
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


def put(folder: Path, path: str, content: str | bytes = "") -> Path:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=trunk"]
    return subprocess.run([*command, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def committed(folder: Path) -> str:
    git(folder, "init", "-q")
    git(folder, "add", "--all")
    git(folder, "commit", "-q", "-m", "first")
    return git(folder, "rev-parse", "HEAD")


def of(folder: Path, entry: Path | None = None) -> CodeTree:
    return capture(entry, cwd=folder, modules={})


def contents(tree: CodeTree) -> dict[str, bytes | None]:
    return {file.path: file.content for file in tree.files}


def reasons(tree: CodeTree) -> dict[str, str]:
    return {omission.path: omission.reason for omission in tree.omissions}


def test_tracked_and_untracked_files_enter_as_they_are_on_disk_and_ignored_ones_do_not(tmp_path: Path) -> None:
    put(tmp_path, "agent.py", "a = 1\n")
    put(tmp_path, "src/tool.py", "b = 1\n")
    put(tmp_path, "gone.py", "c = 1\n")
    put(tmp_path, ".gitignore", "build/\n*.log\n")
    commit = committed(tmp_path)
    put(tmp_path, "agent.py", "a = 2\n")
    put(tmp_path, "new.css", "body {}\n")
    put(tmp_path, "build/out.py")
    put(tmp_path, "run.log")
    (tmp_path / "gone.py").unlink()

    tree = of(tmp_path, tmp_path / "agent.py")

    assert contents(tree) == {
        ".gitignore": b"build/\n*.log\n",
        "agent.py": b"a = 2\n",
        "new.css": b"body {}\n",
        "src/tool.py": b"b = 1\n",
    }
    assert tree.source == "git"
    assert tree.omissions == []
    assert tree.git is not None
    assert (tree.git.commit, tree.git.branch) == (commit, "trunk")
    assert tree.git.dirty == ["agent.py", "gone.py"]
    assert tree.git.untracked == ["new.css"]


def test_the_repository_is_found_from_an_entry_deep_inside_it(tmp_path: Path) -> None:
    put(tmp_path, "README.md", "hello")
    script = put(tmp_path, "jobs/nightly/index.py", "x = 1")
    committed(tmp_path)
    tree = capture(script, cwd=Path("/"), modules={})
    assert tree.root == os.path.realpath(tmp_path)
    assert set(contents(tree)) == {"README.md", "jobs/nightly/index.py"}


def test_an_ignored_entry_enters_all_the_same(tmp_path: Path) -> None:
    put(tmp_path, ".gitignore", "scratch/\n")
    script = put(tmp_path, "scratch/try.py", "x = 1")
    put(tmp_path, "scratch/other.py", "x = 2")
    committed(tmp_path)
    assert set(contents(of(tmp_path, script))) == {".gitignore", "scratch/try.py"}


def test_without_git_the_chosen_kinds_under_the_entrys_folder_enter(tmp_path: Path) -> None:
    script = put(tmp_path, "app/main.py", "x = 1")
    for name in ("notes.md", "conf/a.toml", "conf/b.yaml", "c.json", "d.txt", "e.ipynb", "sub/f.py"):
        put(tmp_path, f"app/{name}", "{}")
    for name in ("photo.png", "core.so", "noext"):
        put(tmp_path, f"app/{name}", "no")
    put(tmp_path, "beside.py", "no")

    tree = of(tmp_path, script)

    assert tree.source == "folder"
    assert tree.git is None
    assert tree.root == os.path.realpath(tmp_path / "app")
    assert list(contents(tree)) == sorted(
        ["main.py", "notes.md", "conf/a.toml", "conf/b.yaml", "c.json", "d.txt", "e.ipynb", "sub/f.py"]
    )


def test_a_module_run_from_a_package_has_the_folder_above_the_package_as_root(tmp_path: Path) -> None:
    put(tmp_path, "shop/__init__.py")
    put(tmp_path, "shop/jobs/__init__.py")
    script = put(tmp_path, "shop/jobs/index.py")
    assert of(Path("/"), script).root == os.path.realpath(tmp_path)


def test_a_repl_or_notebook_without_entry_captures_the_working_folder(tmp_path: Path) -> None:
    put(tmp_path, "analysis.ipynb", "{}")
    assert contents(of(tmp_path)) == {"analysis.ipynb": b"{}"}


def test_an_installed_programs_script_is_no_entry(tmp_path: Path) -> None:
    put(tmp_path, "app.py", "x = 1")
    assert pytest.__file__ is not None
    tree = of(tmp_path, Path(pytest.__file__))
    assert tree.root == os.path.realpath(tmp_path)


@pytest.mark.parametrize("with_git", [True, False])
def test_secrets_environments_caches_and_stores_never_enter(tmp_path: Path, with_git: bool) -> None:
    put(tmp_path, "agent.py", "x = 1")
    secrets = [".env", ".env.local", "prod.env", "conf/server.pem", "conf/ID_RSA", "tls.key", "secrets.toml"]
    for name in [*secrets, ".aws/credentials", ".envs/local.txt"]:
        put(tmp_path, name, "PLANTED")
    put(tmp_path, ".venv/lib/x.py", "no")
    put(tmp_path, "myenv/pyvenv.cfg", "home = /usr")
    put(tmp_path, "myenv/bin/activate.py", "no")
    put(tmp_path, "pkg/__pycache__/a.txt", "no")
    put(tmp_path, "made/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55")
    put(tmp_path, "made/b.json", "no")
    put(tmp_path, ".clew/log/a.txt", "no")
    put(tmp_path, "elsewhere-store/.gitignore", "*\n")
    put(tmp_path, "elsewhere-store/note.txt", "no")
    if with_git:
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", "--all", "--force", ".", ":!elsewhere-store")
        git(tmp_path, "commit", "-q", "-m", "everything by mistake")

    tree = of(tmp_path, tmp_path / "agent.py")

    assert tree.source == ("git" if with_git else "folder")
    assert contents(tree) == {"agent.py": b"x = 1"}
    assert b"PLANTED" not in msgspec.msgpack.encode(tree)
    noted = reasons(tree)
    assert all(noted[name] == "may hold secrets" for name in secrets)
    assert noted[".aws/"] == noted[".envs/"] == "may hold secrets"
    assert noted[".venv/"] == noted["myenv/"] == "virtual environment"


@pytest.mark.parametrize("name", ["environment.py", "keys.py", "secrets.py", "monkey.txt", "token.json"])
def test_names_that_only_resemble_secrets_are_kept(name: str) -> None:
    assert not exclusion.is_secret(name)


def test_a_file_above_one_megabyte_is_kept_by_digest_alone(tmp_path: Path) -> None:
    small, large = b"x" * code.CONTENT_LIMIT_BYTES, b"y" * (code.CONTENT_LIMIT_BYTES + 1)
    put(tmp_path, "small.txt", small)
    put(tmp_path, "large.txt", large)
    by_path = {file.path: file for file in of(tmp_path).files}
    assert by_path["small.txt"].content == small
    assert by_path["small.txt"].digest is None
    assert by_path["large.txt"].content is None
    assert by_path["large.txt"].digest == str(digest(Domain.BYTES, large))
    assert by_path["large.txt"].size_bytes == len(large)


def test_what_does_not_fit_is_listed_by_folder_and_code_is_taken_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "TOTAL_LIMIT_BYTES", 1000)
    for number in range(5):
        put(tmp_path, f"data/{number}.json", "j" * 300)
    put(tmp_path, "z_last.py", "p" * 600)
    tree = of(tmp_path)
    assert list(contents(tree)) == ["data/0.json", "z_last.py"]
    assert tree.omissions == [Omission("data/", "over 0 MB of content in all", 4)]


def test_large_files_beyond_what_is_hashed_and_files_beyond_the_count_are_omitted_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "HASHED_LIMIT_BYTES", 2_500_000)
    monkeypatch.setattr(code, "FILE_LIMIT", 2)
    put(tmp_path, "a.json", b"0" * 2_000_000)
    put(tmp_path, "b.json", b"0" * 2_000_000)
    put(tmp_path, "c.json")
    put(tmp_path, "d.json")
    tree = of(tmp_path)
    assert list(contents(tree)) == ["a.json", "c.json"]
    assert tree.omissions == [
        Omission("./", "over 2 files in all", 1),
        Omission("b.json", "over 2 MB of large files in all", 1),
    ]


@pytest.mark.parametrize("with_git", [True, False])
def test_links_are_kept_as_links_inside_the_root_and_never_followed_out(tmp_path: Path, with_git: bool) -> None:
    root = tmp_path / "project"
    outside = put(tmp_path, "outside/private.txt", "PLANTED")
    put(root, "real.txt", "hello")
    put(root, ".env", "PLANTED")
    put(root, "sub/placeholder.txt", "")
    (root / "sub" / "inner.txt").symlink_to(root / "real.txt")
    (root / "out.txt").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    (root / "hidden.txt").symlink_to(".env")
    (root / "loop.txt").symlink_to("loop.txt")
    if with_git:
        committed(root)

    tree = of(root)

    by_path = {file.path: file for file in tree.files}
    assert by_path["sub/inner.txt"].link == "../real.txt"
    assert by_path["sub/inner.txt"].content is None
    assert reasons(tree)["out.txt"] == "a link out of the tree"
    assert reasons(tree)["hidden.txt"] == "a link to what is left out (may hold secrets)"
    assert b"PLANTED" not in msgspec.msgpack.encode(tree)


def test_a_tracked_folder_replaced_by_a_link_is_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "project"
    put(root, "lib/part.py", "x = 1")
    put(tmp_path, "outside/part.py", "PLANTED")
    committed(root)
    shutil.rmtree(root / "lib")
    (root / "lib").symlink_to(tmp_path / "outside")
    tree = of(root)
    assert contents(tree) == {}
    assert reasons(tree) == {"lib": "a link out of the tree"}


def test_pipes_and_names_that_are_not_utf8_are_omitted_without_hanging(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with open(os.fsencode(tmp_path) + b"/caf\xe9.txt", "wb"):
        pass
    tree = of(tmp_path)
    assert reasons(tree) == {"pipe.txt": "not a regular file", "caf\\xe9.txt": "its name is not UTF-8"}
    msgspec.msgpack.encode(tree)


def test_the_executable_bit_is_kept(tmp_path: Path) -> None:
    put(tmp_path, "a.py").chmod(0o755)
    put(tmp_path, "b.py").chmod(0o644)
    assert [file.executable for file in of(tmp_path).files] == [True, False]


def test_a_repository_inside_the_repository_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a.py")
    committed(tmp_path)
    put(tmp_path, "vendor/tool/b.py")
    committed(tmp_path / "vendor" / "tool")
    tree = of(tmp_path)
    assert list(contents(tree)) == ["a.py"]
    assert reasons(tree) == {"vendor/tool": "a repository of its own"}


def test_tracked_files_of_a_submodule_enter(tmp_path: Path) -> None:
    put(tmp_path, "library/b.py", "b = 1")
    committed(tmp_path / "library")
    put(tmp_path, "main/a.py", "a = 1")
    committed(tmp_path / "main")
    git(tmp_path / "main", "-c", "protocol.file.allow=always", "submodule", "add", "-q", "../library", "lib")
    assert contents(of(tmp_path / "main"))["lib/b.py"] == b"b = 1"


def test_git_that_is_not_installed_leaves_the_folder_walk_and_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.py")
    commit = committed(tmp_path)
    put(tmp_path, "b.py")
    monkeypatch.setenv("PATH", str(tmp_path))
    tree = of(tmp_path)
    assert tree.source == "folder"
    assert list(contents(tree)) == ["a.py", "b.py"]
    assert tree.git is not None
    assert tree.git.commit == commit
    assert tree.git.dirty is None


def test_a_home_folder_is_not_taken_for_a_project_even_under_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = put(tmp_path, "try.py", "x = 1")
    put(tmp_path, "diary.txt", "private")
    committed(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    tree = of(tmp_path, script)
    assert tree.source == "imports"
    assert tree.git is None
    assert contents(tree) == {"try.py": b"x = 1"}


def test_equal_trees_are_equal_whatever_the_order_of_their_making(tmp_path: Path) -> None:
    for folder, names in (("one", ["a.py", "b/c.md", "d.json"]), ("two", ["d.json", "b/c.md", "a.py"])):
        for name in names:
            put(tmp_path / folder, name, name)
    one, two = of(tmp_path / "one"), of(tmp_path / "two")
    assert msgspec.structs.replace(one, root="") == msgspec.structs.replace(two, root="")
    assert of(tmp_path / "one") == one
    put(tmp_path / "two", "a.py", "other")
    assert of(tmp_path / "two").files != two.files


def test_capture_leaves_the_repository_as_it_was(tmp_path: Path) -> None:
    put(tmp_path, "a.py", "x = 1")
    committed(tmp_path)
    ran = tmp_path / "monitor-ran"
    monitor = put(tmp_path, ".git/monitor", f"#!/bin/sh\ntouch {ran}\n")
    monitor.chmod(0o755)
    git(tmp_path, "config", "core.fsmonitor", str(monitor))
    ran.unlink(missing_ok=True)
    os.utime(tmp_path / "a.py", (1, 1))  # git would like to refresh its index
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / ".git").rglob("*")}
    of(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / ".git").rglob("*")} == before
    assert not ran.exists()
