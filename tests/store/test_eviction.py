"""Eviction: what saves least for its bytes goes first, what went stays away, and a bound is one."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clew.lineage.index import Indexer
from clew.lineage.rebuild import rebuild
from clew.store import catalog, eviction, gc, segment
from clew.store.action import Actions
from clew.store.digest import Domain, raw_digest
from clew.store.eviction import Bound, Entry, chosen, entries
from clew.store.folder import Folder
from clew.store.gc import collect
from clew.store.log import Log, framed
from clew.store.record import Action
from clew.store.store import Store

DAY_NS = 86_400 * 10**9
NOW_NS = time.time_ns()


def key_of(name: str) -> bytes:
    return raw_digest(Domain.BYTES, name.encode())


class Bed:
    """The actions of a store, and the log of a process that performs them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.actions = Actions(store)
        self.log = Log(store.folder.log, process_id=secrets.token_bytes(16))
        self.asked = 0

    def performed(
        self, name: str, *, size: int = 100, seconds: float = 1.0, when_ns: int = NOW_NS, **more: Any
    ) -> None:
        """It was asked, and is known from now on."""
        entry = Action(
            key=key_of(name),
            kind="llm",
            operation="chat",
            when_ns=when_ns,
            fields={"messages": key_of(f"messages of {name}"), "model": key_of("model")},
            answer=name.encode().ljust(size, b"."),
            duration_ns=int(seconds * 1e9),
            **{"model": "m", **more},
        )
        offset = self.log.append([framed(entry)])
        assert self.log.stem is not None
        self.actions.publish([(entry, self.log.stem.name, offset)])

    def hit(self, name: str | None, hits: int = 1, when_ns: int = NOW_NS) -> None:
        """It was asked again, and served; without a name, by a batch of texts."""
        self.asked += 1
        row = (self.asked, 1, "m", key_of(name) if name else None, hits, 0, 0, 0, 0, 0, when_ns)
        with self.store.write() as connection:
            catalog.insert(connection, catalog.word, ("id", "text"), [(1, "llm")])
            catalog.insert(connection, catalog.action_use, tuple(catalog.action_use.c.keys()), [row])

    def evict(self, *names: str) -> None:
        with self.store.read() as connection:
            going = [(one.key, one.when_ns) for one in entries(connection, NOW_NS) if one.key in map(key_of, names)]
        with self.store.write() as connection:
            eviction.record(connection, self.log, going)
        self.actions.drop(key for key, _ in going)

    def served(self, name: str) -> bytes | None:
        """What somebody who remembers nothing is served."""
        self.actions.forget()
        found = self.actions.look(key_of(name), NOW_NS)
        return None if found is None else self.actions.answer(found).rstrip(b".")

    def order(self) -> list[str]:
        """Answers, the one that goes first at the head."""
        with self.store.read() as connection:
            found = chosen(entries(connection, NOW_NS), NOW_NS, max_bytes=0)
        assert {one.key for one in found} <= set(_NAMES)
        return [_NAMES[one.key] for one in found]

    def index(self) -> None:
        Indexer(self.store).catch_up(segment.stems(self.store.folder.log))

    def fields(self) -> set[bytes]:
        """Whose fields are known."""
        with self.store.read() as connection:
            return set(connection.execute(sa.select(catalog.action_field.c.key)).scalars())


_NAMES = {key_of(name): name for name in ("cheap", "dear", "large", "small", "hit", "old", "a", "b", "c")}


@pytest.fixture
def bed(store: Store) -> Iterator[Bed]:
    made = Bed(store)
    yield made
    made.log.close()


def test_what_is_cheap_and_large_goes_before_what_is_dear_and_small(bed: Bed) -> None:
    bed.performed("dear", size=1_000, seconds=30)
    bed.performed("cheap", size=1_000, seconds=0.1)
    bed.performed("large", size=30_000, seconds=1)
    bed.performed("small", size=100, seconds=1)
    assert bed.order() == ["large", "cheap", "small", "dear"]


