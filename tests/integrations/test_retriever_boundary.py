"""Retrievers below their public methods."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from clew.tracer import context
from tests.integrations.boundary_bed import instrumented, traced


class Words(BaseRetriever):
    """Takes no run manager, and notes which span is current."""

    seen: list[Any] = Field(default_factory=list)

    def _get_relevant_documents(self, query: str) -> list[Document]:
        here = context.enclosing()
        self.seen.append(None if here is None else (here.kind, here.name))
        return [Document(word) for word in query.split()]


class Managed(BaseRetriever):
    seen: list[Any] = Field(default_factory=list)

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return Words._get_relevant_documents(self, query)  # type: ignore[arg-type]


class Asynchronous(Words):
    async def _aget_relevant_documents(self, query: str, *, run_manager: Any = None) -> list[Document]:
        await asyncio.sleep(0)
        return self._get_relevant_documents(query)


class Both(BaseRetriever):
    parts: list[BaseRetriever]

    def _get_relevant_documents(self, query: str) -> list[Document]:
        return [found for part in self.parts for found in part.invoke(query)]


@pytest.mark.parametrize("cls", [Words, Managed, Asynchronous])
async def test_every_way_of_asking_is_one_span_that_is_current(cls: Any, tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        retriever = cls(seen=[])
        retriever.invoke("two words")
        await retriever.ainvoke("two words")
        retriever.batch(["a", "b"])
        log = bed.log
        spans = log.of("retriever")
        assert len(spans) == 4
        assert retriever.seen == [("retriever", cls.__name__)] * 4
        assert [log.value(slot)["text"] for slot in spans[0].generated] == ["two", "words"]
        assert not bed.faults


def test_a_retriever_of_retrievers_has_a_span_for_each(tmp_path: Path) -> None:
    with instrumented(tmp_path) as bed:
        Both(parts=[Words(), Managed()]).invoke("one")
        log = bed.log
        outer, *inner = log.of("retriever")
        assert [span.name for span in inner] == ["Words", "Managed"]
        assert [log.parent(span) for span in inner] == [outer, outer]


def test_without_a_callback_the_boundary_has_a_span_of_its_own(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        Words().invoke("two words")
        log = bed.log
        span = log.one("retriever")
        assert log.value(span.used[0]) == "two words"
        assert [slot.info for slot in span.generated] == [{"rank": 0}, {"rank": 1}]
        assert span.attributes["clew.document.count"] == 2


def test_an_error_ends_the_span(tmp_path: Path) -> None:
    class Broken(BaseRetriever):
        def _get_relevant_documents(self, query: str) -> list[Document]:
            raise ConnectionError("no index")

    with traced(tmp_path) as bed:
        with pytest.raises(ConnectionError):
            Broken().invoke("x")
        assert bed.log.one("retriever").status == "error"
