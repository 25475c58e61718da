"""A lock belongs to the process that took it: a child that is forked meanwhile neither holds it nor frees it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from clew.store import backend
from clew.store.folder import Folder
from clew.store.store import Store

HEAD = """
    import os, signal, sys
    from clew.store import backend
    from clew.store.folder import Folder
    from clew.store.store import Store

    signal.alarm(60)  # who hangs is ended
    os.register_at_fork(after_in_child=lambda: signal.alarm(60))
    folder = Folder(sys.argv[1])
    store = Store(folder)

    def lock(wait=True):
        return backend.exclusive(store.engine, folder.lock, "test", wait=wait)

    def say(word):
        os.write(1, word.encode() + b"\\n")
"""


@contextmanager
def program(body: str, folder: Folder) -> Iterator[subprocess.Popen[str]]:
    """A process to talk with, line by line; it and its children end when nobody listens any more."""
    code = textwrap.dedent(HEAD) + textwrap.dedent(body)
    words = [sys.executable, "-c", code, str(folder.path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextmanager
def free(folder: Folder) -> Iterator[bool]:
    """Whether this process can take the lock at once."""
    with Store(folder) as store, backend.exclusive(store.engine, folder.lock, "test", wait=False) as got:
        yield got


def test_a_child_that_lives_on_does_not_hold_the_lock_of_a_parent_that_died(folder: Folder) -> None:
    body = """
        with lock():
            if os.fork() == 0:
                say("forked")
                sys.stdin.read()
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    with program(body, folder) as process:
        assert said(process) == "forked"
        assert process.wait(60) < 0
        with free(folder) as got:
            assert got


def test_a_child_that_lives_on_does_not_hold_the_lock_that_its_parent_gave_back(folder: Folder) -> None:
    body = """
        with lock():
            if os.fork() == 0:
                sys.stdin.read()
                os._exit(0)
        say("given back")
        sys.stdin.read()
    """
    with program(body, folder) as process:
        assert said(process) == "given back"
        with free(folder) as got:
            assert got


def test_a_child_that_leaves_the_block_does_not_free_the_lock_of_its_parent(folder: Folder) -> None:
    body = """
        with lock():
            child = os.fork()
            if child:
                assert os.waitpid(child, 0)[1] == 0
                say("held")
                sys.stdin.read()
        if child == 0:
            with lock(wait=False) as got:
                os._exit(got)
    """
    with program(body, folder) as process:
        assert said(process) == "held"
        with free(folder) as got:
            assert not got


def test_a_child_waits_for_its_parent_and_then_has_the_lock_for_itself(folder: Folder) -> None:
    body = """
        with lock():
            if os.fork() == 0:
                with lock():
                    say("the child's")
                    sys.stdin.read()
                os._exit(0)
            say("the parent's")
        sys.stdin.read()
    """
    with program(body, folder) as process:
        assert [said(process), said(process)] == ["the parent's", "the child's"]
        with free(folder) as got:
            assert not got


def test_which_locks_are_held_is_known_until_they_are_given_back(folder: Folder) -> None:
    with Store(folder) as store:
        with backend.exclusive(store.engine, folder.lock, "test"):
            with backend.exclusive(store.engine, folder.lock, "test", wait=False) as again:
                assert not again
            assert len(backend._held) == 1
        assert backend._held == set()
