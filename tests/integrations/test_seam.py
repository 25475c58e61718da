"""Wrapping and unwrapping classes, on real LangChain base classes."""

from __future__ import annotations

import functools
import gc
import weakref
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_text_splitters import TextSplitter

import clew
from clew.integrations.langchain import seam
from clew.tracer.init import init
from tests.integrations.boundary_bed import traced

BASES = (BaseChatModel, BaseRetriever, BaseTool, Embeddings, VectorStore, TextSplitter)


class Lengths(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(len(text)), 1.0]


class Mixin:
    """Serves embeddings and others."""

    def embed_query(self, text: str) -> list[float]:
        return [2.0]


class Mixed(Mixin, Lengths):
    pass


class Other(Mixin):
    """No embeddings at all."""


def everything(base: type) -> list[type]:
    found = [base]
    for cls in found:
        found.extend(one for one in cls.__subclasses__() if one not in found)
    return found


def state_of(classes: list[type]) -> list[dict[str, Any]]:
    return [{name: value for name, value in vars(cls).items() if not name.startswith("_abc")} for cls in classes]


def test_taking_off_leaves_every_class_as_it_was(tmp_path: Path) -> None:
    classes = [cls for base in BASES for cls in everything(base)] + [Mixin]
    before = state_of(classes)
    with traced(tmp_path):
        assert state_of(classes) != before
    after = state_of(classes)
    for cls, old, new in zip(classes, before, after, strict=True):
        assert {name for name in old if old[name] is not new.get(name)} == set(), cls
        assert new.keys() == old.keys(), cls


def test_a_class_method_stays_one(tmp_path: Path) -> None:
    raw = InMemoryVectorStore.__dict__["from_texts"]
    with traced(tmp_path):
        assert isinstance(InMemoryVectorStore.__dict__["from_texts"], classmethod)
        assert isinstance(InMemoryVectorStore.from_texts(["a"], Lengths()), InMemoryVectorStore)
    assert InMemoryVectorStore.__dict__["from_texts"] is raw


def test_a_method_is_wrapped_only_where_it_stands(tmp_path: Path) -> None:
    with traced(tmp_path):
        assert "aembed_query" not in Lengths.__dict__
        assert Lengths.__dict__["embed_query"].__wrapped__ is not None
        assert not hasattr(Embeddings.__dict__["embed_query"], "__wrapped__")


def test_a_class_defined_later_is_caught(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:

        class Later(Lengths):
            def embed_query(self, text: str) -> list[float]:
                return [0.5]

        Later().embed_query("x")
        assert bed.log.one("embedding").name == "embeddings Later"


def test_a_class_that_hides_from_init_subclass_is_caught_on_first_use(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:

        class Hiding(BaseTool):
            name: str = "hidden"
            description: str = "hides its subclasses"

            def __init_subclass__(cls, **kwargs: Any) -> None:
                pass

            def _run(self, x: int) -> int:
                return x

        class Hidden(Hiding):
            def _run(self, x: int) -> int:
                return x + 1

        assert not hasattr(Hidden.__dict__["_run"], "__wrapped__")
        assert Hidden().invoke({"x": 1}) == 2
        assert bed.log.one("tool").name == "hidden"


def test_an_own_init_subclass_still_runs(tmp_path: Path) -> None:
    with traced(tmp_path):

        class Plain(BaseRetriever):
            def _get_relevant_documents(self, query: str) -> list[Document]:
                return [Document(query)]

        assert Plain._new_arg_supported is False  # LangChain's own hook set it
        assert Plain().invoke("q")[0].page_content == "q"


def test_a_mixin_is_wrapped_and_left_alone_elsewhere(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:
        assert Mixed().embed_query("x") == [2.0]
        assert Other().embed_query("x") == [2.0]
        assert [span.name for span in bed.log.of("embedding")] == ["embeddings Mixed"]


def test_a_borrowed_method_is_not_wrapped_twice(tmp_path: Path) -> None:
    with traced(tmp_path) as bed:

        class Borrower(Embeddings):
            embed_documents = Lengths.embed_documents
            embed_query = Lengths.embed_query

        assert Borrower().embed_documents(["ab"]) == [[2.0, 1.0]]
        bed.log.one("embedding")
    assert not hasattr(Borrower.__dict__["embed_query"], "__wrapped__")


def test_somebodys_wrapper_over_ours_survives_taking_off(tmp_path: Path) -> None:
    class Wrapped(Lengths):
        def embed_query(self, text: str) -> list[float]:
            return [3.0]

    with traced(tmp_path):
        ours = Wrapped.embed_query

        @functools.wraps(ours)
        def over(self: Any, text: str) -> list[float]:
            return [*ours(self, text), 4.0]

        Wrapped.embed_query = over  # type: ignore[method-assign]
    assert Wrapped.__dict__["embed_query"] is over
    assert Wrapped().embed_query("x") == [3.0, 4.0]


def test_installing_again_upgrades_and_each_undo_may_be_called_twice(tmp_path: Path) -> None:
    tracer = init(project="boundaries", store=tmp_path / "store")
    assert tracer is not None
    try:
        first = seam.install(tracer)
        installed = seam.installed()
        assert installed is not None
        assert not installed.always
        second = seam.install(tracer, always=True)
        assert seam.installed() is installed
        assert installed.always
        seam.install(tracer)
        assert installed.always
        first()
        second()
        first()
        assert seam.installed() is None
        assert not hasattr(Lengths.__dict__["embed_query"], "__wrapped__")
    finally:
        clew.shutdown()


def test_without_always_boundaries_act_only_below_a_span(tmp_path: Path) -> None:
    with traced(tmp_path, always=False) as bed:
        Lengths().embed_query("outside")
        with clew.trace("work"):
            Lengths().embed_query("inside")
        span = bed.log.one("embedding")
        assert bed.log.value(span.used[0]) == ("inside",)
        parent = bed.log.parent(span)
        assert parent is not None
        assert parent.name == "work"


def test_classes_made_in_a_loop_are_not_kept_alive(tmp_path: Path) -> None:
    with traced(tmp_path):

        def made() -> weakref.ref[type]:
            class Short(Lengths):
                def embed_query(self, text: str) -> list[float]:
                    return [1.0]

            Short().embed_query("x")
            return weakref.ref(Short)

        reference = made()
        gc.collect()
        assert reference() is None


def test_a_wrapper_keeps_the_signature_that_langchain_reads(tmp_path: Path) -> None:
    with traced(tmp_path):

        def add(x: int, y: int = 2) -> int:
            """Add."""
            return x + y

        tool = StructuredTool.from_function(add)
        assert set(tool.args) == {"x", "y"}
        assert tool.invoke({"x": 1}) == 3
