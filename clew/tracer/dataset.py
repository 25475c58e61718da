"""`clew.dataset`: rows, files or a frame under a name, versioned by content.

A version is a Merkle tree over its rows in pages, so it shares every row that did not change with the version before.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from clew.lineage.index import shared
from clew.store import ref
from clew.store.digest import Digest, Domain
from clew.store.digest import digest as digest_of
from clew.store.encoding import encode_capture
from clew.store.log import blob_frame
from clew.store.record import Artifact, Derivation
from clew.tracer import context, init
from clew.tracer.artifact import file_digest
from clew.tracer.capture import Batch
from clew.tracer.document import Document

PAGE_ROWS = 512
COPY_BYTES = 256 << 20
_BATCH_ROWS = 1000
CONTENT = ("auto", "copy", "digest")


class Dataset:
    """A dataset version: iterable over its rows, with a length.

    `digest` names its content; `name` and `version` make its ref, `dataset/NAME@VERSION` (None where clew is off).
    """

    def __init__(self, name: str, rows: list[Any], text: str | None, key: str | None) -> None:
        self.name = name
        self.rows = rows
        self.text = text
        self.key = key
        self.digest: Digest | None = None
        self.version: int | None = None
        self.content = "copy"
        self.row_digests: list[Digest] = []

    @property
    def ref(self) -> str:
        """`dataset/NAME@VERSION`."""
        return f"dataset/{self.name}@{self.version}" if self.version else f"dataset/{self.name}"

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Any:
        return self.rows[position]

    def __repr__(self) -> str:
        return f"<{self.ref}, {len(self.rows)} rows>"

    def documents(
        self,
        text: str | Callable[[Any], str] | None = None,
        *,
        id: str | Callable[[Any], str] | None = None,  # noqa: A002 - the field's word
        metadata: Callable[[Any], dict[str, Any]] | Iterable[str] | None = None,
    ) -> Iterator[Document]:
        """A document for each row, each declared as derived from it.

        `text`, `id` and `metadata` are field names or functions of a row; by default the dataset's `text` field, its
        `key` field and nothing. KeyError names a field that a row lacks.
        """
        make_text = _getter(text if text is not None else self.text, "text")
        key = id if id is not None else self.key
        make_id = _getter(key, "id") if key is not None else None
        tracer = init.active()
        pairs: list[tuple[bytes, bytes, int | None, int | None]] = []
        batch = Batch(tracer.gate) if tracer is not None and self.digest is not None else None

        def declare() -> None:
            nonlocal batch
            if batch is None or tracer is None or not pairs:
                return
            around = context.enclosing()
            run_id = around.run.run_id if around is not None else tracer.process_id
            try:
                batch.record(Derivation(b"", b"", "derived_from", "document", "row", list(pairs), run_id))
                batch.commit()
            except Exception as error:
                tracer.faults.add("documents of a dataset", error)
            pairs.clear()
            batch = Batch(tracer.gate)

        try:
            for position, row in enumerate(self.rows):
                if metadata is None:
                    facts: dict[str, Any] = {}
                elif callable(metadata):
                    facts = metadata(row)
                else:
                    facts = {field: row[field] for field in metadata}
                document = Document(
                    make_text(row), facts, str(make_id(row)) if make_id else None, f"{self.ref}[{position}]"
                )
                if batch is not None:
                    batch = batch.renewed()  # the program runs between two documents
                    pairs.append((bytes(batch.part(document)[1]), bytes(self.row_digests[position]), None, None))
                    if len(pairs) >= _BATCH_ROWS:
                        declare()
                yield document
        finally:
            declare()


def _getter(field: str | Callable[[Any], Any] | None, what: str) -> Callable[[Any], Any]:
    if callable(field):
        return field
    if field is None:

        def only_text(row: Any) -> Any:
            if isinstance(row, str):
                return row
            raise ValueError(
                f"which field of a row is the {what}? say clew.dataset(..., {what}=...) or .documents({what}=...)"
            )

        return only_text

    def read(row: Any) -> Any:
        try:
            return row[field]
        except (KeyError, TypeError) as error:
            fields = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise KeyError(f"a row has no field {field!r}; it has {fields}") from error

    return read


def dataset(
    name: str, source: Any, text: str | None = None, *, key: str | None = None, content: str = "auto"
) -> Dataset:
    """Declare a dataset; `dataset/NAME@N` is made when its content is new.

    `source`: an iterable of rows (dicts, texts, any values), a file, a folder, a glob, or a DataFrame. A `.jsonl` or
    `.csv` file is its lines; other files are rows of `{"path", "text", "size_bytes", "digest"}`. `text` is the field
    that documents are made of, `key` the field that names a row. Rows are copied into the store up to 256 MB
    (`content="auto"`); "copy" always, "digest" never: then the store has digests and a pointer to the source.
    """
    if content not in CONTENT:
        raise ValueError(f"content is one of {', '.join(CONTENT)}, not {content!r}")
    ref.full_name("dataset", name)
    for what, field in (("text", text), ("key", key)):
        if field is not None and not isinstance(field, str):
            raise TypeError(f"{what} is the name of a field, not {type(field).__name__}")
    tracer = init.ensure()
    name = tracer.gate.name(name) if tracer is not None else name
    rows, text, where, files = _rows(source, text)
    made = Dataset(name, rows, text, key)
    if tracer is None:
        return made
    if not tracer.gate.content:
        content = "digest"
    try:
        _store(tracer, made, content, where, files)
    except Exception as error:
        tracer.faults.add("clew.dataset", error)
    return made


def _store(tracer: init.Tracer, made: Dataset, content: str, where: str | None, files: bool) -> None:
    rows = made.rows
    copied, batch = 0, Batch(tracer.gate)
    leaves: list[list[bytes]] = []
    for row in rows:
        batch = batch.renewed()  # other threads run while many rows are read
        if content == "digest":
            made.content, batch.content = "digest", False
        before = len(batch.frames)
        value = _file_row(batch, row) if files else row
        encoded, complete = encode_capture(value, batch)
        batch.complete &= complete
        digest = Digest(batch.data(Domain.VALUE, encoded))
        texts = row.items() if isinstance(row, dict) else (("", row),)
        leaves.append([batch.text(batch.named(str(key), one)) for key, one in texts if one.__class__ is str and one])
        made.row_digests.append(digest)
        copied += sum(map(len, batch.frames[before:]))
        if content == "auto" and copied > COPY_BYTES:
            made.content = "digest"
            batch.content = False
        if len(batch.frames) > _BATCH_ROWS:
            batch.commit()
    pages = [
        batch.data(Domain.TREE, b"".join(made.row_digests[start : start + PAGE_ROWS]))
        for start in range(0, len(rows), PAGE_ROWS)
    ]
    made.digest = Digest(batch.data(Domain.TREE, b"".join(pages)))
    detail: dict[str, Any] = {"rows": len(rows), "content": made.content}
    for field, value in (("key", made.key), ("text_field", made.text), ("source", where)):
        if value is not None:
            detail[field] = batch.inline(value)
    if made.content == "digest":
        manifest = encode_capture(leaves, batch)[0]
        leaf_digest = digest_of(Domain.VALUE, manifest)
        batch.frames.append(blob_frame(Domain.VALUE, leaf_digest, manifest))
        detail["leaves"] = bytes(leaf_digest)
    around = context.enclosing()
    run_id = around.run.run_id if around is not None else tracer.process_id
    batch.record(Artifact("dataset", int(Domain.TREE), made.digest, run_id, made.name, detail))
    batch.commit()
    if around is not None:
        around.use(("declared", "dataset", (Domain.TREE, made.digest), made.name))
    store, _ = shared(tracer.folder)
    made.version = ref.put(store, tracer.log, f"dataset/{made.name}", "dataset", made.digest, run_id=run_id)


def _file_row(batch: Batch, row: Any) -> Any:
    return {**row, "digest": str(file_digest(batch, Path(row["path"])))}


def _rows(source: Any, text: str | None) -> tuple[list[Any], str | None, str | None, bool]:
    """Rows, the text field, where they are from, and whether they are files."""
    if isinstance(source, (str, os.PathLike)):
        return _from_path(str(source), text)
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        return source.to_dict("records"), text, None, False
    if isinstance(source, dict):
        raise ValueError("a dataset is a list of rows; this is one dict: pass [row, ...]")
    try:
        rows = iter(source)
    except TypeError:
        kind = type(source).__name__
        raise TypeError(f"a dataset is rows, a file, a folder, a glob or a DataFrame, not {kind}") from None
    return list(rows), text, None, False


def _from_path(name: str, text: str | None) -> tuple[list[Any], str | None, str | None, bool]:
    path = Path(name)
    if path.is_file() and path.suffix == ".jsonl":
        import msgspec

        lines = path.read_text("utf-8").splitlines()
        return [msgspec.json.decode(line) for line in lines if line.strip()], text, name, False
    if path.is_file() and path.suffix == ".csv":
        import csv

        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file)), text, name, False
    if path.is_dir():
        found = [str(one) for one in path.rglob("*")]
    elif path.is_file():
        found = [name]
    else:
        found = glob.glob(name, recursive=True)
    files = sorted(one for one in found if os.path.isfile(one))
    if not files:
        raise ValueError(f"{name!r} is no file, no folder, and as a glob it fits no file (from {os.getcwd()})")
    rows = []
    for one in files:
        data = Path(one).read_bytes()
        row: dict[str, Any] = {"path": Path(one).as_posix(), "size_bytes": len(data)}
        try:
            row["text"] = data.decode("utf-8")
        except UnicodeDecodeError:
            row["text"] = None
        rows.append(row)
    return rows, text or "text", name, True
