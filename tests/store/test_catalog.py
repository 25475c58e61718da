"""What every backend of the catalog must do alike: SQLite always, PostgreSQL where it is installed."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import textwrap
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as postgresql_dialect

import clew
from clew.lineage import index, rebuild
from clew.lineage.closure import _statement, closure, edges_from, edges_to
from clew.lineage.index import Indexer
from clew.lineage.reader import Reader
from clew.store import backend, catalog, migrations, segment
from clew.store.catalog import Evidence, Relation
from clew.store.digest import Domain, text_digest
from clew.store.errors import MissingExtra, StoreError
from clew.store.folder import Folder
from clew.store.log import Log, blob_frame, framed
from clew.store.record import Lost, Run, Slot, SpanEnd, SpanStart
from clew.store.store import Store
from clew.tracer.init import Tracer

POSTGRESQL = postgresql_dialect.dialect()


def count(store: Store, table: sa.Table) -> int:
    with store.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def contents(store: Store) -> dict[str, set[tuple[Any, ...]]]:
    """Everything a catalog says; which process indexed it last is no part of that."""
    told = [table for table in catalog.metadata.sorted_tables if table.name not in ("setting", "migration")]
    with store.read() as connection:
        return {table.name: {tuple(row) for row in connection.execute(sa.select(table))} for table in told}


# -- the schema


def test_migrations_are_applied_once_each_and_in_order(store: Store) -> None:
    names = [step.__name__ for step in migrations.MIGRATIONS]
    with store.read() as connection:
        assert migrations.is_current(connection)
        applied = sa.select(catalog.migration.c.name).order_by(catalog.migration.c.name)
        assert connection.execute(applied).scalars().all() == sorted(names) == names
    with store.write() as connection:
        assert migrations.migrate(connection) == []


def test_an_empty_database_is_not_current_and_asking_makes_nothing(folder: Folder, catalog_url: str | None) -> None:
    with Store(folder, catalog_url=catalog_url, create=False) as store:
        with store.read() as connection:
            assert not migrations.is_current(connection)
            assert sa.inspect(connection).get_table_names() == []
        with store.write() as connection:
            assert migrations.migrate(connection) == [step.__name__ for step in migrations.MIGRATIONS]


def test_the_tables_in_the_database_are_those_that_the_code_names(store: Store) -> None:
    found = sa.inspect(store.engine)
    for table in catalog.metadata.sorted_tables:
        columns = {column["name"]: column for column in found.get_columns(table.name)}
        assert set(columns) == set(table.c.keys())
        assert {name for name, each in columns.items() if each["nullable"]} == {
            column.name for column in table.c if column.nullable
        }
        assert found.get_pk_constraint(table.name)["constrained_columns"] == [
            column.name for column in table.primary_key
        ]
        assert {each["name"] for each in found.get_indexes(table.name)} >= {each.name for each in table.indexes}


def test_many_stores_opened_at_once_migrate_once(folder: Folder, catalog_url: str | None) -> None:
    program = """
        import sys
        from clew.store.folder import Folder
        from clew.store.store import Store
        Store(Folder(sys.argv[1]), catalog_url=sys.argv[2] or None).close()
    """
    words = [sys.executable, "-c", textwrap.dedent(program), str(folder.path), catalog_url or ""]
    opened = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [(process.communicate()[1], process.returncode) for process in opened] == [("", 0)] * 4
    with Store(folder, catalog_url=catalog_url) as store:
        assert count(store, catalog.migration) == len(migrations.MIGRATIONS)


# -- rows


def test_inserting_again_changes_nothing(store: Store) -> None:
    rows = [(b"d" * 31 + bytes([number]), number, 2**40 + number) for number in range(256)]
    for _ in range(2):
        with store.write() as connection:
            catalog.insert(connection, catalog.blob, ("digest", "segment", "offset"), rows)
    with store.write() as connection:
        catalog.insert(connection, catalog.blob, ("digest", "segment", "offset"), [(rows[0][0], 9, 9)])
        catalog.insert(connection, catalog.blob, ("digest", "segment", "offset"), [])
    with store.read() as connection:
        found = connection.execute(sa.select(catalog.blob).order_by(catalog.blob.c.digest)).all()
    assert [(bytes(row.digest), row.segment, row.offset) for row in found] == rows


def test_numbers_bytes_texts_and_truth_come_back_as_they_were(store: Store) -> None:
    values = {
        "name": "Grüße 🧶 'x' %s :y",
        "version": 2**31 - 1,
        "kind": "k" * 16,
        "digest": bytes(range(32)),
        "alias": True,
    }
    with store.write() as connection:
        catalog.insert(connection, catalog.ref, tuple(values), [tuple(values.values())])
        edge = (2**62, -(2**62), 1, 2**40, None, 1, None, 2**40, b"\0\xff")
        columns = ("src", "dst", "relation", "start", "end", "evidence", "source_start", "source_end", "info")
        catalog.insert(connection, catalog.edge, columns, [edge])
    with store.read() as connection:
        row = connection.execute(sa.select(catalog.ref)).one()
        assert dict(row._mapping) == values
        assert type(row.digest) is bytes
        assert row.alias is True
        assert tuple(connection.execute(sa.select(catalog.edge)).one()) == edge


def test_a_column_may_have_one_value_in_all_rows(store: Store) -> None:
    edges = [(1, 2, 3), (1, 4, 3)]
    with store.write() as connection:
        catalog.insert(
            connection, catalog.edge, ("src", "dst", "relation"), edges, always=(("start", -1), ("evidence", 2))
        )
    with store.read() as connection:
        found = connection.execute(sa.select(catalog.edge).order_by(catalog.edge.c.dst)).all()
    assert [tuple(row) for row in found] == [(*edge, -1, None, 2, None, None, None) for edge in edges]


def test_many_keys_are_looked_up_at_once(store: Store) -> None:
    names = [number.to_bytes(32, "big") for number in range(1300)]
    rows = [(catalog.bound(name), 1, number) for number, name in enumerate(names)]
    with store.write() as connection:
        catalog.insert(connection, catalog.blob, ("digest", "segment", "offset"), rows)
    table = catalog.blob.c
    with store.read() as connection:
        for asked in (names, names[:1], names[:0], [*names[5:8], b"unknown"]):
            found = catalog.matching(connection, (table.digest, table.offset), table.digest, asked)
            assert sorted((bytes(name), offset) for name, offset in found) == [
                (name, names.index(name)) for name in asked if name in names
            ]


def test_columns_may_be_given_in_any_order(store: Store) -> None:
    row = {"segment": 7, "digest": b"d" * 32, "offset": 9}
    with store.write() as connection:
        catalog.insert(connection, catalog.blob, tuple(row), [tuple(row.values())])
    with store.read() as connection:
        assert dict(connection.execute(sa.select(catalog.blob)).one()._mapping) == row


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    def fail() -> None:
        with store.write() as connection:
            catalog.insert(connection, catalog.blob, ("digest", "segment", "offset"), [(b"d" * 32, 1, 1)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert count(store, catalog.blob) == 0


def test_a_lock_has_one_holder_at_a_time_and_is_free_when_it_dies(
    folder: Folder, catalog_url: str | None, store: Store
) -> None:
    program = """
        import sys
        from clew.store import backend
        from clew.store.folder import Folder
        from clew.store.store import Store
        store = Store(Folder(sys.argv[1]), catalog_url=sys.argv[2] or None)
        with backend.exclusive(store.engine, store.folder.lock, "test") as got:
            print(got, flush=True)
            sys.stdin.read()
    """
    words = [sys.executable, "-c", textwrap.dedent(program), str(folder.path), catalog_url or ""]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with backend.exclusive(store.engine, folder.lock, "test", wait=False) as got:
            assert got is False
        with backend.exclusive(store.engine, folder.lock, "another", wait=False) as got:
            assert got is True
        other.kill()
    with backend.exclusive(store.engine, folder.lock, "test") as got:
        assert got is True


def test_indexing_ends_though_a_writer_is_faster(folder: Folder, store: Store) -> None:
    log = Log(folder.log, process_id=b"P" * 16)
    batch = [framed(Lost(number, {"x": (1, "y" * 100)})) for number in range(index._BATCH)]
    log.append(batch)
    meanwhile = iter([[], batch, batch, batch])  # before the segment is opened, and after each batch of it

    def stopped() -> bool:
        for frame in next(meanwhile, []):
            log.append([frame])
        return False

    first = Indexer(store).catch_up(segment.stems(folder.log), stopped=stopped)
    assert 1 + len(batch) <= first < 1 + 2 * len(batch)  # some had room in the file when it began
    assert first + Indexer(store).catch_up(segment.stems(folder.log)) == 1 + 2 * len(batch)
    log.close()


# -- closure


def random_edges(seed: int, nodes: int, edges: int) -> list[tuple[int, int, int]]:
    source = random.Random(seed)
    relations = [int(relation) for relation in Relation]
    found = {(source.randrange(nodes), source.randrange(nodes), source.choice(relations)) for _ in range(edges)}
    return sorted(found)


def breadth_first(
    edges: list[tuple[int, int, int]], seeds: list[int], relations: set[int], *, forwards: bool
) -> set[int]:
    near: dict[int, list[int]] = {}
    for src, dst, relation in edges:
        if relation in relations:
            near.setdefault(dst if forwards else src, []).append(src if forwards else dst)
    reached, todo = set(seeds), deque(seeds)
    while todo:
        for there in near.get(todo.popleft(), ()):
            if there not in reached:
                reached.add(there)
                todo.append(there)
    return reached


@pytest.mark.parametrize("forwards", [False, True])
def test_the_closure_is_what_a_breadth_first_search_finds(store: Store, forwards: bool) -> None:
    edges = random_edges(7, 400, 900)
    columns = ("src", "dst", "relation", "start", "evidence")
    with store.write() as connection:
        catalog.insert(
            connection, catalog.edge, columns, [(*edge, -1, int(Evidence.DECLARED)) for edge in edges]
        )  # fmt: skip
    for relations in (catalog.WALKED, (Relation.PART,), tuple(Relation)):
        numbers = {int(relation) for relation in relations}
        for seeds in ([0], [1, 2, 3], list(range(0, 400, 5)), [99999]):
            with store.read() as connection:
                found = closure(connection, seeds, relations, forwards=forwards)
            assert found == breadth_first(edges, seeds, numbers, forwards=forwards)


def test_edges_are_found_from_both_ends_however_many_nodes_are_asked_for(store: Store) -> None:
    edges = [(number, number + 1, int(Relation.PART)) for number in range(1500)]
    with store.write() as connection:
        catalog.insert(
            connection, catalog.edge, ("src", "dst", "relation", "start", "evidence"), [(*e, -1, 1) for e in edges]
        )
    with store.read() as connection:
        assert len(edges_from(connection, range(1500), [Relation.PART])) == 1500
        assert len(edges_to(connection, range(1500), [Relation.PART])) == 1499
        assert edges_from(connection, range(1500), [Relation.USED]) == []


# -- a log of spans


def a_log_of_spans(folder: Folder, spans: int) -> None:
    log = Log(folder.log, process_id=b"P" * 16, project="tests")
    run, trace = b"R" * 16, b"T" * 16
    name = text_digest("the same text in every span, long enough to be content of its own, and a little more")
    log.append([framed(Run(b"P" * 16, "process", 1, b"P" * 16, project="tests"))])
    log.append([framed(Run(run, "run", 1, b"P" * 16, "s-1", trace, (1).to_bytes(8, "big"), project="tests"))])
    log.append(
        [
            blob_frame(
                Domain.TEXT,
                name,
                b"the same text in every span, long enough to be content of its own, and a little more",
            )
        ]
    )
    slot = Slot("input", "document", int(Domain.TEXT), name, "a name", {"rank": 1})
    for number in range(1, spans + 1):
        own, parent = number.to_bytes(8, "big"), (number // 2).to_bytes(8, "big") if number > 1 else None
        start = SpanStart(trace, own, parent, run, "chain", f"span {number % 7}", f"p/{number}", number, [slot])
        log.append([framed(start)])
        if number % 10:
            log.append([framed(SpanEnd(trace, own, number + 5, "ok", [slot]))])
    log.append([framed(Run(run, "run", 1, b"P" * 16, "s-1", trace, (1).to_bytes(8, "big"), answer=[slot], ended_ns=9))])
    log.append([framed(Lost(1, {"somewhere": (2, "error")}))])
    log.close()


def test_a_log_is_indexed_and_indexing_it_again_changes_nothing(folder: Folder, store: Store) -> None:
    a_log_of_spans(folder, 200)
    stems = segment.stems(folder.log)
    assert Indexer(store).catch_up(stems) == 1 + 3 + 200 + 180 + 2
    first = contents(store)
    assert len(first["span"]) == 200
    assert {row[9] for row in first["span"]} == {"ok", "running"}
    assert len(first["lost"]) == 1
    assert Indexer(store).catch_up(stems) == 0
    with store.write() as connection:
        connection.execute(sa.update(catalog.segment).values(indexed=0, state="open"))
    assert Indexer(store).catch_up(stems) > 0
    second = contents(store)
    assert {**second, "segment": None} == {**first, "segment": None}


def test_every_backend_says_the_same_of_a_log(folder: Folder, tmp_path: Path, catalog_url: str | None) -> None:
    a_log_of_spans(folder, 60)
    reference = Folder(tmp_path / "reference", create=True)
    with Store(folder, catalog_url=catalog_url) as store, Store(reference) as plain:
        for each in (store, plain):
            Indexer(each).catch_up(segment.stems(folder.log))
        assert contents(store) == contents(plain)


@pytest.fixture
def traced(
    clean_tracing: None, folder: Folder, catalog_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Tracer]:
    """A tracer whose catalog CLEW_CATALOG names."""
    if catalog_url:
        monkeypatch.setenv("CLEW_CATALOG", catalog_url)
    tracer = clew.init("tests", store=folder.path)
    assert tracer is not None
    yield tracer
    clew.shutdown()
    index.forget(tracer.folder)


def work() -> tuple[clew.run, Any]:
    """A little of everything that a program does."""
    texts = [" ".join(f"word{(row * 31 + place * place * 17) % 997}" for place in range(12)) for row in range(30)]
    data = clew.dataset("rows", [{"id": f"r{row}", "text": texts[row]} for row in range(30)], text="text", key="id")
    clew.artifact("model", {"weights": [1, 2]}, "reader")
    clew.artifact("model", {"weights": [3, 4]}, "reader")

    @clew.trace("look", kind="retriever")
    def look(question: str) -> list[clew.Document]:
        return list(data.documents())[1:3]

    @clew.trace("say", kind="llm")
    def say(prompt: str) -> str:
        return "It says: " + prompt.split("context: ")[1] + " NUL \0 and \ud800 too."

    with clew.run("ask\0\ud800", session="s\0") as run:
        found = look("which words?")
        run.output(say(f"Answer from the context: {found[0].text}"))
    clew.flush()
    return run, data


def test_the_main_job_runs_on_every_backend(traced: Tracer, catalog_url: str | None) -> None:
    run, data = work()
    assert traced.faults.counts == {}
    assert (not (traced.folder.path / "catalog.sqlite").exists()) is (catalog_url is not None)
    with Reader(traced.folder.path) as reader:
        assert [each.name for each in reader.runs()] == ["ask\\x00\\ud800"]
        assert {span.status for span in reader.spans()} == {"ok"}
        assert reader.why(run).find(kind="row")
        assert reader.impact(data).to_dict()["nodes"]
        before = reader.why(run).to_dict()
    rebuild.rebuild(traced.folder)
    with Reader(traced.folder.path) as reader:
        assert reader.why(run).to_dict() == before


def test_every_statement_compiles_for_postgresql(tracer: Tracer) -> None:
    """Those of the main job, caught as they are executed, and what goes to the driver as text."""
    statements: list[sa.ClauseElement] = []
    store, _ = index.shared(tracer.folder)
    sa.event.listen(store.engine, "before_execute", lambda _, statement, *rest: statements.append(statement))
    run, data = work()
    reader = Reader(tracer.folder.path)
    for of in (run, data, "model/reader", "dataset/rows@1", "dataset/rows@1[3]", reader.spans()[0].span_id[:10]):
        reader.why(of)
        reader.impact(of)
    reader.runs(all=True, used=["dataset/rows"])
    compiled = {str(statement.compile(dialect=POSTGRESQL)) for statement in statements}
    assert len(compiled) > 25
    assert not [sql for sql in compiled if "GLOB" in sql.split() or "rowid" in sql]
    run = catalog.run.c
    selects = {"keys": catalog._matching((run.run_id, run.id), run.run_id)}
    for forwards, values in itertools.product((True, False), (1, 512)):
        selects["seeds"] = _statement(tuple(Relation), forwards)
        for name, select in selects.items():
            sql, names = catalog._selecting_sql(select, POSTGRESQL, name, values)
            assert names is not None
            assert [sql.count(f"%({one})s") for one in names] == [1] * values
    for table in catalog.metadata.sorted_tables:
        assert "ON CONFLICT DO NOTHING" in catalog._insert_sql(table, POSTGRESQL, tuple(table.c.keys()), True)[0]
        sa.schema.CreateTable(table).compile(dialect=POSTGRESQL)


# -- which backend


def test_a_sqlite_address_names_the_file(tmp_path: Path, folder: Folder) -> None:
    Store(folder, catalog_url=f"sqlite:///{tmp_path}/other.sqlite").close()
    assert (tmp_path / "other.sqlite").exists()
    assert not folder.catalog.exists()


def test_another_database_is_a_named_error_without_its_password(folder: Folder) -> None:
    with pytest.raises(StoreError, match="SQLite and PostgreSQL are supported") as raised:
        Store(folder, catalog_url="mysql://me:hush-hush@host/db")
    assert "hush-hush" not in str(raised.value)


def test_a_missing_driver_names_the_extra(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"pip install 'clew\[postgres\]'"):
        Store(folder, catalog_url="postgresql://host/db")


def test_a_server_that_is_not_there_is_a_named_error_without_its_password(folder: Folder, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="cannot be used") as raised:
        Store(folder, catalog_url=f"postgresql://me:hush-hush@/db?host={tmp_path}")
    assert "hush-hush" not in str(raised.value)


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_corrupt_catalog_is_a_named_error_that_says_what_to_do(folder: Folder, damage: bytes) -> None:
    folder.catalog.write_bytes(damage)
    with pytest.raises(StoreError, match="clew doctor --rebuild"):
        Store(folder)
