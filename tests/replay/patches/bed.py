"""Programs that are recorded, run again with a patch, and looked at."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool, tool

import clew
from clew.replay.playback.certificate import Certificate
from clew.replay.playback.prompt import SeenPrompt, prompts
from clew.tracer.init import Tracer
from tests.replay.conftest import LIVE, Counted, live

Recording = Callable[[], AbstractContextManager[Tracer]]


def recorded(body: Callable[[], Any]) -> Any:
    with clew.run("recorded") as run:
        body()
    LIVE.clear()
    return run


def seen(tracer: Tracer, run: Any) -> list[SeenPrompt]:
    tracer.flush()
    with clew.open(tracer.folder.path) as opened:
        return prompts(opened, run)


def spans(tracer: Tracer, run: str | None, kind: str) -> list[Any]:
    tracer.flush()
    return [span for span in clew.open(tracer.folder.path).spans(run) if span.kind == kind]


def hybrid(run: Any, patch: Any, body: Callable[[], Any], **options: Any) -> tuple[Any, Certificate, Any]:
    """What the program gave with this patch, the certificate, and the replay."""
    with clew.replay(run, mode="hybrid", patch=patch, **options) as again:
        given = body()
    return given, again.certificate, again


class Sized(Counted):
    """A model with a name."""

    model_name: str = "small"


@tool
def search(query: str) -> str:
    """Look a thing up."""
    live("tool")
    return f"found {query}"


class Checker(BaseTool):
    name: str = "check"
    description: str = "Check it."

    def _run(self, claim: str) -> str:
        live("tool")
        return f"checked {claim}"


CALL = {"type": "tool_call", "id": "call_1", "args": {"query": "q"}, "name": "search"}


def looked_up() -> str:
    return str(search.invoke(CALL).content) + str(Checker().invoke({"claim": "c"}))


class Library(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        live("retriever")
        return [Document("old text", id="d1", metadata={"page": 1}), Document("other", id="d2")]


def cited() -> str:
    found = Library().invoke("q")
    return Counted().invoke(" / ".join(one.page_content for one in found)).text