def test_tokens_count_as_time(bed: Bed) -> None:
    bed.performed("dear", input_tokens=4_000, output_tokens=1_000)
    bed.performed("cheap", input_tokens=10)
    assert bed.order() == ["cheap", "dear"]


def test_what_is_asked_again_and_again_stays(bed: Bed) -> None:
    bed.performed("hit", size=1_000, when_ns=NOW_NS - 20 * DAY_NS)
    bed.performed("old", size=500, when_ns=NOW_NS - 20 * DAY_NS)
    assert bed.order() == ["hit", "old"]
    bed.hit("hit", 5, NOW_NS - DAY_NS)
    assert bed.order() == ["old", "hit"]


def test_a_hit_of_long_ago_says_nothing(bed: Bed) -> None:
    bed.performed("hit", size=1_000, when_ns=NOW_NS - 90 * DAY_NS)
    bed.performed("old", size=500, when_ns=NOW_NS - 90 * DAY_NS)
    bed.hit("hit", 50, NOW_NS - 60 * DAY_NS)
    assert bed.order() == ["hit", "old"]


def test_hits_of_batches_count_for_all_of_their_model(bed: Bed) -> None:
    bed.performed("a", size=1_000, when_ns=NOW_NS - 20 * DAY_NS)
    bed.performed("b", size=500, when_ns=NOW_NS - 20 * DAY_NS, model="other")
    assert bed.order() == ["a", "b"]
    bed.hit(None, 100)
    assert bed.order() == ["b", "a"]


def test_a_long_answer_counts_with_its_bytes(bed: Bed) -> None:
    bed.performed("large", size=0, blob=key_of("content"), blob_bytes=5 << 20)
    assert eviction.total_bytes(bed.store) > 5 << 20


def test_what_is_evicted_is_not_served_and_what_is_asked_later_is(bed: Bed) -> None:
    bed.performed("a")
    bed.performed("b")
    bed.evict("a")
    assert bed.actions.look(key_of("a"), NOW_NS) is None
    assert bed.served("a") is None
    assert bed.served("b") == b"b"
    bed.performed("a", when_ns=NOW_NS + 1_000)
    assert bed.served("a") == b"a"


@pytest.mark.parametrize("indexed_before", [True, False])
def test_what_is_evicted_stays_away_when_the_log_is_read_again(bed: Bed, indexed_before: bool) -> None:
    bed.performed("a")
    bed.performed("b")
    if indexed_before:
        bed.index()
    bed.evict("a")
    bed.index()
    assert bed.served("a") is None
    assert bed.served("b") == b"b"
    assert bed.fields() == {key_of("b")}


