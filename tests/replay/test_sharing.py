"""Answers that are shared: what one program asked, another one is answered with; a bad remote costs misses."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

import clew
from clew.lineage import index
from clew.store import record
from clew.store.digest import Domain, digest
from clew.store.errors import MissingExtra
from clew.store.record import Action
from clew.store.remote import Remote
from clew.store.sharing import QUEUED_BYTES, Sharing
from clew.tracer.init import Tracer
from tests.replay.conftest import LIVE, Counted
from tests.replay.test_batch import TEXTS, Vectors

pytest.importorskip("obstore", reason="obstore is not installed: sharing was NOT tested (pip install clew[s3])")
pytest.importorskip(
    "diskcache", reason="diskcache is not installed: sharing was NOT tested (pip install clew[hot-tier])"
)

Machine = Callable[..., AbstractContextManager[Tracer]]
LARGE = "a long answer " * 100_000
HOUR_NS = 3600 * 10**9


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    return tmp_path / "bucket"


@pytest.fixture
def machine(clean_tracing: None, tmp_path: Path, bucket: Path) -> Machine:
    """`with machine("one") as tracer`: a program with a store of that name, which shares its answers in the bucket."""

    @contextmanager
    def started(name: str, **more: Any) -> Iterator[Tracer]:
        cache = clew.Cache(remote=bucket.as_uri(), **more)
        tracer = clew.init("tests", store=tmp_path / name, cache=cache)
        assert tracer is not None
        clew.instrument()
        try:
            yield tracer
            for wait in tracer.waits:
                wait(30)
            assert not tracer.faults.counts
        finally:
            clew.shutdown()
            index.forget(tracer.folder)

    return started


def shared(bucket: Path) -> list[Path]:
    return sorted((bucket / "ac").glob("*"))


# -- two stores


def test_what_one_machine_asked_another_one_is_answered_with(machine: Machine, bucket: Path) -> None:
    with machine("one"):
        first = Counted().invoke("hello").text
        clew.flush()
        assert len(shared(bucket)) == 1
    with machine("two") as tracer:
        assert [Counted().invoke("hello").text for _ in range(2)] == [first, first]
        assert not tracer.faults.counts
    assert LIVE == {"llm": 1}


def test_an_answer_above_a_megabyte_is_shared_as_a_blob(machine: Machine, bucket: Path) -> None:
    with machine("one"):
        Counted(says=LARGE).invoke("hello")
    assert len(list((bucket / "cas").rglob("*/*"))) == 1
    with machine("two") as tracer:
        for _ in range(2):
            assert Counted(says=LARGE).invoke("hello").text == LARGE
        assert not tracer.faults.counts
    assert LIVE == {"llm": 1}


def test_a_batch_is_answered_with_what_others_embedded(machine: Machine) -> None:
    with machine("one"):
        first = Vectors().embed_documents(TEXTS[:90])
    with machine("two"):
        assert Vectors().embed_documents(TEXTS)[:90] == first
    assert {"call": 2, **dict.fromkeys(TEXTS, 1)} == LIVE


PROGRAM = textwrap.dedent(
    """
    import sys, clew
    clew.init("tests", store=sys.argv[1], cache=clew.Cache(remote=sys.argv[2]))

    @clew.cached
    def slow(x):
        print("computed", flush=True)
        return {"twice": 2 * x, "long": "y" * x}

    print([slow(x)["twice"] for x in (1, 2, 3_000_000)], flush=True)
    """
)


def run(program: Path, *arguments: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(program), *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, cwd=program.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_two_processes_with_stores_of_their_own_compute_once(tmp_path: Path, bucket: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    answer = "[2, 4, 6000000]"
    assert run(program, tmp_path / "one", bucket.as_uri()) == ["computed"] * 3 + [answer]
    assert run(program, tmp_path / "two", bucket.as_uri()) == [answer]
    assert run(program, tmp_path / "two", bucket.as_uri()) == [answer]


FORKED = """
import os
clew.flush()
if os.fork() == 0:
    print(slow(4)["twice"], slow(1)["twice"], flush=True)
else:
    os.wait()
