"""Single-flight between processes, and the folder in which they lock."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from clew.replay.flight import Flights
from tests.replay.flight.bed import BACKSTOP, KEY, Thread, Work, following, nothing, until
from tests.replay.flight.programs import Cache, key_of, program, said, tell

# processes


HOLDS = """
def work():
    say("leads")
    hear()
    return "theirs"
say(cache.get(key_of(1), work)[0])
"""


def test_another_process_waits_and_then_finds_the_value(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with program(HOLDS, cache.folder) as other:
        assert said(other) == "leads"
        follower = Thread(lambda: cache.get(KEY, lambda: pytest.fail("computed")))
        until(lambda: KEY in cache.flights.table)
        tell(other)
        assert said(other) == "theirs"
        assert follower.result() == ("theirs", False)
    assert cache.computed == [KEY]


def test_after_a_killed_leader_the_next_process_leads(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with program(HOLDS, cache.folder) as leader:
        assert said(leader) == "leads"
        with program('say("up")\nsay(cache.get(key_of(1), lambda: "ours")[0])', cache.folder) as third:
            assert said(third) == "up"
            followers = [Thread(lambda: cache.get(KEY, lambda: "ours")) for _ in range(4)]
            until(lambda: KEY in cache.flights.table)
            leader.send_signal(signal.SIGKILL)
            assert {follower.result()[0] for follower in followers} == {"ours"}
            assert said(third) == "ours"
    assert cache.computed == [KEY] * 2


def test_four_processes_of_eight_threads_compute_forty_keys_forty_times(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    body = """
def one(number):
    for key in sorted(range(40), key=lambda key: hash((key, number % 3))):
        value, _ = cache.get(key_of(key), lambda: time.sleep(0.02) or f"value {key}")
        assert value == f"value {key}"
say("up")
hear()
threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
say("done")
"""
    processes = [program(body, cache.folder) for _ in range(4)]
    for process in processes:
        assert said(process) == "up"
    for process in processes:
        tell(process)
    assert [said(process) for process in processes] == ["done"] * 4
    for process in processes:
        process.communicate(timeout=BACKSTOP)
    assert sorted(cache.computed) == [key_of(number) for number in range(40)]


def test_processes_that_hold_what_the_other_needs_end(tmp_path: Path) -> None:
    body = """
own, other = map(int, sys.argv[2:]) if len(sys.argv) > 2 else map(int, hear().split())
cache.flights.nested_seconds = 0.2
def outer():
    say("leads")
    hear()
    return cache.get(key_of(other), lambda: "inner")[0]
say(cache.get(key_of(own), outer)[0])
"""
    folder = Cache(tmp_path / "cache").folder
    processes = [program(body, folder) for _ in range(2)]
    for process, word in zip(processes, ["1 2", "2 1"], strict=True):
        tell(process, word)
        assert said(process) == "leads"
    for process in processes:
        tell(process)
    assert [said(process) for process in processes] == ["inner"] * 2
    for process in processes:
        process.communicate(timeout=BACKSTOP)


def test_nor_do_they_wait_for_ever_through_another_thread(tmp_path: Path) -> None:
    """Neither of those that wait for the other process is nested; those that follow them are."""
    body = """
own, other = map(int, hear().split())
cache.flights.nested_seconds = 0.2
def outer():
    say("leads")
    hear()
    waiting = threading.Thread(target=lambda: cache.get(key_of(other), lambda: "outside"), daemon=True)
    waiting.start()
    while key_of(other) not in cache.flights.table: time.sleep(0.001)
    return cache.get(key_of(other), lambda: "inner")[0]
value = cache.get(key_of(own), outer)[0]
say("done" if value in ("inner", "outside") else value)
"""
    folder = Cache(tmp_path / "cache").folder
    processes = [program(body, folder) for _ in range(2)]
    for process, word in zip(processes, ["1 2", "2 1"], strict=True):
        tell(process, word)
        assert said(process) == "leads"
    for process in processes:
        tell(process)
    assert [said(process) for process in processes] == ["done"] * 2
    for process in processes:
        process.communicate(timeout=BACKSTOP)


def test_a_forked_child_has_no_leader_and_its_own_locks(tmp_path: Path) -> None:
    """The parent forks in its computation; the child computes the key itself, and neither holds nor frees the lock."""
    body = """
def work():
    child = os.fork()
    if child == 0:
        value, computed = cache.flights.call(key_of(1), lambda: MISSING, lambda: "child")
        cache.flights.call(key_of(2), lambda: MISSING, lambda: "child")
        os._exit(0 if (value, computed, cache.flights.table) == ("child", True, {}) else 1)
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    hear()
    return "parent"
say(cache.get(key_of(1), work)[0])
"""
    cache = Cache(tmp_path / "cache")
    with program(body, cache.folder) as parent:
        assert said(parent) == "0"
        follower = Thread(lambda: cache.get(KEY, lambda: pytest.fail("computed")))
        until(lambda: KEY in cache.flights.table)
        assert cache.flights.stripes.take(KEY) is None
        tell(parent)
        assert said(parent) == "parent"
        assert follower.result() == ("parent", False)


def test_a_child_that_outlives_a_killed_parent_does_not_keep_its_lock(tmp_path: Path) -> None:
    body = """
def work():
    if os.fork() == 0:
        say("child")
        hear()
        os._exit(0)
    time.sleep(60)
cache.get(key_of(1), work)
"""
    cache = Cache(tmp_path / "cache")
    with program(body, cache.folder) as parent:
        assert said(parent) == "child"
        parent.kill()
        assert cache.get(KEY, lambda: "ours") == ("ours", True)
        tell(parent)


def test_a_child_may_go_on_with_the_computation_of_its_parent(tmp_path: Path) -> None:
    body = """
children = []
def work():
    children.append(os.fork())
    return "value"
value = cache.get(key_of(1), work)
if children == [0]:
    assert value == ("value", True)
    os._exit(0)
say(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
"""
    with program(body, tmp_path / "cache") as parent:
        assert said(parent) == "0"


# the lock folder


def test_the_folder_is_made_when_it_is_needed_for_its_owner_alone(tmp_path: Path) -> None:
    flights = Flights(tmp_path / "a" / "lock")
    assert not (tmp_path / "a").exists()
    flights.call(KEY, nothing, lambda: 1)
    assert (tmp_path / "a" / "lock").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (tmp_path / "a" / "lock").iterdir()] == ["0001.lock"]


def test_without_a_folder_to_lock_in_it_goes_on_and_says_so_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    faults: list[OSError] = []
    flights = Flights(tmp_path / "file" / "lock", fault=faults.append)
    work = Work()
    leader = Thread(lambda: flights.call(KEY, nothing, work))
    assert work.begun.wait(BACKSTOP)
    follower = Thread(lambda: flights.call(KEY, nothing, work))
    following(flights, 1)
    work.may_end.set()
    assert (leader.result(), follower.result()) == (("value", True), ("value", False))
    assert flights.call(key_of(2), nothing, lambda: 2) == (2, True)
    assert len(faults) == 1


def test_a_folder_that_is_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    flights = Flights(tmp_path / "lock")
    flights.call(KEY, nothing, lambda: 1)
    (tmp_path / "lock" / "0001.lock").unlink()
    (tmp_path / "lock").rmdir()
    assert flights.call(KEY, nothing, lambda: 2) == (2, True)