def test_what_is_evicted_stays_away_after_a_rebuild(
    bed: Bed, catalog_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if catalog_url is not None:
        monkeypatch.setenv("CLEW_CATALOG", catalog_url)
    bed.performed("a")
    bed.performed("b")
    other = Bed(bed.store)  # whose log is read later, and then earlier
    other.evict("a")
    for one in (bed, other):
        one.log.close()
    rebuild(bed.store.folder)
    assert (bed.served("a"), bed.served("b")) == (None, b"b")
    assert bed.fields() == {key_of("b")}
    _, second = segment.stems(bed.store.folder.log)
    name = second.name + segment.SEALED_SUFFIX
    second.with_name(name).rename(second.with_name("0" + name))  # the eviction is met before what it is of
    rebuild(bed.store.folder)
    assert (bed.served("a"), bed.served("b")) == (None, b"b")
    assert bed.fields() == {key_of("b")}


def test_an_eviction_is_of_what_was_there_and_not_of_what_came_meanwhile(bed: Bed) -> None:
    bed.performed("a")
    with bed.store.read() as connection:
        going = [(one.key, one.when_ns) for one in entries(connection, NOW_NS)]
    bed.performed("a", when_ns=NOW_NS + 10**9)
    with bed.store.write() as connection:
        eviction.record(connection, bed.log, going)
    assert bed.served("a") == b"a"


def test_what_has_expired_is_not_served_and_goes_first(bed: Bed) -> None:
    bed.performed("dear", seconds=1_000, expires_ns=NOW_NS - 1)
    bed.performed("cheap", seconds=0.001, expires_ns=NOW_NS + DAY_NS)
    assert bed.served("dear") is None
    assert bed.served("cheap") == b"cheap"
    found = collect(bed.store, None, catch_up=bed.index, expired=True)
    assert [(one.reason, one.count) for one in found.forgotten] == [("expired", 1)]
    assert (found.actions, found.processes) == (1, [])
    assert bed.order() == ["cheap"]


# -- bounds


def entry(number: int, size: int, density: float, expired: bool) -> Entry:
    return Entry(
        key=key_of(str(number)),
        kind="llm",
        model="",
        when_ns=number,
        expires_ns=0 if expired else None,
        seconds=1.0,
        size_bytes=size,
        hit_ns=0,
        density=density,
        stem="",
        offset=0,
    )


def test_what_has_expired_makes_room_first_where_it_need_not_go_anyhow() -> None:
    worth, dead = entry(1, 100, 0.1, False), entry(2, 100, 9.0, True)
    assert chosen([worth, dead], NOW_NS, max_bytes=100, expired=False) == [dead]
    assert chosen([worth, dead], NOW_NS, max_bytes=200, expired=False) == []


some = st.lists(st.tuples(st.integers(1, 1_000), st.floats(0, 10), st.booleans()), max_size=30)


@given(some, st.integers(0, 10_000))
def test_what_stays_fits_and_is_worth_more_than_what_goes(given: list[tuple[int, float, bool]], bound: int) -> None:
    all_of_them = [entry(number, *one) for number, one in enumerate(given)]
    gone = chosen(all_of_them, NOW_NS, max_bytes=bound)
    left = [one for one in all_of_them if one not in gone]
    assert sum(one.size_bytes for one in left) <= bound
    assert not any(one.expired(NOW_NS) for one in left)
    for_room = [one for one in gone if not one.expired(NOW_NS)]
    assert all(one.density <= other.density for one in for_room for other in left)
    if for_room:  # and no more than that
        assert sum(one.size_bytes for one in [*left, for_room[-1]]) > bound


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 3_000)), min_size=1, max_size=40))
def test_a_bound_holds_whatever_is_performed(folder: Folder, asked: list[tuple[str, int]]) -> None:
    bound = Bound(8_000)
    with Store(folder) as store:
        with store.write() as connection:
            connection.execute(sa.delete(catalog.action))
        bed = Bed(store)
        for number, (name, size) in enumerate(asked):
            bed.performed(name, size=size, when_ns=NOW_NS + 10 * number)
            bound.added(bed.actions, bed.log, [size], NOW_NS)
            assert eviction.total_bytes(store) <= bound.max_bytes
            found = bed.served(name)
            assert found in (None, name.encode())
        bed.log.close()


def test_a_bound_is_met_with_room_to_spare_and_not_at_each_call(bed: Bed) -> None:
    bound = Bound(100_000)
    evictions = []
    for number in range(300):
        bed.performed(f"n{number}", size=1_000, when_ns=NOW_NS + number)
        if went := bound.added(bed.actions, bed.log, [1_000], NOW_NS):
            evictions.append(went)
            assert eviction.total_bytes(bed.store) <= 90_000
    assert len(evictions) < 40
    assert min(evictions) > 3


def test_what_another_process_added_is_seen(bed: Bed) -> None:
    bound = Bound(50_000)
    bed.performed("a", size=1_000)
    assert bound.added(bed.actions, bed.log, [1_000], NOW_NS) == 0
    other = Bed(bed.store)
    for number in range(60):
        other.performed(f"n{number}", size=1_000)
    other.log.close()
    for number in range(3):
        bed.performed(f"m{number}", size=1_000)
        bound.added(bed.actions, bed.log, [1_000], NOW_NS)
    assert eviction.total_bytes(bed.store) <= 50_000


