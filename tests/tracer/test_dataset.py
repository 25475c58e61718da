"""`clew.dataset`: rows, files and frames under a name, versioned by content and shared between versions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import clew
from clew.lineage.reader import Reader
from clew.store import ref
from clew.store.digest import Digest
from clew.store.errors import NotFound
from clew.tracer import dataset as subject
from clew.tracer.init import Tracer

ROWS = [{"id": f"r{number}", "text": f"row number {number}, " + f"w{number * 7919} " * 20} for number in range(1200)]


def log_bytes(tracer: Tracer) -> int:
    clew.flush()
    return tracer.log.size


def test_a_version_is_made_when_the_content_is_new(tracer: Tracer) -> None:
    assert [clew.dataset("d", ROWS[:3]).ref, clew.dataset("d", ROWS[:3]).ref] == ["dataset/d@1"] * 2
    changed = clew.dataset("d", [*ROWS[:2], {"id": "new", "text": "new"}])
    assert (changed.ref, changed.version, len(changed)) == ("dataset/d@2", 2, 3)
    assert clew.dataset("d", list(reversed(ROWS[:3]))).version == 3
    assert clew.dataset("other", ROWS[:3]).ref == "dataset/other@1"
    assert tracer.faults.counts == {}


def test_it_is_iterable_over_the_rows_as_they_were_given(tracer: Tracer) -> None:
    data = clew.dataset("d", iter(ROWS))
    assert list(data) == ROWS
    assert (data[7], len(data), repr(data)) == (ROWS[7], 1200, "<dataset/d@1, 1200 rows>")


def test_a_version_shares_every_row_that_did_not_change(tracer: Tracer) -> None:
    clew.dataset("d", ROWS)
    before = log_bytes(tracer)
    clew.dataset("d", [*ROWS[:700], {"id": "new", "text": "one row is new here"}, *ROWS[701:]])
    grown = log_bytes(tracer) - before
    assert grown < 512 * 32 + 32 * 4 + 2000  # one page of digests, the root, one row, the records


def test_rows_of_any_kind_and_none_at_all(tracer: Tracer, reader: Reader) -> None:
    assert clew.dataset("texts", ["a", "b" * 100]).version == 1
    assert clew.dataset("odd", [1, None, (2, {3}), object(), b"x"]).version == 1
    assert clew.dataset("empty", []).version == 1
    assert clew.dataset("frame", pd.DataFrame({"id": [1, 2], "text": ["x", "y"]}), "text").rows == [
        {"id": 1, "text": "x"},
        {"id": 2, "text": "y"},
    ]
    assert tracer.faults.counts == {}
    assert [run.name for run in reader.runs()] == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("text", [row["text"] for row in ROWS[:2]]),
        (lambda row: row["id"] + row["text"], [row["id"] + row["text"] for row in ROWS[:2]]),
    ],
)
def test_documents_come_from_a_field_or_a_function(
    tracer: Tracer, text: str | Callable[[Any], str], wanted: list[str]
) -> None:
    documents = list(clew.dataset("d", ROWS[:2]).documents(text=text, id="id", metadata=["id"]))
    assert [document.text for document in documents] == wanted
    assert [document.id for document in documents] == ["r0", "r1"]
    assert [document.metadata for document in documents] == [{"id": "r0"}, {"id": "r1"}]
    assert [document.source for document in documents] == ["dataset/d@1[0]", "dataset/d@1[1]"]


def test_a_document_that_says_a_field_the_rows_lack_names_those_they_have(tracer: Tracer) -> None:
    with pytest.raises(KeyError, match="no field 'body'; it has id, text"):
        list(clew.dataset("d", ROWS[:2]).documents(text="body"))
    with pytest.raises(ValueError, match="which field of a row is the text"):
        list(clew.dataset("d", ROWS[:2]).documents())


def test_documents_left_half_way_are_declared_as_far_as_they_went(tracer: Tracer, reader: Reader) -> None:
    documents = clew.dataset("d", ROWS, "text", key="id").documents()
    with clew.run("half") as run:
        first = next(documents)
        documents.close()  # type: ignore[attr-defined]
        run.output(first)
    assert [node.name for node in reader.why(run).find(kind="row")] == ["dataset/d@1[0]"]


def test_files_are_rows_by_path_text_and_digest(tracer: Tracer, reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "docs" / "a.md").write_text("alpha")
    (tmp_path / "docs" / "deep" / "b.md").write_text("beta")
    (tmp_path / "docs" / "c.bin").write_bytes(b"\xff\xfe")
    data = clew.dataset("docs", "docs/**/*.md")
    assert [(Path(row["path"]).name, row["text"], row["size_bytes"]) for row in data] == [
        ("a.md", "alpha", 5),
        ("b.md", "beta", 4),
    ]
    assert [row["text"] for row in clew.dataset("all", tmp_path / "docs")] == ["alpha", None, "beta"]
    (tmp_path / "docs" / "a.md").write_text("alpha 2")
    assert clew.dataset("docs", "docs/**/*.md").version == 2
    assert tracer.faults.counts == {}


def test_lines_of_jsonl_and_csv_are_rows(tracer: Tracer, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS[:3])) + "\n\n")
    (tmp_path / "rows.csv").write_text('id,text\n1,one\n2,"t,w,o"\n')
    assert clew.dataset("lines", tmp_path / "rows.jsonl").rows == ROWS[:3]
    assert clew.dataset("table", "rows.csv").rows == [{"id": "1", "text": "one"}, {"id": "2", "text": "t,w,o"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("d", "no/such/*.md"), "as a glob it fits no file"),
        (("d", {"a": 1}), "pass \\[row"),
        (("", []), "a ref name has"),
        (("x" * 400, []), "a ref name has"),
    ],
)
def test_a_users_mistake_is_a_value_error(tracer: Tracer, arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clew.dataset(*arguments)
    with pytest.raises(ValueError, match="content is one of auto, copy, digest"):
        clew.dataset("d", [], content="all")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("docs", None), {}, TypeError, "not NoneType"),
        (("docs", 5), {}, TypeError, "rows, a file, a folder, a glob or a DataFrame, not int"),
        ((5, ROWS), {}, TypeError, "named by a text, not by int"),
        (("docs@2", ROWS), {}, ValueError, "holds an @"),
        (("docs", ROWS, 5), {}, TypeError, "text is the name of a field, not int"),
        (("docs", ROWS), {"key": len}, TypeError, "key is the name of a field, not builtin"),
    ],
)
def test_what_can_be_no_dataset_is_told_as_such(
    tracer: Tracer, arguments: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        clew.dataset(*arguments, **options)


@pytest.mark.parametrize(("name", "error"), [(5, TypeError), ("prompt@2", ValueError), ("", ValueError)])
def test_a_name_that_can_be_no_artifacts_is_told_as_such(tracer: Tracer, name: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        clew.artifact("prompt", "Answer briefly.", name)


def test_by_digest_there_is_a_pointer_and_no_row(tracer: Tracer, reader: Reader) -> None:
    before = log_bytes(tracer)
    data = clew.dataset("d", ROWS, "text", key="id", content="digest")
    assert data.content == "digest"
    assert log_bytes(tracer) - before < 1200 * 32 * 5
    with pytest.raises(NotFound):
        reader.artifact(str(data.row_digests[0]))
    with clew.run("use") as run:
        run.output(next(iter(data.documents())))
    assert [node.name for node in reader.why(run).find(kind="row")] == ["dataset/d@1[0]"]
    assert reader.artifact(str(clew.dataset("d", ROWS, "text", key="id", content="copy").row_digests[0])) == ROWS[0]


def test_rows_are_copied_up_to_a_limit(tracer: Tracer, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "COPY_BYTES", 20_000)
    data = clew.dataset("d", ROWS)
    assert (data.content, data.version) == ("digest", 1)
    assert reader.artifact(str(data.row_digests[0])) == ROWS[0]
    with pytest.raises(NotFound):
        reader.artifact(str(data.row_digests[-1]))
    assert clew.dataset("e", ROWS, content="copy").content == "copy"
    assert reader.artifact(str(data.row_digests[-1])) == ROWS[-1]


def test_two_names_of_one_content_are_one_artifact(tracer: Tracer, reader: Reader) -> None:
    one, two = clew.dataset("one", ROWS[:5]), clew.dataset("two", ROWS[:5])
    assert one.digest == two.digest
    names = {each["name"]: each["digest"] for each in ref.listing(reader.store)}
    assert names == {"dataset/one": str(one.digest), "dataset/two": str(one.digest)}
    assert isinstance(one.digest, Digest)
