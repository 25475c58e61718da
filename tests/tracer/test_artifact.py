"""`clew.artifact`: a kind and a name for content; the content is the identity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import clew
from clew.lineage.reader import Reader
from clew.store.digest import Domain, digest, text_digest
from clew.tracer.init import Tracer


def test_the_version_changes_with_the_content_alone(tracer: Tracer) -> None:
    made = [clew.artifact("model", {"w": number}, "reader") for number in (1, 1, 2, 1)]
    assert [each.version for each in made] == [1, 1, 2, 3]
    assert made[0].digest == made[1].digest == made[3].digest != made[2].digest
    assert repr(made[0]).startswith("<model/reader@1 b3:")


def test_without_a_name_it_has_no_version(tracer: Tracer, reader: Reader) -> None:
    made = clew.artifact("prompt", "Answer from the context only, and say when it does not say.")
    assert (made.version, made.digest) == (
        None,
        text_digest("Answer from the context only, and say when it does not say."),
    )
    assert repr(made).startswith("<prompt b3:")


def test_a_value_is_read_back_by_digest_prefix_and_name(tracer: Tracer, reader: Reader) -> None:
    value = {"weights": [1, 2.5], "name": "a long name " * 20}
    made = clew.artifact("model", value, "reader")
    for name in (str(made.digest), str(made.digest)[:20], "model/reader", "model/reader@1"):
        assert reader.artifact(name) == value


def test_an_array_is_an_artifact(tracer: Tracer, reader: Reader) -> None:
    made = clew.artifact("embedding", np.arange(6.0).reshape(2, 3), "vectors")
    found = reader.artifact(str(made.digest))
    assert (found.type, found.fields["shape"]) == ("tensor", (2, 3))


def test_a_path_stands_for_the_bytes_of_the_file(tracer: Tracer, reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(b"\0\1\2")
    (tmp_path / "large.bin").write_bytes(b"x" * (3 << 20))
    made = clew.artifact("model", tmp_path / "m.bin", "file")
    assert made.digest == clew.artifact("file", "m.bin").digest == digest(Domain.BYTES, b"\0\1\2")
    assert reader.artifact(str(made.digest)) == b"\0\1\2"
    before = tracer.log.size
    assert clew.artifact("model", tmp_path / "large.bin").digest == digest(Domain.BYTES, b"x" * (3 << 20))
    assert tracer.log.size - before < 10_000
    assert tracer.folder.size_bytes()["blob"] == 0
    assert clew.artifact("value", "no such file").digest == text_digest("no such file")


def test_a_folder_is_the_tree_of_its_files(tracer: Tracer, tmp_path: Path) -> None:
    (tmp_path / "m" / "deep").mkdir(parents=True)
    (tmp_path / "m" / "a").write_text("a")
    (tmp_path / "m" / "deep" / "b").write_text("b")
    first = clew.artifact("model", tmp_path / "m", "m")
    assert clew.artifact("model", tmp_path / "m", "m").version == 1
    (tmp_path / "m" / "a").rename(tmp_path / "m" / "c")
    second = clew.artifact("model", tmp_path / "m", "m")
    assert (second.version, second.digest != first.digest) == (2, True)


@pytest.mark.parametrize("kind", ["", "span", "modle"])
def test_an_unknown_kind_is_a_value_error_that_lists_them(tracer: Tracer, kind: str) -> None:
    with pytest.raises(ValueError, match=r"kinds are chunk, dataset, document, .*, row, tool, value$"):
        clew.artifact(kind, 1)
    with pytest.raises(ValueError, match="a ref name has"):
        clew.artifact("model", 1, "two\nlines")


def test_declared_inside_a_run_it_is_what_the_run_used(tracer: Tracer, reader: Reader) -> None:
    with clew.run("train"):
        made = clew.artifact("model", {"w": 1}, "reader")
    (span,) = reader.spans()
    assert [(slot.role, slot.kind, slot.digest, slot.name) for slot in span.used] == [
        ("declared", "model", str(made.digest), "reader")
    ]
