"""Text splitters: each chunk leads back to the stretch of the text it was cut from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_text_splitters import (
    CharacterTextSplitter,
    MarkdownHeaderTextSplitter,
    RecursiveCharacterTextSplitter,
    RecursiveJsonSplitter,
    TextSplitter,
)

from clew.integrations.langchain.splitter import _located
from clew.store import encoding
from clew.store.digest import Digest, text_digest
from tests.integrations.boundary_bed import Bed, traced

ALICE = "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do. " * 3
RABBIT = "There was nothing so very remarkable in that; nor did Alice think it so very much out of the way. " * 3


def name_of(document: Document) -> Digest:
    fields = {"text": document.page_content, "metadata": document.metadata, "id": document.id}
    return encoding.value_digest(fields)


def cut(bed: Bed, chunks: list[Document], sources: list[Document]) -> list[tuple[str, str | None]]:
    """(chunk, the stretch of its source that was declared), by digests alone."""
    by_name = {bytes(name_of(one)): one.page_content for one in [*chunks, *sources]}
    pairs = bed.declared.pairs("chunk", "document", "derived_from")
    return [
        (by_name[chunk], None if start is None else by_name[source][start:end]) for chunk, source, start, end in pairs
    ]


def test_documents_are_split_in_one_span_with_ranges(tmp_path: Path) -> None:
    sources = [Document(ALICE, metadata={"page": 1}, id="a"), Document(RABBIT, metadata={"page": 2}, id="b")]
    with traced(tmp_path) as bed:
        splitter = RecursiveCharacterTextSplitter(chunk_size=80, chunk_overlap=20)
        chunks = splitter.split_documents(sources)
        span = bed.log.one("chain")
        assert span.name == "split RecursiveCharacterTextSplitter"
        assert span.attributes["clew.operation"] == "split"
        assert [slot.role for slot in span.used] == ["documents", "splitter"]
        assert bed.log.value(span.used[1])["chunk_size"] == 80
        assert bed.log.value(span.generated[0])[0]["text"] == chunks[0].page_content
        found = cut(bed, chunks, sources)
        assert len(found) == len(chunks) > 6
        assert all(chunk == stretch for chunk, stretch in found)
        assert not bed.faults


def test_texts_are_sources_too(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        splitter = CharacterTextSplitter(separator=" ", chunk_size=30, chunk_overlap=0)
        pieces = splitter.split_text(ALICE)
        pairs = bed.declared.pairs("chunk", "value", "derived_from")
        assert [ALICE[start:end] for _, _, start, end in pairs] == pieces
        assert {source for _, source, _, _ in pairs} == {bytes(text_digest(ALICE))}
        assert pairs[0][0] == bytes(text_digest(pieces[0]))
        documents = splitter.create_documents([ALICE, RABBIT], [{"n": 1}, {"n": 2}])
        assert len(bed.log.of("chain")) == 2
        sources = [source for _, source, _, _ in bed.declared.pairs("chunk", "value", "derived_from")[len(pairs) :]]
        wanted = {1: bytes(text_digest(ALICE)), 2: bytes(text_digest(RABBIT))}
        assert sources == [wanted[one.metadata["n"]] for one in documents]


def test_equal_texts_of_two_documents_each_keep_their_own_chunks(tmp_path: Path) -> None:
    sources = [Document(ALICE, metadata={"page": n}) for n in range(3)]
    with traced(tmp_path) as bed:
        chunks = RecursiveCharacterTextSplitter(chunk_size=90, chunk_overlap=0).split_documents(sources)
        pairs = bed.declared.pairs("chunk", "document", "derived_from")
        wanted = [bytes(name_of(sources[chunk.metadata["page"]])) for chunk in chunks]
        assert [source for _, source, _, _ in pairs] == wanted


def test_a_generator_of_documents_is_split_as_before(tmp_path: Path) -> None:
    def documents() -> Iterator[Document]:
        yield Document(ALICE)
        yield Document(RABBIT)

    splitter = RecursiveCharacterTextSplitter(chunk_size=80, chunk_overlap=0)
    plain = splitter.split_documents(documents())
    with traced(tmp_path) as bed:
        assert splitter.split_documents(documents()) == plain
        assert len(bed.log.value(bed.log.one("chain").used[0])) == 2


async def test_transforming_documents_is_one_call_sync_and_async(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        splitter = RecursiveCharacterTextSplitter(chunk_size=80, chunk_overlap=0)
        splitter.transform_documents([Document(ALICE)])
        await splitter.atransform_documents([Document(ALICE)])
        assert len(bed.log.of("chain")) == 2


def test_a_chunk_that_was_rewritten_has_no_range(tmp_path: Path) -> None:
    class Shouting(TextSplitter):
        def split_text(self, text: str) -> list[str]:
            return [text[:20], text[20:40].upper()]

    with traced(tmp_path) as bed:
        Shouting().split_documents([Document(ALICE)])
        ranges = [(start, end) for _, _, start, end in bed.declared.pairs("chunk", "document", "derived_from")]
        assert ranges == [(0, 20), (None, None)]


def test_a_splitter_that_is_no_subclass_and_one_used_inside_another(tmp_path: Path) -> None:
    class Outer(TextSplitter):
        def split_text(self, text: str) -> list[str]:
            return RecursiveCharacterTextSplitter(chunk_size=50, chunk_overlap=0).split_text(text)

    with traced(tmp_path) as bed:
        markdown = "# One\nfirst text\n# Two\nsecond text"
        chunks = MarkdownHeaderTextSplitter([("#", "h1")]).split_text(markdown)
        assert [chunk.metadata for chunk in chunks] == [{"h1": "One"}, {"h1": "Two"}]
        Outer().split_documents([Document(ALICE)])
        assert [span.name for span in bed.log.of("chain")] == ["split MarkdownHeaderTextSplitter", "split Outer"]
        ranges = [(start, end) for _, _, start, end in bed.declared.pairs("chunk", "value", "derived_from")]
        assert [markdown[start:end] for start, end in ranges] == ["first text", "second text"]


def test_json_is_split_with_its_source_named(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        chunks = RecursiveJsonSplitter(max_chunk_size=30).split_text({"a": {"b": "c" * 20, "d": "e" * 200}})
        pairs = bed.declared.pairs("chunk", "value", "derived_from")
        assert [chunk for chunk, *_ in pairs] == [bytes(text_digest(chunk)) for chunk in chunks]
        assert not bed.faults


def test_an_error_ends_the_span(tmp_path: Path) -> None:
    class Broken(TextSplitter):
        def split_text(self, text: str) -> list[str]:
            raise LookupError("no words")

    with traced(tmp_path) as bed:
        with pytest.raises(LookupError):
            Broken().split_documents([Document(ALICE)])
        assert bed.log.one("chain").status == "error"


def test_where_nothing_was_noted_metadata_decides_among_equal_texts() -> None:
    sources: list[Any] = [Document("same text", metadata={"n": n}) for n in range(2)]
    chunks: list[Any] = [Document("same", metadata={"n": 1, "more": True})]
    ((_, source, start),) = _located(chunks, sources, [], None)
    assert source is sources[1]
    assert start == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    text=st.text("ab \n.", max_size=300),
    size=st.integers(5, 40),
    overlap=st.integers(0, 4),
)
def test_every_range_holds_its_chunk_and_ranges_go_forward(text: str, size: int, overlap: int) -> None:
    splitter = RecursiveCharacterTextSplitter(chunk_size=size, chunk_overlap=overlap)
    chunks: list[Any] = splitter.split_text(text)
    found = list(_located(chunks, [text], [], overlap))
    starts = [start for _, _, start in found if start is not None]
    for chunk, source, start in found:
        if start is not None:
            assert source[start : start + len(chunk)] == chunk
    assert len(found) == len(chunks)
    assert starts == sorted(starts)