"""


def test_a_forked_child_goes_on_without_the_remote(tmp_path: Path, bucket: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + FORKED)
    said = run(program, tmp_path / "one", bucket.as_uri())
    assert said[4:] == ["computed", "8 2"]


# -- what is not believed


def test_a_damaged_action_is_a_miss_and_is_replaced(machine: Machine, bucket: Path) -> None:
    with machine("one"):
        Counted().invoke("hello")
    [path] = shared(bucket)
    path.write_bytes(path.read_bytes()[:-1])
    with machine("two"):
        assert Counted().invoke("hello").text == "answer 2 to hello"
    with machine("three"):
        assert Counted().invoke("hello").text == "answer 2 to hello"
    assert LIVE == {"llm": 2}


@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_a_damaged_answer_is_a_miss_and_is_replaced(machine: Machine, bucket: Path, how: str) -> None:
    with machine("one"):
        Counted(says=LARGE).invoke("hello")
    [path] = [one for one in (bucket / "cas").rglob("*") if one.is_file()]
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1])) if how == "flipped" else path.unlink()
    for name in ("two", "three"):
        with machine(name):
            assert Counted(says=LARGE).invoke("hello").text == LARGE
        assert LIVE == {"llm": 2}


def test_an_action_of_another_key_is_a_miss(machine: Machine, bucket: Path) -> None:
    """Whoever can write to a folder could copy an answer to another question."""
    with machine("one"):
        Counted().invoke("hello")
        clew.flush()
        [hello] = shared(bucket)
        Counted().invoke("another")
    [another] = [path for path in shared(bucket) if path != hello]
    another.write_bytes(hello.read_bytes())
    with machine("two"):
        assert Counted().invoke("another").text == "answer 3 to another"


def test_what_was_signed_with_another_token_is_a_miss(machine: Machine) -> None:
    with machine("one", token="a secret of one team"):
        Counted().invoke("hello")
    with machine("two", token="a secret of another team"):
        assert Counted().invoke("hello").text == "answer 2 to hello"


def test_an_answer_older_than_its_reader_wants_is_a_miss_whatever_its_writer_said(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns
    with machine("one"):
        Counted().invoke("hello")
    monkeypatch.setattr(time, "time_ns", lambda: now() + 61 * 10**9)
    with machine("two", ttl=90):
        assert Counted().invoke("hello").text == "answer 1 to hello"
    with machine("three", ttl=60):
        assert [Counted().invoke("hello").text for _ in range(2)] == ["answer 2 to hello"] * 2


# -- the hot tier


def test_what_was_found_once_is_found_without_the_remote(machine: Machine, bucket: Path) -> None:
    with machine("one"):
        Counted().invoke("hello")
        Counted(says=LARGE).invoke("hello")
    for present in (True, False):
        with machine("two"):
            Counted().invoke("hello")
            assert Counted(says=LARGE).invoke("hello").text == LARGE
        if present:
            shutil.rmtree(bucket)
    assert LIVE == {"llm": 2}


def poison(database: Path, change: Callable[[bytes], bytes]) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for number, value in connection.execute("SELECT rowid, value FROM Cache").fetchall():
            connection.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (change(value), number))


def test_a_planted_row_of_the_hot_tier_is_refused(machine: Machine, bucket: Path, tmp_path: Path) -> None:
    """A row that says an action of this very key, with another answer, but without this store's seal."""
    with machine("one"):
        Counted().invoke("hello")
    with machine("two"):
        Counted().invoke("hello")
    poison(tmp_path / "two" / "hot" / "cache.db", lambda value: value.replace(b"answer 1", b"answer 9"))
    for path in shared(bucket):
        path.unlink()
    with machine("two"):
        assert Counted().invoke("hello").text == "answer 2 to hello"


# -- a remote that is away


def test_a_remote_that_goes_away_costs_misses_and_one_fault(machine: Machine, bucket: Path) -> None:
    with machine("one"):
        Counted().invoke("hello")
    with machine("two") as tracer:
        assert Counted().invoke("hello").text == "answer 1 to hello"
        shutil.rmtree(bucket)
        bucket.write_text("no folder")
        for number in range(5):
            assert Counted().invoke(f"more {number}").text == f"answer {number + 2} to more {number}"
        assert Counted().invoke("more 1").text == "answer 3 to more 1"
        for wait in tracer.waits:
            wait(30)
        counts = tracer.faults.take()
        assert {where: count for where, (count, _) in counts.items()} == {"cache remote": 1, "cache upload": 5}


def entry(key: bytes, answer: bytes = b"answer", expires_ns: int | None = None, **more: Any) -> Action:
    return Action(key, "llm", "chat", time.time_ns(), {}, answer, expires_ns=expires_ns, **more)