# -- collecting


def test_an_eviction_outlives_the_process_that_evicted(bed: Bed, catalog_url: str | None, monkeypatch: Any) -> None:
    if catalog_url is not None:
        monkeypatch.setenv("CLEW_CATALOG", catalog_url)
    other = Bed(bed.store)
    bed.performed("a")
    bed.performed("b")
    other.evict("a")
    other.log.close()
    limit = time.time_ns()
    bed.log.close()
    bed.performed("c")  # the other process lives on
    found = collect(bed.store, limit, catch_up=bed.index)
    assert sorted(one.reason or "" for one in found.processes) == ["", "its writer is alive"]
    assert (bed.served("a"), bed.served("b")) == (None, b"b")
    bed.log.close()
    rebuild(bed.store.folder)
    assert (bed.served("a"), bed.served("b")) == (None, b"b")


def test_actions_that_were_asked_for_since_the_limit_outlive_their_process(
    bed: Bed, catalog_url: str | None, monkeypatch: Any
) -> None:
    if catalog_url is not None:
        monkeypatch.setenv("CLEW_CATALOG", catalog_url)
    bed.performed("a")
    bed.performed("b")
    bed.log.close()
    bed.hit("a", when_ns=time.time_ns() + DAY_NS)
    planned = collect(bed.store, time.time_ns(), catch_up=bed.index, dry_run=True)
    assert (bed.served("a"), bed.served("b")) == (b"a", b"b")
    found = collect(bed.store, time.time_ns(), catch_up=bed.index)
    for one in (planned, found):
        assert (one.carried, one.actions) == (1, 1)
        assert [(told.reason, told.count) for told in one.forgotten] == [("collected", 1)]
    assert len(segment.stems(bed.store.folder.log)) == 1
    assert (bed.served("a"), bed.served("b")) == (b"a", None)
    rebuild(bed.store.folder)
    assert (bed.served("a"), bed.served("b")) == (b"a", None)
    assert bed.fields() == {key_of("a")}


def test_a_collection_that_stops_before_its_files_go_leaves_a_whole_store(
    bed: Bed, catalog_url: str | None, monkeypatch: Any
) -> None:
    if catalog_url is not None:
        monkeypatch.setenv("CLEW_CATALOG", catalog_url)
    bed.performed("a")
    bed.performed("b")
    (first,) = segment.stems(bed.store.folder.log)
    bed.log.close()
    bed.hit("a", when_ns=time.time_ns() + DAY_NS)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            collect(bed.store, time.time_ns(), catch_up=bed.index)
    assert bed.served("a") == b"a"
    bed.index()
    assert bed.served("a") == b"a"
    rebuild(bed.store.folder)  # from both logs
    assert (bed.served("a"), bed.served("b")) == (b"a", b"b")
    bed.hit("a", when_ns=time.time_ns() + DAY_NS)
    assert collect(bed.store, time.time_ns(), catch_up=bed.index).carried == 1
    assert (bed.served("a"), bed.served("b")) == (b"a", None)
    assert first not in segment.stems(bed.store.folder.log)


def test_a_collection_that_stops_before_its_rows_go_leaves_a_whole_store(
    bed: Bed, catalog_url: str | None, monkeypatch: Any
) -> None:
    if catalog_url is not None:
        monkeypatch.setenv("CLEW_CATALOG", catalog_url)
    bed.performed("a")
    bed.performed("b")
    bed.log.close()
    other = Bed(bed.store)
    other.performed("c")  # of a process that lives on
    bed.hit("a", when_ns=time.time_ns() + DAY_NS)
    with monkeypatch.context() as broken:
        broken.setattr(gc, "_remove", lambda *args: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            collect(bed.store, time.time_ns(), catch_up=bed.index)
    served = {name: bed.served(name) for name in "abc"}
    assert served == {"a": b"a", "b": b"b", "c": b"c"}
    other.log.close()
    rebuild(bed.store.folder)
    assert {name: bed.served(name) for name in "abc"} == served
