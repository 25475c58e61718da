"""What is read of a git repository, against git's own answers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from clew.tracer import git
from clew.tracer.git import GitState, without_credentials


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def run(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=trunk"]
    return subprocess.run([*command, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    run(folder, "init", "-q")
    (folder / "a.py").write_text("a = 1\n")
    run(folder, "add", ".")
    run(folder, "commit", "-q", "-m", "first")
    return folder


def state(folder: Path) -> GitState:
    found = git.find(folder)
    assert found is not None
    return git.state(found, git.listing(found))


def test_no_repository_is_none(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()  # empty: not a repository
    found = git.find(tmp_path)
    assert found is None or found.root != tmp_path


def test_a_repository_without_a_commit_has_a_branch_and_no_commit(tmp_path: Path) -> None:
    run(tmp_path, "init", "-q")
    assert (state(tmp_path).commit, state(tmp_path).branch) == (None, "trunk")


def test_commit_and_branch_are_read_from_packed_refs_and_from_a_detached_head(repository: Path) -> None:
    head = run(repository, "rev-parse", "HEAD")
    run(repository, "switch", "-q", "-c", "feature/deep")
    run(repository, "pack-refs", "--all")
    assert not (repository / ".git/refs/heads/feature/deep").exists()
    assert (state(repository).commit, state(repository).branch) == (head, "feature/deep")
    run(repository, "checkout", "-q", "--detach")
    assert (state(repository).commit, state(repository).branch) == (head, None)


def test_a_linked_work_tree_has_its_own_head_and_the_shared_remote(repository: Path, tmp_path: Path) -> None:
    run(repository, "remote", "add", "origin", "https://ada:PLANTED@example.org/team/app.git")
    run(repository, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    (tmp_path / "side" / "b.py").write_text("b = 1\n")
    run(tmp_path / "side", "add", ".")
    run(tmp_path / "side", "commit", "-q", "-m", "second")
    found = state(tmp_path / "side")
    assert found.branch == "side"
    assert found.commit == run(tmp_path / "side", "rev-parse", "HEAD") != run(repository, "rev-parse", "HEAD")
    assert found.remote == "https://example.org/team/app.git"


def test_the_remote_is_the_one_that_the_branch_follows(repository: Path) -> None:
    run(repository, "remote", "add", "backup", "https://backup.example.org/app.git")
    run(repository, "remote", "add", "origin", "https://example.org/app.git")
    assert state(repository).remote == "https://example.org/app.git"
    run(repository, "config", "branch.trunk.remote", "backup")
    assert state(repository).remote == "https://backup.example.org/app.git"


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://example.org/a.git", "https://example.org/a.git"),
        ("https://example.org:8443/@scope/a.git", "https://example.org:8443/@scope/a.git"),
        ("https://ada:PLANTED@example.org/a.git", "https://example.org/a.git"),
        ("https://PLANTED@example.org/a.git", "https://example.org/a.git"),
        ("https://ada:PL/ANTED@example.org/a.git", "https://example.org/a.git"),
        ("https://ada:PL?ANTED@example.org/a.git", "https://example.org/a.git"),
        ("https://ada:PL@ANTED@example.org/a.git", "https://example.org/a.git"),
        ("https://example.org/a.git?token=PLANTED#PLANTED", "https://example.org/a.git"),
        ("https://[::1]:8443/a.git", "https://[::1]:8443/a.git"),
        ("ssh://git@example.org:22/a.git", "ssh://git@example.org:22/a.git"),
        ("ssh://git:PLANTED@example.org/a.git", "ssh://git@example.org/a.git"),
        ("git@example.org:team/a.git", "git@example.org:team/a.git"),
        ("oauth2:PLANTED@example.org:team/a.git", "example.org:team/a.git"),
        ("ext::ssh -i PLANTED host", "ext::"),
        ("codecommit::https://PLANTED@example.org/a", "codecommit::https://example.org/a"),
        ("/srv/git/a.git", "/srv/git/a.git"),
        ("../a@b:c.git", "../a@b:c.git"),
    ],
)
def test_a_remote_url_keeps_its_place_and_loses_its_secret(url: str, kept: str) -> None:
    assert without_credentials(url) == kept


def test_variables_that_point_git_elsewhere_are_not_obeyed(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    run(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    found = git.find(repository)
    assert found is not None
    listing = git.listing(found)
    assert listing is not None
    assert listing.tracked == ["a.py"]


def test_git_that_takes_too_long_is_given_up(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}{os.pathsep}{os.environ['PATH']}")
    found = git.find(repository)
    assert found is not None
    assert git.listing(found, timeout_seconds=0.05) is None


def test_paths_with_spaces_newlines_and_a_conflict_are_listed_once(repository: Path) -> None:
    (repository / "two\nlines.txt").write_text("x")
    run(repository, "add", ".")
    run(repository, "commit", "-q", "-m", "odd name")
    run(repository, "switch", "-q", "-c", "side")
    (repository / "a.py").write_text("a = 2\n")
    run(repository, "commit", "-q", "-a", "-m", "side")
    run(repository, "switch", "-q", "trunk")
    (repository / "a.py").write_text("a = 3\n")
    run(repository, "commit", "-q", "-a", "-m", "trunk")
    with pytest.raises(subprocess.CalledProcessError):
        run(repository, "merge", "-q", "side")
    found = git.find(repository)
    assert found is not None
    listing = git.listing(found)
    assert listing is not None
    assert listing.tracked == ["a.py", "two\nlines.txt"]
    assert listing.dirty == ["a.py"]
