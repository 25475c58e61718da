"""Rows on their way into the catalog: what was said first stays, and what a failed transaction said is said again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from clew.lineage import rows as module
from clew.lineage.rows import Rows
from clew.store import catalog
from clew.store.catalog import Evidence, Relation, Scope
from clew.store.folder import Folder
from clew.store.store import Store

MODEL = b"m" * 32
Say = Callable[[Rows], object]


@pytest.fixture
def store(folder: Folder) -> Iterator[Store]:
    with Store(folder) as made:
        yield made


def written(store: Store, rows: Rows, *said: Say, then: Say = lambda _: None) -> None:
    """One transaction of an indexer: what is `said` is flushed, `then` comes the rest."""
    try:
        with store.write() as connection:
            rows.begin(connection)
            for say in said:
                say(rows)
            rows.flush()
            then(rows)
    except ZeroDivisionError:
        rows.forget()


def model(name: str) -> Say:
    def say(rows: Rows) -> None:
        node, new = rows.node(MODEL, Scope.GLOBAL, "model", name=name or None)
        if not new:
            rows.name_node(node, name, {"of": name})

    return say


def names(store: Store) -> list[str | None]:
    with store.read() as connection:
        return list(connection.execute(sa.select(catalog.node.c.name)).scalars())


def test_the_first_name_of_a_node_stays(store: Store) -> None:
    rows = Rows()
    for name in ("", "small", "large", "small"):
        written(store, rows, model(name))
    assert names(store) == ["small"]


def test_a_node_is_named_in_the_batch_that_makes_it(store: Store) -> None:
    written(store, Rows(), model(""), model("small"), model("large"))
    assert names(store) == ["small"]


def test_a_name_that_a_failed_transaction_gave_is_given_again(store: Store) -> None:
    rows = Rows()
    written(store, rows, model(""))
    written(store, rows, model("small"), then=lambda _: 1 // 0)
    assert names(store) == [None]
    written(store, rows, model("small"))
    assert names(store) == ["small"]


def plainly(rows: Rows) -> None:
    rows.edge(1, 2, Relation.USED)


def with_facts(rows: Rows) -> None:
    rows.edge(1, 2, Relation.USED, Evidence.INFERRED, info={"rank": 1})


@pytest.mark.parametrize("in_one_batch", [True, False])
@pytest.mark.parametrize(
    ("first", "second", "evidence"),
    [(plainly, with_facts, Evidence.DECLARED), (with_facts, plainly, Evidence.INFERRED)],
)
def test_what_was_said_first_of_an_edge_stays(
    store: Store, first: Say, second: Say, evidence: Evidence, in_one_batch: bool
) -> None:
    rows = Rows()
    for said in [(first, second)] if in_one_batch else [(first,), (second,)]:
        written(store, rows, *said)
    with store.read() as connection:
        assert list(connection.execute(sa.select(catalog.edge.c.evidence)).scalars()) == [evidence]


def test_an_edge_says_where_in_both_texts(store: Store) -> None:
    written(
        store,
        Rows(),
        lambda rows: rows.edge(1, 2, Relation.CONTAINS, Evidence.CONTAINED, at=(0, 9), source=(4, 13)),
        lambda rows: rows.edge(1, 3, Relation.CANDIDATE, Evidence.CONTENT, at=(9, 12)),
    )
    with store.read() as connection:
        found = connection.execute(sa.select(catalog.edge).order_by(catalog.edge.c.dst)).all()
    assert [tuple(row) for row in found] == [
        (1, 2, Relation.CONTAINS, 0, 9, Evidence.CONTAINED, 4, 13, None),
        (1, 3, Relation.CANDIDATE, 9, 12, Evidence.CONTENT, None, None, None),
    ]


def name_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


def made(*numbers: int) -> Say:
    def say(rows: Rows) -> None:
        for number in numbers:
            rows.node(name_of(number), Scope.GLOBAL, "row")

    return say


def looked_up(*numbers: int) -> Say:
    return lambda rows: rows.know_nodes(map(name_of, numbers))


def keys(store: Store) -> list[int]:
    with store.read() as connection:
        return [int.from_bytes(key, "big") for key in connection.execute(sa.select(catalog.node.c.key)).scalars()]


@pytest.mark.parametrize("remembered", [0, 2, 1000])
def test_a_node_has_one_row_however_little_is_remembered(
    store: Store, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", remembered)
    one, other = Rows(), Rows()
    written(store, one, made(1, 2, 3, 1, 2, 3))
    written(store, one, looked_up(1, 4), made(1, 4, 2, 4))
    written(store, other, looked_up(1, 2, 3, 4, 5), made(5, 4, 3, 5))
    written(store, one, looked_up(5, 6), made(5, 6, 6))
    written(store, one, made(1, 5, 6, 7))
    assert sorted(keys(store)) == [1, 2, 3, 4, 5, 6, 7]


def test_a_failed_transaction_made_no_node(store: Store) -> None:
    rows = Rows()
    written(store, rows, looked_up(1), made(1), then=lambda _: 1 // 0)
    written(store, rows, looked_up(1), made(1))
    assert keys(store) == [1]