@pytest.fixture
def told() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def sharing(tmp_path: Path, bucket: Path, told: list[tuple[str, str]]) -> Iterator[Callable[..., Sharing]]:
    made: list[Sharing] = []

    def make(**more: Any) -> Sharing:
        def fault(where: str, error: object) -> None:
            told.append((where, str(error)))

        one = Sharing(lambda: Remote(bucket.as_uri()), tmp_path / f"hot{len(made)}", bytes(32), fault, **more)
        made.append(one)
        return one

    yield make
    for one in made:
        one.wait(10)


KEY, OTHER = bytes(32), bytes(31) + b"\1"


def test_a_remote_that_is_away_is_asked_once_and_again_after_a_while(
    sharing: Callable[..., Sharing], bucket: Path, told: list[tuple[str, str]]
) -> None:
    bucket.mkdir()
    (bucket / "ac").write_text("no folder")
    patient, eager = sharing(), sharing(pause_seconds=0.0)
    for _ in range(3):
        patient.give(entry(KEY), b"answer")
        patient.wait(10)
    assert [where for where, _ in told] == ["cache remote", "cache upload", "cache upload"]
    eager.give(entry(KEY), b"answer")
    eager.wait(10)
    (bucket / "ac").unlink()
    eager.give(entry(KEY), b"answer")
    eager.wait(10)
    assert sharing().look(KEY, time.time_ns()) is not None


def test_an_answer_that_has_expired_is_a_miss_and_is_replaced(sharing: Callable[..., Sharing]) -> None:
    now = time.time_ns()
    one, two = sharing(), sharing()
    one.give(entry(KEY, b"old", expires_ns=now + HOUR_NS), b"old")
    one.give(entry(OTHER, b"old", expires_ns=1), b"old")
    one.wait(10)
    found = two.look(KEY, now)
    assert found is not None
    assert found.expires_ns == now + HOUR_NS
    assert two.look(KEY, now + 2 * HOUR_NS) is None
    assert two.look(OTHER, now) is None
    one.give(entry(OTHER, b"new"), b"new")
    one.wait(10)
    found = sharing().look(OTHER, now)
    assert found is not None
    assert found.answer == b"new"


def test_the_blob_stands_there_before_its_action(sharing: Callable[..., Sharing], bucket: Path) -> None:
    answer = LARGE.encode()
    name = bytes(digest(Domain.BYTES, answer))
    one = sharing()
    one.give(entry(KEY, b"", blob=name), answer)
    one.wait(10)
    assert sharing().blob(name) == answer
    assert sharing().blob(bytes(32)) is None
    (bucket / "cas" / name.hex()[:2] / name.hex()).unlink()
    assert sharing().look(KEY, time.time_ns()) is None


def test_an_action_that_names_a_blob_it_does_not_bring_is_refused(
    sharing: Callable[..., Sharing], bucket: Path
) -> None:
    Remote(bucket.as_uri()).put_action(KEY, record.encode(entry(KEY, b"", blob=bytes(32))))
    assert sharing().look(KEY, time.time_ns()) is None


def test_more_than_can_wait_is_not_shared_and_counted(
    sharing: Callable[..., Sharing], told: list[tuple[str, str]]
) -> None:
    one = sharing()
    one.give(entry(KEY), bytes(QUEUED_BYTES + 1))
    one.wait(10)
    assert [where for where, _ in told] == ["cache upload"]
    assert one.look(KEY, time.time_ns()) is None


def test_several_are_looked_for_at_once(sharing: Callable[..., Sharing]) -> None:
    keys = [number.to_bytes(32, "big") for number in range(40)]
    one = sharing()
    for key in keys[::2]:
        one.give(entry(key), b"answer")
    one.wait(10)
    assert [found.key for found in sharing().look_all(keys, time.time_ns())] == keys[::2]


# -- what is said wrongly


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"remote": "s3://bucket/prefix"}, "token="),
        ({"remote": "file:///tmp/x", "token": "short"}, "at least 16 bytes"),
    ],
)
def test_a_remote_that_would_believe_anybody_is_refused(said: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        clew.Cache(**said)


def test_the_token_may_come_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEW_CACHE_TOKEN", "a secret of one team")
    assert clew.Cache(remote="s3://bucket/prefix", options={"region": "x"}).open_remote()
    assert "secret" not in repr(clew.Cache(remote="file:///tmp/x", token="a secret of one team"))


def test_without_obstore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtra, match=r"clew\[s3\]"):
        clew.Cache(remote=(tmp_path / "x").as_uri())


def test_a_remote_is_the_processs_and_no_blocks(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no 'remote'"), clew.caching(remote=tmp_path.as_uri()):
        pass
